"""Small benchmark files, pinned in a copy of the shipped cards in place of the upstream files."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any
from unittest.mock import patch

import pytest
import yaml

import lampe
from lampe_eval import cards, method_specs, plugins
from lampe_eval.benches import BENCHES


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the shipped cards to a folder and use that folder for the rest of the test.

    Returns:
        The folder: its ``tasks`` and ``configs`` hold the cards, its ``data`` the benchmark files.
    """
    folder = tmp_path / "package"
    for kind in ("tasks", "configs"):
        shutil.copytree(cards.shipped_folder(kind), folder / kind)
    monkeypatch.setattr("lampe_eval.cards.PACKAGE", folder / "lampe_eval")
    monkeypatch.setenv("LAMPE_EVAL_DATA", str(folder / "data"))
    return folder


def pin(package: Path, bench: str, name: str, content: bytes) -> None:
    """Write a bench's file, ``name`` as in "bench/name", to the data folder and pin its hash."""
    card = package / "tasks" / bench / "assets.yaml"
    listed = yaml.safe_load(card.read_text(encoding="utf-8"))
    files = itertools.chain.from_iterable(source["files"] for source in listed["sources"])
    file = next(file for file in files if _name(file) == name)
    file |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    card.write_text(yaml.safe_dump(listed), encoding="utf-8")
    path = package / "data" / bench / file["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _name(file: dict[str, Any]) -> str:
    return str(file.get("name") or PurePosixPath(file["path"]).name)


@contextmanager
def restored_registries() -> Iterator[None]:
    """Take back at the end what plug-ins register meanwhile."""
    registries = (lampe.METHODS, BENCHES, method_specs._outside_cards, plugins._loaded)
    with ExitStack() as stack:
        for registry in registries:
            stack.enter_context(patch.dict(registry))
        yield
