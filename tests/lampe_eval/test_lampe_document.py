"""docs/lampe.md: the library computes its tables, and the commands in it draw its pictures."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from lampe_eval.cli import app
from tests.lampe_numbers import curve_table, release_table

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "lampe.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"lampe-eval (show plan .*) --png (\S+)", DOCUMENT.replace("\\\n", ""))


@pytest.mark.parametrize("table", [release_table, curve_table])
def test_tables_are_computed(table: Callable[[], str]) -> None:
    assert table() in DOCUMENT, "run: python -m tests.lampe_numbers"


@pytest.mark.parametrize(
    ("command", "picture"), COMMANDS, ids=[Path(picture).stem for _, picture in COMMANDS]
)
def test_pictures_are_drawn_by_their_commands(tmp_path: Path, command: str, picture: str) -> None:
    app([*shlex.split(command), "--png", str(tmp_path / "drawn.png")], standalone_mode=False)
    drawn, shown = imread(tmp_path / "drawn.png"), imread(ROOT / picture)
    assert drawn.shape == shown.shape
    # Pictures of two different plans differ by 0.004.
    assert np.abs(drawn - shown).mean() < 0.002


def test_every_picture_has_its_command() -> None:
    assert [Path(picture).name for _, picture in COMMANDS] == re.findall(
        r"\(pictures/(lampe-.*?\.png)\)", DOCUMENT
    )
