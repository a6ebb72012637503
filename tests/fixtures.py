"""Small benchmark files, pinned in a copy of the shipped cards in place of the upstream files."""

import itertools
import shutil
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from lampe_eval import cards


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
