"""Tests of progress as lines: nothing is silent for long, and nothing quick is noisy."""

import time

import pytest

from lampe_eval.commands.progress_display import ProgressLines


def test_what_takes_long_is_shown_again(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLines(interval=0.05) as progress:
        progress.now("hashing")
        time.sleep(0.12)
        progress.total(3)
        progress.now("loading")
        progress.finished(2)
        time.sleep(0.12)
    lines = capsys.readouterr().err.splitlines()
    assert list(dict.fromkeys(lines)) == ["hashing", "[0/3] loading", "[2/3] loading"]


def test_what_is_quick_before_a_run_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLines() as progress:
        progress.now("hashing")
        progress.now("trying niah/single · 256")
    assert capsys.readouterr().err == ""
