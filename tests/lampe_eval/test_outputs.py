"""Outputs: all files of a command can be written, or none is, and one line says why."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lampe_eval import cli
from lampe_eval.report import pictures, tables
from tests.lampe_eval import stored_runs

PREDICTION = '{"pred": "7", "outputs": ["7"], "index": 0, "input": "x"}\n'


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    right = [True, True, False]
    stored_runs.run(tmp_path / "run", {"original": {256: right, 512: right}})
    (tmp_path / "preds").mkdir()
    (tmp_path / "preds" / "vt.jsonl").write_text(PREDICTION)
    return tmp_path / "run"


def _call(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["lampe-eval", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def _content(folder: Path) -> dict[str, str]:
    """Return every path below a folder with what it is."""
    found: dict[str, str] = {}
    for path in folder.rglob("*"):
        is_file = path.is_file() and not path.is_symlink()
        found[str(path)] = path.read_bytes().hex() if is_file else str(path.lstat().st_mode)
    return found


BROKEN_OUTPUTS: dict[str, Callable[[Path], object]] = {
    "pictures": lambda path: path.symlink_to(path.parent.parent),
    "pictures ": lambda path: path.with_name("pictures").write_text(""),
    "report.html": lambda path: path.mkdir(),
    "table.tex": lambda path: path.mkdir(),
    "settings.md": lambda path: os.mkfifo(path),
    "pictures/niah-grid-by-length.svg": lambda path: path.mkdir(parents=True),
}


@pytest.mark.parametrize("name", BROKEN_OUTPUTS)
def test_a_report_writes_all_of_its_files_or_none(
    run_folder: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for written in [*run_folder.glob("*.csv"), *run_folder.glob("*.md")]:
        written.unlink()
    BROKEN_OUTPUTS[name](run_folder / name)
    monkeypatch.setattr(pictures, "FORMATS", {"svg": {}})
    monkeypatch.setattr(tables, "settings_tables", lambda gathered: tables.report_tables(gathered))
    before = _content(run_folder)
    code, _, errors = _call(["report", str(run_folder)], monkeypatch, capsys)
    assert code == 2
    (line,) = errors.splitlines()
    assert name.strip() in line
    assert _content(run_folder) == before


@pytest.mark.parametrize("to", ["lm-eval", "every-eval-ever", "hf"])
@pytest.mark.parametrize("output", ["file", "link", "default"])
def test_an_export_that_cannot_be_written_is_one_line(
    run_folder: Path,
    to: str,
    output: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = run_folder / "export" if output == "default" else run_folder / output
    if output == "link":
        target.mkdir()
        first = {"lm-eval": "pocket", "every-eval-ever": "data", "hf": "pocket"}[to]
        (target / first).symlink_to(run_folder.parent)
    else:
        target.write_text("")
    options = [] if output == "default" else ["--output", str(target)]
    before = _content(run_folder)
    code, _, errors = _call(["export", str(run_folder), "--to", to, *options], monkeypatch, capsys)
    assert code == 2
    (line,) = errors.splitlines()
    assert target.name in line
    assert _content(run_folder) == before


DEVICES = ["/dev/full", "/dev/null", "here", "file/below", "/proc/x", "pipe"]


@pytest.mark.parametrize("output", DEVICES)
@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "plan", "--png"],
        ["score", "--preds", "preds", "--bench", "ruler", "--output"],
        ["leaderboard", "build", ".", "--output"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_output_that_is_no_file_is_one_line(
    run_folder: Path,
    arguments: list[str],
    output: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if arguments[0] == "score":
        if output.startswith("/dev"):
            pytest.skip("written beside it, with a suffix")
        for suffix in ("csv", "json"):
            Path(f"here.{suffix}").mkdir()
            os.mkfifo(f"pipe.{suffix}")
    else:
        Path("here").mkdir()
        os.mkfifo("pipe")
    Path("file").write_text("")
    before = Path("/dev/full").stat().st_mode
    code, out, errors = _call([*arguments, output], monkeypatch, capsys)
    assert code == 2
    # Only an attempt shows that a file system takes no files.
    assert "written" not in out if output == "/proc/x" else out == ""
    (line,) = errors.splitlines()
    assert output in line
    assert Path("/dev/full").stat().st_mode == before


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg", ""])
def test_a_plan_is_drawn_in_the_format_of_its_name(
    tmp_path: Path,
    suffix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["show", "plan", "--length", "64", "--window", "32", "--png", f"plan{suffix}"]
    assert _call(arguments, monkeypatch, capsys)[0] == 0
    start = {".pdf": b"%PDF", ".svg": b"<?xml"}.get(suffix, b"\x89PNG")
    assert (tmp_path / f"plan{suffix}").read_bytes().startswith(start)


def test_a_format_that_does_not_exist_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = _call(["show", "plan", "--png", "plan.xyz"], monkeypatch, capsys)
    assert code == 2 and "xyz" in errors and len(errors.splitlines()) == 1
    assert not Path("plan.xyz").exists()
