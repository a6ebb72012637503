"""The log has a heartbeat, and a sample that hangs is named."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lampe
from lampe_eval.benches import find_tasks
from lampe_eval.benches.bench import Prompt
from lampe_eval.engine.job import Job
from lampe_eval.errors import LOG, warn
from lampe_eval.running.watchdog import Watchdog
from lampe_eval.store import Cell


def _job(key: str) -> Job:
    (task,) = find_tasks(["niah/single"])
    cell = Cell("pocket", "lampe", "niah", "single", 512)
    return Job(task, cell, lampe.method_of("lampe"), (Prompt(key, [1], 1, ()),), frozenset([key]))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _log(folder: Path) -> str:
    path = folder / "run.log"
    return path.read_text() if path.exists() else ""


def test_a_heartbeat_says_what_is_in_hand(tmp_path: Path) -> None:
    with Watchdog(tmp_path, heartbeat=0.02) as watch:
        first, second = list(watch.begins(iter([_job("a"), _job("b")])))
        watch.done(first, ["ValueError: broken"])
        _until(
            lambda: (
                "1 samples done, 1 of them failed; in hand: pocket · lampe · niah/single · 512 · b"
                in _log(tmp_path)
            )
        )
        watch.done(second, [])
    assert "ERROR pocket · lampe · niah/single · 512 · a: ValueError: broken" in _log(tmp_path)
    assert (
        _log(tmp_path)
        .splitlines()[-1]
        .endswith("ended: 2 samples done, 1 of them failed; in hand: nothing")
    )


def test_an_error_of_many_lines_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        LOG, "propagate", False
    )  # pytest keeps what it hears, and cannot send half a pair to xdist
    with Watchdog(tmp_path) as watch:
        (job,) = watch.begins(iter([_job("a")]))
        watch.done(job, ["RuntimeError: one\ntwo \x1b[31mred\ud83d ü"])
        warn("three\nfour")
    logged = _log(tmp_path).splitlines()
    assert logged[0].endswith(r"· a: RuntimeError: one\ntwo \x1b[31mred\ud83d ü")
    assert logged[1].endswith(r"WARNING three\nfour") and len(logged) == 3
    assert capsys.readouterr().err == "lampe-eval: three\\nfour\n"


def test_a_sample_that_hangs_is_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Watchdog(tmp_path, heartbeat=0.02, patience=0.05) as watch:
        (job,) = watch.begins(iter([_job("slow")]))
        _until(lambda: "hangs?" in _log(tmp_path))
        beats = _log(tmp_path).count("INFO")
        _until(lambda: _log(tmp_path).count("INFO") > beats + 3)
        watch.done(job, [])
    assert (
        capsys.readouterr().err.count(
            "hangs? pocket · lampe · niah/single · 512 · slow: nothing for"
        )
        == 1
    )


def test_a_clock_that_jumps_hangs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(0, 10**12, 10**7))
    with Watchdog(tmp_path, heartbeat=0.02, patience=25) as watch:
        (job,) = watch.begins(iter([_job("a")]))
        monkeypatch.setattr(time, "time", lambda: next(jumps))
        _until(lambda: _log(tmp_path).count("INFO") > 3)
        watch.done(job, [])
    assert "hangs?" not in _log(tmp_path)


def test_a_log_that_cannot_be_written_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.log").symlink_to("/dev/full")
    with Watchdog(tmp_path) as watch:
        (job,) = watch.begins(iter([_job("a")]))
        watch.done(job, ["broken"])
    with Watchdog(tmp_path / "none") as watch:
        (job,) = watch.begins(iter([_job("a")]))
        watch.done(job, ["broken"])
    assert capsys.readouterr().err == ""
    assert not LOG.handlers
