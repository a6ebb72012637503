"""Reports and the page of all runs, as a user makes them."""

import shutil
import sys
from pathlib import Path

import pytest

from lampe_eval.cli import main
from tests.lampe_eval import stored_runs

ANSWERS = {
    "lampe": {256: [True, True], 512: [True, True]},
    "original": {256: [True, True], 512: [False, True]},
}
TABLES = ["details.csv", "pairs.csv", "scores.csv", "table.csv", "table.md", "table.tex"]


def _cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lampe-eval", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def _report(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    return _cli(monkeypatch, "report", *arguments)


def test_a_run_is_reported_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_runs.run(Path("out"), ANSWERS)
    assert _report(monkeypatch, "out") == 0
    assert (
        sorted(
            path.name for path in Path("out").iterdir() if path.suffix in (".csv", ".md", ".tex")
        )
        == TABLES
    )
    assert len(list(Path("out/pictures").glob("*.svg"))) == 2
    printed = capsys.readouterr().out
    assert "niah/grid · recall · pocket, window 256 · protocol fair" in printed
    assert printed.endswith("\nwritten to out/report.html, 2 pictures in out/pictures\n")
    assert Path("out/pictures/niah-grid-by-depth.pdf").exists()


def test_several_runs_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        stored_runs.run(Path(name), ANSWERS)
    assert _report(monkeypatch, "a", "b") == 0
    assert "| lampe · b |" in Path("results/report/table.md").read_text()
    assert _report(monkeypatch, "a", "b", "--output", "elsewhere") == 0
    assert sorted(path.name for path in Path("elsewhere").iterdir()) == sorted(
        [*TABLES, "pictures", "report.html"]
    )


def test_all_runs_are_on_one_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("results/a", "results/deep/b c", "results/m/step"):
        stored_runs.run(Path(name), ANSWERS)
    Path("results/m/m-calibrated.yaml").write_text("")
    stored_runs.run(Path("results/new"), {"lampe": {256: []}})
    assert _report(monkeypatch, "results/deep/b c") == 0
    assert _cli(monkeypatch, "leaderboard", "build") == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "left out: results/new: no sample is stored yet",
        "left out: results/m: the runs of a calibration",
        "written to results/index.html: 2 runs, 1 of them with a report (lampe-eval report RUN)",
    ]
    page = Path("results/index.html").read_text()
    assert "deep/b%20c/report.html" in page
    assert "a/report.html" not in page
    assert _cli(monkeypatch, "leaderboard", "build", "results/a/samples") == 2
    assert "results/a/samples: no run" in capsys.readouterr().err
    assert _cli(monkeypatch, "leaderboard", "buidl") == 2
    assert "No such command 'buidl'. Did you mean 'build'?" in capsys.readouterr().err


def test_a_run_that_cannot_be_read_is_left_out_of_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        stored_runs.run(Path("results", name), ANSWERS)
    Path("results/a/cells.jsonl").write_text("{}\n")
    Path("results/b/run.yaml").write_text("hello")
    assert _cli(monkeypatch, "leaderboard", "build") == 0
    printed = capsys.readouterr()
    assert "1 runs, 0 of them with a report" in printed.out
    first, second = [line for line in printed.out.splitlines() if "left out" in line]
    assert "left out: results/a/cells.jsonl:1: damaged" in first
    assert "left out: results/b/run.yaml: " in second


def test_a_run_of_a_bench_from_a_plugin_that_is_not_given_is_left_out_of_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        stored_runs.run(Path("results", name), ANSWERS)
    for name in ("cells.jsonl", "run.yaml"):
        path = Path("results/a", name)
        path.write_text(path.read_text().replace("niah", "quiz"))
    assert _cli(monkeypatch, "leaderboard", "build") == 0
    printed = capsys.readouterr()
    assert "1 runs, 0 of them with a report" in printed.out
    (line,) = [line for line in printed.out.splitlines() if "left out" in line]
    for part in ("left out: results/a: ", "'quiz'", "--plugin"):
        assert part in line


def test_folders_without_a_complete_run_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _report(monkeypatch, "nothing") == 2
    assert "nothing: no such folder" in capsys.readouterr().err
    stored_runs.run(Path("new"), {"lampe": {256: []}})
    assert _report(monkeypatch, "new") == 2
    assert "new: no sample is stored yet" in capsys.readouterr().err
    shutil.rmtree("new")
    stored_runs.run(Path("out"), ANSWERS)
    assert _report(monkeypatch, ".") == 2
    error = capsys.readouterr().err
    assert ".: a folder of runs" in error
    assert ": out" in error
    Path("m-calibrated.yaml").write_text("")
    assert _report(monkeypatch, ".") == 2
    error = capsys.readouterr().err
    assert ".: a calibration" in error
    assert ": out" in error
    Path("file").write_text("")
    assert _report(monkeypatch, "out", "--output", "file") == 2
    assert "'--output': dir 'file' is a file" in capsys.readouterr().err
