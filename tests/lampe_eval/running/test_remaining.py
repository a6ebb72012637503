"""Remaining batches of a run: longest first, in batches that fit, without those that are stored."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches.bench import Sample
from lampe_eval.commands.progress_display import ProgressLines
from lampe_eval.engine.batch_job import BatchJob, FinishedBatch
from lampe_eval.records import SampleRecord
from lampe_eval.running import runner
from lampe_eval.running.configuration import run_configuration
from lampe_eval.running.interrupt import Interrupt
from lampe_eval.running.prepared_run import PreparedRun, prepare_run
from lampe_eval.running.remaining import CellCounts
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.running.runner import ModelRun, RunSession
from lampe_eval.running.sample_records import prompt_sha256
from lampe_eval.running.watchdog import Watchdog
from lampe_eval.store import Cell, Store
from lampe_eval.suite import Suite

Pocket = tuple[PreTrainedModel, PreTrainedTokenizerBase]


class RecordingPool:
    """Pool that runs nothing: it records batches, and how often it is started."""

    is_full = False
    is_busy = False

    def __init__(self, measured: int = 1) -> None:
        self.measured = measured
        self.started = 0
        self.jobs: list[BatchJob] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def start(self) -> None:
        self.started += 1

    def measure_batch_tokens(self) -> int:
        return self.measured

    def submit(self, job: BatchJob) -> None:
        self.jobs.append(job)

    def collect(self) -> list[FinishedBatch]:
        raise NotImplementedError


def _prepared(folder: Path, **options: Any) -> PreparedRun:
    suite = Suite(
        output=folder, limit=3, lengths="256,512", bench="niah/single,niah/multikey", **options
    )
    return prepare_run(resolve_suite(suite))


def _store(prepared: PreparedRun, folder: Path) -> Store:
    return Store.create(folder, run_configuration(prepared), {})


def _submitted(
    prepared: PreparedRun,
    store: Store,
    pocket: Pocket,
    pool: RecordingPool,
    watchdog: Watchdog | None = None,
) -> list[BatchJob]:
    """Return the batches that a run of the first model submits."""
    progress = ProgressLines()
    session = RunSession(
        prepared,
        store,
        CellCounts(prepared, store, progress),
        progress,
        watchdog or Watchdog(store.folder),
        Interrupt(lambda: False),
        lambda: None,
    )
    ModelRun(session, prepared.sources[0], pocket[1], pool).run_batches()
    return pool.jobs


def _remaining(prepared: PreparedRun, store: Store, pocket: Pocket) -> list[BatchJob]:
    return _submitted(prepared, store, pocket, RecordingPool())


def _record(cell: Cell, sample: Sample, **outcome: Any) -> SampleRecord:
    return {
        "id": sample.id,
        "length": cell.length,
        "prompt_sha256": prompt_sha256(sample),
        "prompt_tokens": len(sample.ids),
        **outcome,
    }


def _redraw(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[list[Sample]], Sequence[Sample]]
) -> None:
    """Change the samples that a run draws."""
    draw = runner.draw_samples
    monkeypatch.setattr(
        runner, "draw_samples", lambda *args, **options: change(draw(*args, **options))
    )


def test_the_longest_come_first_across_tasks_and_tables_keep_their_order(
    tmp_path: Path, pocket: Pocket
) -> None:
    prepared = _prepared(tmp_path / "run")
    store = _store(prepared, tmp_path / "run")
    pool = RecordingPool()
    jobs = _submitted(prepared, store, pocket, pool)
    assert [job.cell.length for job in jobs] == [512] * 12 + [256] * 12
    assert [job.cell.task for job in jobs[:12]] == ["single"] * 6 + ["multikey"] * 6
    sizes = [len(job.samples[0].ids) for job in jobs[:3]]
    assert sizes == sorted(sizes, reverse=True)
    assert list(store.cells()) == [cell for _, cell in prepared.cells(prepared.sources[0])]
    assert pool.started == 1


def test_stored_samples_are_not_run_again_but_failed_ones_are(
    tmp_path: Path, pocket: Pocket
) -> None:
    prepared = _prepared(tmp_path / "run", method="lampe")
    store = _store(prepared, tmp_path / "run")
    first = _remaining(prepared, store, pocket)[:3]
    cell = first[0].cell
    good, bad, unstored = (job.samples[0] for job in first)
    store.append(cell, _record(cell, good))
    store.append(cell, _record(cell, bad, error="oom"))
    again = [job for job in _remaining(prepared, store, pocket) if job.cell == cell]
    assert [set(job.missing) for job in again] == [{bad.id}, {unstored.id}]


def test_a_partly_stored_batch_is_the_same_batch_again(tmp_path: Path, pocket: Pocket) -> None:
    prepared = _prepared(tmp_path / "run", method="lampe", max_batch_tokens=1100)
    store = _store(prepared, tmp_path / "run")
    first = _remaining(prepared, store, pocket)[0]
    assert len(first.samples) == 2
    store.append(first.cell, _record(first.cell, first.samples[0]))
    again = _remaining(prepared, store, pocket)[0]
    assert [sample.id for sample in again.samples] == [sample.id for sample in first.samples]
    assert again.missing == {first.samples[1].id}


def test_counts_of_drawn_samples_are_stored(
    tmp_path: Path, pocket: Pocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draw fewer samples than the card says; the next session starts with the real counts."""
    prepared = _prepared(tmp_path / "run")
    store = _store(prepared, tmp_path / "run")
    _redraw(monkeypatch, lambda samples: samples[:2])
    _remaining(prepared, store, pocket)
    assert set(store.cells().values()) == {2}
    CellCounts(prepared, store, ProgressLines())
    assert set(store.cells().values()) == {2}


def test_a_finished_run_loads_nothing(tmp_path: Path, pocket: Pocket) -> None:
    prepared = _prepared(tmp_path / "run")
    store = _store(prepared, tmp_path / "run")
    for job in _remaining(prepared, store, pocket):
        store.append(job.cell, _record(job.cell, job.samples[0]))
    pool = RecordingPool()
    assert _submitted(prepared, store, pocket, pool) == []
    assert pool.started == 0


def test_measured_memory_for_nothing_is_one_sample_at_a_time(
    tmp_path: Path, pocket: Pocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    prepared = _prepared(tmp_path / "run")
    monkeypatch.undo()
    assert prepared.max_batch_tokens == "measured"
    pool = RecordingPool(measured=0)
    jobs = _submitted(prepared, _store(prepared, tmp_path / "run"), pocket, pool)
    assert {len(job.samples) for job in jobs} == {1}
    assert pool.started == 1


def test_drawing_and_loading_are_watched(
    tmp_path: Path, pocket: Pocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = _prepared(tmp_path / "run")
    store = _store(prepared, tmp_path / "run")
    watchdog = Watchdog(tmp_path)
    watched: set[str] = set()

    def note(samples: list[Sample]) -> list[Sample]:
        watched.update(str(running) for running in dict(watchdog._started_at))
        return samples

    class NotingPool(RecordingPool):
        def start(self) -> None:
            note([])
            assert not watchdog.has_running_batches

        def submit(self, job: BatchJob) -> None:
            assert watchdog.has_running_batches
            watchdog.finish(job, [])

    _redraw(monkeypatch, note)
    _submitted(prepared, store, pocket, NotingPool(), watchdog)
    assert watched == {
        "drawing niah/single · 256",
        "drawing niah/single · 512",
        "drawing niah/multikey · 256",
        "drawing niah/multikey · 512",
        "loading pocket",
    } | {name for name in watched if name.startswith("pocket · ")}
    assert not watchdog._started_at
