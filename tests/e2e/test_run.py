"""Runs from the command line: results on disk, resume, and kills at random moments."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lampe_eval.folder_lock import lock_for_writing
from tests.e2e.torture import HARMS, torture

RUN = [sys.executable, "-m", "lampe_eval", "run"]
SMALL = [
    "--method",
    "original,lampe,lampe:attention_factor=none",
    "--bench",
    "niah/multikey,ppl",
    "--lengths",
    "256,512",
]
LIMITED = [*SMALL, "--limit", "4"]


def _run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *arguments], capture_output=True, text=True, timeout=300, **options
    )  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a finished run's folder and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = _run(*LIMITED, "--output", str(folder))
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_table_has_methods_down_and_lengths_across(finished: tuple[Path, str]) -> None:
    _, printed = finished
    assert "niah/multikey · recall · pocket, window 256" in printed
    assert "ppl/exact · perplexity" in printed
    (row,) = [line for line in printed.split("ppl/exact")[0].splitlines() if " lampe " in line]
    assert "by length" in row
    assert row.count("[") == 2


def test_everything_is_on_disk(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    run = yaml.safe_load((folder / "run.yaml").read_text())
    assert (
        run["config"]["methods"]["lampe:attention_factor=none"]["pocket"]["attention_factor"]
        == "none"
    )
    assert [environment["transformers"] for environment in run["environments"]]
    scores = _table(folder / "scores.csv")
    assert len(scores) == 3 * 2 * 2
    assert all(row["n"] == "4" and row["missing"] == "0" and row["errors"] == "0" for row in scores)
    assert {row["largest_position"] for row in scores if row["method"] == "original"} == {
        "246", "255", "511",
    }  # fmt: skip
    assert {row["mapping_length"] for row in scores if row["method"] == "lampe"} == {"66", "98"}
    assert "| mapping_length | 66 | 98 |" in (folder / "settings.md").read_text()
    assert "answers passed the window of 256" in (folder / "table.md").read_text()
    wide = _table(folder / "table.csv")
    assert {"256", "512", "256 stderr", "512 ci_low", "512 ci_high"} < set(wide[0])
    # of each benchmark a table of scores and one of differences
    assert (folder / "table.md").read_text().count("| lampe:attention_factor=none |") == 2 * 2
    (samples,) = folder.glob("samples/pocket/lampe/niah/multikey.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert len(rows) == 8
    assert all(row["prediction"] and row["references"] and row["prompt_sha256"] for row in rows)


def test_the_same_command_again_runs_nothing_twice(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = _run(*LIMITED, "--output", str(folder))
    assert again.stdout == printed
    assert again.stderr.startswith("nothing is left to run, 48 of 48 samples")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_scoring_again_changes_nothing(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    before = (folder / "scores.csv").read_bytes()
    (folder / "scores.csv").unlink()
    again = subprocess.run(
        [sys.executable, "-m", "lampe_eval", "score", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout == printed
    assert (folder / "scores.csv").read_bytes() == before


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_scores(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    """Kill at fixed moments; LAMPE_TORTURE_SEED=... in the environment chooses others."""
    folder, _ = finished
    assert torture(LIMITED, folder, tmp_path, kills=4, seconds=12, seed=20) >= 1


@pytest.mark.parametrize(("case", "seconds"), [("sigterm", 12), ("samples removed", 12)])
def test_a_run_that_is_harmed_ends_in_time_and_loses_nothing(
    case: str, seconds: float, finished: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = finished
    assert torture(LIMITED, folder, tmp_path, 1, seconds, seed=20, harm=HARMS[case]) >= 1


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_another_command_into_the_same_folder_is_refused(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before = (folder / "scores.csv").read_bytes()
    refused = _run(*SMALL, "--limit", "3", "--output", str(folder))
    assert refused.returncode == 2
    assert "--limit was 4, now 3" in refused.stderr
    assert "running " not in refused.stderr
    assert (folder / "scores.csv").read_bytes() == before


def test_a_stored_answer_to_another_prompt_is_refused(tmp_path: Path) -> None:
    """Guard against a chat template that changes under a run: a score has one prompt."""
    out = tmp_path / "out"
    few = ("--method", "original", "--bench", "niah/single", "--lengths", "256", "--limit", "1")
    assert _run(*few, "--output", str(out)).returncode == 0
    (samples,) = out.glob("samples/**/*.jsonl")
    row = json.loads(samples.read_text())
    samples.write_text(json.dumps(row | {"prompt_sha256": "0" * 64}) + "\n")
    refused = _run(*few, "--output", str(out))
    assert refused.returncode == 2
    assert "another prompt" in refused.stderr and row["id"] in refused.stderr


def test_two_runs_do_not_write_to_one_folder(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    with lock_for_writing(folder):
        refused = _run(*LIMITED, "--output", str(folder))
    assert refused.returncode == 2
    assert f"process {os.getpid()} on " in refused.stderr


def test_a_suite_file_sets_options(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("method: [original]\nbench: niah/single\nlengths: 256\nlimit: 9\n")
    done = _run("--config", str(suite), "--limit", "1", "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    (row,) = _table(tmp_path / "out" / "scores.csv")
    assert (row["method"], row["task"], row["n"]) == ("original", "single", "1")


def test_a_folder_with_a_checkpoint_and_the_users_texts(tmp_path: Path) -> None:
    from lampe_eval.pocket import WEIGHTS

    text = tmp_path / "book.txt"
    text.write_text("It was a bright cold day in the village. The clock was striking. " * 200)
    done = _run(
        "--model", str(WEIGHTS), "--method", "dca", "--bench", "niah/single,ppl/stride",
        "--lengths", "512", "--limit", "2", "--haystack", str(text), "--text", str(text),
        "--output", "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(_table(tmp_path / "out" / "scores.csv")) == 2
