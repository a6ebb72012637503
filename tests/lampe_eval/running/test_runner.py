"""Runs with faults: each ends in a stored record or one clear line, never in a wrong number."""

import csv
import errno
import itertools
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches.bench import Sample, Task
from lampe_eval.commands.progress_display import ProgressLines
from lampe_eval.commands.run import run_suite
from lampe_eval.engine.local_engine import GeneratedAnswer, LocalEngine
from lampe_eval.errors import Stopped, UserError, describe_error
from lampe_eval.folder_lock import lock_for_writing
from lampe_eval.results.cell_scores import score_run
from lampe_eval.running import runner, sampling
from lampe_eval.running.configuration import run_configuration
from lampe_eval.running.prepared_run import PreparedRun, prepare_run
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.store import Store
from lampe_eval.suite import Suite, exceeds_threshold
from tests.lampe_eval.running.engine_faults import fault_at_answer

Pocket = tuple[PreTrainedModel, PreTrainedTokenizerBase]
SMALL: dict[str, Any] = {
    "method": ["original"],
    "bench": "niah/single",
    "lengths": "256",
    "limit": 4,
}
COSTS = ("seconds", "prefill_seconds", "decode_seconds", "peak_memory_bytes")


@pytest.fixture(autouse=True)
def loaded(pocket: Pocket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the model once for all tests."""
    monkeypatch.setattr("lampe_eval.models.load_model", lambda *_: pocket)


def _run(folder: Path, **options: Any) -> Store:
    prepared = _prepared(folder, **options)
    return runner.run(prepared, run_configuration(prepared), ProgressLines())


def _prepared(folder: Path, **options: Any) -> PreparedRun:
    return prepare_run(resolve_suite(Suite(output=folder, **{**SMALL, **options})))


def _exit_code(**options: Any) -> int:
    return run_suite(resolve_suite(Suite.from_options({**SMALL, **options})))


def _rows(folder: Path) -> list[dict[str, Any]]:
    store = Store(folder)
    rows: list[dict[str, Any]] = []
    for cell in store.cells():
        rows += map(dict, store.rows(cell))
    return rows


def _rows_without_costs(folder: Path) -> list[dict[str, Any]]:
    return [{**row, **dict.fromkeys(COSTS)} for row in _rows(folder)]


def _broken() -> None:
    raise RuntimeError("the device fell over")


def test_a_record_says_what_its_sample_was_and_cost(tmp_path: Path) -> None:
    _run(tmp_path / "run")
    row = _rows(tmp_path / "run")[0]
    assert {
        "id",
        "prompt_sha256",
        "document_sha256",
        "prompt_tokens",
        "answer_tokens",
        "stop_reason",
        "prediction",
        "references",
        "score",
    } < set(row)
    assert {
        "seconds",
        "prefill_seconds",
        "decode_seconds",
        "peak_memory_bytes",
        "backend",
        "batch_size",
    } < set(row)
    assert row["prompt_end"].endswith(" is") and "What is the code of the" in row["prompt_end"]
    assert 0 < len(row["prompt_start"]) <= 300 >= len(row["prompt_end"])
    assert (row["backend"], row["batch_size"]) == ("blockwise on cpu", 1)
    assert "ray" not in sys.modules


def test_an_error_is_a_record_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fault_at_answer(patch, 2, _broken)
        _run(tmp_path / "run")
    failed = [row for row in _rows(tmp_path / "run") if "error" in row]
    assert [row["error"] for row in failed] == ["RuntimeError: the device fell over"]
    assert failed[0]["prompt_sha256"] and "score" not in failed[0]
    assert "RuntimeError: the device fell over" in (tmp_path / "run" / "run.log").read_text()
    _run(tmp_path / "run")
    assert [row["score"] for row in _rows(tmp_path / "run")] == [1.0] * 4


@pytest.mark.parametrize(
    ("threshold", "code"), [("yes", 1), ("no", 0), ("2", 0), ("1", 1), ("25%", 1), ("30%", 0)]
)
def test_the_exit_code_is_what_fail_on_error_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    threshold: str,
    code: int,
) -> None:
    fault_at_answer(monkeypatch, 1, _broken)
    assert _exit_code(output=tmp_path / "run", fail_on_error=threshold) == code
    assert "1 samples failed" in capsys.readouterr().out


def test_thresholds() -> None:
    assert not any(
        exceeds_threshold(threshold, 0, 100) for threshold in ("yes", "no", "5", "1%", "0")
    )
    assert exceeds_threshold("0.5%", 1, 200) and not exceeds_threshold("0.5%", 1, 201)
    with pytest.raises(ValueError, match="fail_on_error"):
        Suite(fail_on_error="some")
    assert (
        Suite.model_validate({"fail_on_error": True}).fail_on_error == "yes"
    )  # what YAML makes of it


@pytest.mark.parametrize(
    "error", [RuntimeError("the template says no"), UserError("niah/single: no essays")]
)
def test_samples_that_cannot_be_drawn_are_missing_and_the_others_are_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    draw = runner.draw_samples

    def draws(
        prepared: PreparedRun, task: Task, length: int, *arguments: Any, **options: Any
    ) -> list[Sample]:
        if length == 512:
            raise error
        return draw(prepared, task, length, *arguments, **options)

    # Only in the runner: the check before a run, which draws one sample of each task, succeeds.
    monkeypatch.setattr(runner, "draw_samples", draws)
    options = {"lengths": "256,512", "output": tmp_path / "run"}
    assert _exit_code(**options) == 1
    printed = capsys.readouterr()
    line = f"niah/single at 512 is left out: {describe_error(error)}"
    assert f"lampe-eval: {line}\n" in printed.err
    assert line in (tmp_path / "run" / "run.log").read_text()
    assert "4 samples" in printed.out
    rows = csv.DictReader((tmp_path / "run" / "scores.csv").read_text().splitlines())
    assert [(row["length"], row["n"], row["missing"]) for row in rows] == [
        ("256", "4", "0"),
        ("512", "0", "4"),
    ]
    monkeypatch.undo()
    assert _exit_code(**options) == 0


def test_a_task_without_samples_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> list[Sample]:
        raise RuntimeError("the template says no")

    monkeypatch.setattr(sampling, "draw_samples", broken)
    with pytest.raises(UserError, match="niah/single: RuntimeError: the template says no"):
        _run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_out_of_memory_is_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out_of_memory(*arguments: Any, **options: Any) -> list[GeneratedAnswer]:
        raise torch.OutOfMemoryError("tried to allocate 3 PiB")

    monkeypatch.setattr(LocalEngine, "answer", run_out_of_memory)
    _run(tmp_path / "run")
    assert {row["error"] for row in _rows(tmp_path / "run")} == {
        "oom: OutOfMemoryError: tried to allocate 3 PiB"
    }


def test_an_empty_answer_is_scored_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LocalEngine, "answer", lambda *_, **__: [GeneratedAnswer(" ", 1, "eos")])
    assert _exit_code(output=tmp_path / "run") == 0
    assert "4 answers are empty" in capsys.readouterr().out
    assert [row["score"] for row in _rows(tmp_path / "run")] == [0.0] * 4


def test_a_scorer_that_fails_is_an_error_of_its_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(*_: Any) -> float:
        raise ZeroDivisionError("no references")

    monkeypatch.setattr("lampe_eval.benches.niah.Niah.score", score)
    _run(tmp_path / "run")
    row = _rows(tmp_path / "run")[0]
    assert row["error"] == "ZeroDivisionError: no references" and row["prediction"]


def _no_encoding(*_: Any) -> None:
    raise ValueError("cannot encode")


def _score_of(score: Any) -> Callable[..., Any]:
    return lambda record, *_: record.update(score=score)


@pytest.mark.parametrize(
    ("part", "replacement", "error"),
    [
        ("_add_positions", _no_encoding, "ValueError: cannot encode"),
        ("_add_score", _score_of({1}), "TypeError: Object of type set is not JSON serializable"),
        ("_add_score", _score_of("high"), "ValidationError: 1 validation error for SampleRecord"),
    ],
)
def test_an_invalid_record_is_an_error_of_its_sample(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    replacement: Callable[..., Any],
    error: str,
) -> None:
    monkeypatch.setattr(f"lampe_eval.running.sample_records.{part}", replacement)
    _run(tmp_path / "run")
    row = _rows(tmp_path / "run")[0]
    assert row["error"].splitlines()[0] == error
    assert row["prediction"] and row["prompt_sha256"] and "score" not in row


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_stops_the_run_and_what_was_stored_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        fault_at_answer(patch, 3, lambda: patch.setattr("os.fsync", refuse))
        with pytest.raises(UserError, match=os.strerror(number)):
            _run(tmp_path / "run")
    assert len(_rows(tmp_path / "run")) in (2, 3)
    _run(tmp_path / "run")
    assert [row["score"] for row in _rows(tmp_path / "run")] == [1.0] * 4


def test_a_disk_that_is_full_in_the_middle_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the kernel cut a line off, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    fault_at_answer(
        monkeypatch, 2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2500, limits[1]))
    )
    try:
        with pytest.raises(UserError, match="File too large"):
            _run(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (samples,) = (tmp_path / "run" / "samples").rglob("*.jsonl")
    assert len(samples.read_bytes()) == 2500
    stored = len(_rows(tmp_path / "run"))
    assert 0 < stored < 4
    _run(tmp_path / "run")
    assert [row["score"] for row in _rows(tmp_path / "run")] == [1.0] * 4


@pytest.mark.parametrize("line", ["{oops", '{"length": 256}'])
def test_a_sample_whose_line_is_damaged_is_missing_until_it_is_run_again(
    tmp_path: Path, line: str
) -> None:
    whole = score_run(_run(tmp_path / "run")).scores
    (samples,) = (tmp_path / "run" / "samples").rglob("*.jsonl")
    first, *others = samples.read_text().splitlines(keepends=True)
    samples.write_text("".join([f"{line}\n", *others]))
    assert list(score_run(Store(tmp_path / "run")).scores["missing"]) == [1]
    assert score_run(_run(tmp_path / "run")).scores.equals(whole)
    assert samples.read_text().count(json.loads(first)["prompt_sha256"]) == 1


def test_a_run_that_is_refused_leaves_the_description_of_the_one_that_writes(
    tmp_path: Path,
) -> None:
    with lock_for_writing(tmp_path / "run"):
        Store.create(tmp_path / "run", run_configuration(_prepared(tmp_path / "run")), {})
        before = (tmp_path / "run" / "run.yaml").read_bytes()
        with pytest.raises(UserError, match="another run"):
            _run(tmp_path / "run", seed=1)
        assert (tmp_path / "run" / "run.yaml").read_bytes() == before


def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(tmp_path / "calm")
    clock = itertools.cycle([2.0e9, 0.0, 1.0e9])
    monkeypatch.setattr(time, "time", lambda: next(clock))
    _run(tmp_path / "jumping")
    assert _rows_without_costs(tmp_path / "calm") == _rows_without_costs(tmp_path / "jumping")
    assert all(
        0 < row["prefill_seconds"] <= row["seconds"] < 1e4 for row in _rows(tmp_path / "jumping")
    )


@pytest.mark.parametrize(
    ("number", "again", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)]
)
def test_a_signal_finishes_the_running_batch(
    number: int, again: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["lampe-eval", "run", "--method", "yarn:a=1, b"])
    with monkeypatch.context() as patch:
        fault_at_answer(patch, 2, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Stopped) as stop:
            _exit_code(output=tmp_path / "run")
    assert f"{again} again" in capfd.readouterr().err
    first, command = str(stop.value).splitlines()
    assert str(tmp_path / "run") in first
    assert command == "    lampe-eval run --method 'yarn:a=1, b'"
    assert stop.value.code == code
    assert len(_rows(tmp_path / "run")) == 2
    _run(tmp_path / "run")
    assert len(_rows(tmp_path / "run")) == 4


def test_ctrl_c_while_no_batch_is_running_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "lampe_eval.models.load_model", lambda *_: os.kill(os.getpid(), signal.SIGINT)
    )
    with pytest.raises(Stopped, match="stopped"):
        _exit_code(output=tmp_path / "run")
    assert "again stops at once" not in capfd.readouterr().err
    assert _rows(tmp_path / "run") == []


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    fault_at_answer(monkeypatch, 2, twice)
    with pytest.raises(Stopped):
        _run(tmp_path / "run")
    assert len(_rows(tmp_path / "run")) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_batches_are_flagged_and_answer_the_same(tmp_path: Path) -> None:
    alone, together = _run(tmp_path / "alone"), _run(tmp_path / "together", max_batch_tokens=1000)
    assert (alone.config["max_batch_tokens"], together.config["max_batch_tokens"]) == (None, 1000)
    rows, batched = _rows(tmp_path / "alone"), _rows(tmp_path / "together")
    assert {row["batch_size"] for row in batched} == {3, 1}
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in batched]


def test_scores_do_not_include_time_and_memory(tmp_path: Path) -> None:
    _exit_code(output=tmp_path / "run")
    (row,) = csv.DictReader((tmp_path / "run" / "scores.csv").read_text().splitlines())
    assert not {*COSTS, "backend"} & set(row)
