"""Watchdog: the log has a heartbeat, and a batch that may hang is named once."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lampe
from lampe_eval.benches import find_tasks
from lampe_eval.benches.bench import Prompt
from lampe_eval.engine.batch_job import BatchJob
from lampe_eval.errors import LOG, report_warning
from lampe_eval.running.watchdog import Watchdog
from lampe_eval.store import Cell


def _job(key: str) -> BatchJob:
    (task,) = find_tasks(["niah/single"])
    cell = Cell("pocket", "lampe", "niah", "single", 512)
    return BatchJob(
        task, cell, lampe.method_of("lampe"), (Prompt(key, [1], 1, ()),), frozenset([key])
    )


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _log(folder: Path) -> str:
    path = folder / "run.log"
    return path.read_text() if path.exists() else ""


def test_a_heartbeat_says_what_is_running(tmp_path: Path) -> None:
    with Watchdog(tmp_path, heartbeat=0.02) as watchdog:
        first, second = _job("a"), _job("b")
        watchdog.begin(first)
        watchdog.begin(second)
        watchdog.finish(first, ["ValueError: broken"])
        state = "1 of them failed; running: pocket · lampe · niah/single · 512 · b for"
        _until(lambda: state in _log(tmp_path))
        watchdog.finish(second, [])
    assert "ERROR pocket · lampe · niah/single · 512 · a: ValueError: broken" in _log(tmp_path)
    last = _log(tmp_path).splitlines()[-1]
    assert "ended: 2 samples" in last and last.endswith("1 of them failed; running: nothing")


def test_an_error_of_many_lines_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        LOG, "propagate", False
    )  # pytest would capture it, and cannot send half a surrogate pair to xdist
    with Watchdog(tmp_path) as watchdog:
        job = _job("a")
        watchdog.begin(job)
        watchdog.finish(job, ["RuntimeError: one\ntwo \x1b[31mred\ud83d ü"])
        report_warning("three\nfour")
    logged = _log(tmp_path).splitlines()
    assert logged[0].endswith(r"· a: RuntimeError: one\ntwo \x1b[31mred\ud83d ü")
    assert logged[1].endswith(r"WARNING three\nfour") and len(logged) == 3
    assert capsys.readouterr().err == "lampe-eval: three\\nfour\n"


def test_a_batch_that_may_hang_is_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Watchdog(tmp_path, heartbeat=0.02, patience=0.05) as watchdog:
        job = _job("slow")
        watchdog.begin(job)
        _until(lambda: "may hang" in _log(tmp_path))
        beats = _log(tmp_path).count("INFO")
        _until(lambda: _log(tmp_path).count("INFO") > beats + 3)
        watchdog.finish(job, [])
    assert capsys.readouterr().err.count("may hang: pocket · lampe · niah/single · 512 · slow") == 1


@pytest.mark.parametrize("known", ["estimate", "measured"])
def test_a_batch_that_is_expected_to_take_long_raises_no_alarm(tmp_path: Path, known: str) -> None:
    with Watchdog(tmp_path, heartbeat=0.02, patience=0.05) as watchdog:
        first, second = _job("first"), _job("second")
        watchdog.begin(first, 100)
        if known == "measured":
            _until(lambda: _log(tmp_path).count("INFO") > 10)
            watchdog.finish(first, [])
            watchdog._slowest = dict.fromkeys(watchdog._slowest, 100.0)
            watchdog.begin(second)
        beats = _log(tmp_path).count("INFO")
        _until(lambda: _log(tmp_path).count("INFO") > beats + 8)
        watchdog.finish(second if known == "measured" else first, [])
    assert "may hang" not in _log(tmp_path)


def test_a_clock_that_jumps_raises_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = iter(range(0, 10**12, 10**7))
    with Watchdog(tmp_path, heartbeat=0.02, patience=25) as watchdog:
        job = _job("a")
        watchdog.begin(job)
        monkeypatch.setattr(time, "time", lambda: next(jumps))
        _until(lambda: _log(tmp_path).count("INFO") > 3)
        watchdog.finish(job, [])
    assert "may hang" not in _log(tmp_path)


def test_a_log_that_cannot_be_written_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.log").symlink_to("/dev/full")
    with Watchdog(tmp_path) as watchdog:
        job = _job("a")
        watchdog.begin(job)
        watchdog.finish(job, ["broken"])
    with Watchdog(tmp_path / "none") as watchdog:
        job = _job("a")
        watchdog.begin(job)
        watchdog.finish(job, ["broken"])
    assert capsys.readouterr().err == ""
    assert not any(isinstance(handler, logging.FileHandler) for handler in LOG.handlers)
