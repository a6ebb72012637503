"""What is left to do: longest first, in batches that fit, drawn ahead."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches.bench import FollowUp, Passage, Prompt
from lampe_eval.commands.progress_display import Lines
from lampe_eval.engine.job import Job, Outcome
from lampe_eval.plan import Plan, prepare
from lampe_eval.running.prefetch import prefetch
from lampe_eval.running.rows import sha256
from lampe_eval.running.watchdog import Watchdog
from lampe_eval.running.work import Work, batches, cells
from lampe_eval.store import Store
from lampe_eval.suite import Suite


class Nobody:
    """Workers that only count how often they were started."""

    started = 0

    def start(self) -> None:
        self.started += 1

    def room(self) -> int:
        return 1

    def do(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, list[Outcome]]]:
        raise NotImplementedError


Pocket = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def _work(folder: Path, pocket: Pocket, **options: object) -> tuple[Plan, Store, Work]:
    plan = prepare(
        Suite(
            output=folder, limit=3, lengths="256,512", bench="niah/single,niah/multikey", **options
        )
    )
    store = Store.create(folder, plan.config, {})
    return plan, store, Work(plan, plan.sources[0], pocket[1], store, Lines(), Watchdog(folder))


def test_the_longest_come_first_across_tasks_and_tables_keep_their_order(
    tmp_path: Path, pocket: Pocket
) -> None:
    plan, store, work = _work(tmp_path / "run", pocket)
    workers = Nobody()
    jobs = list(work.jobs(workers))
    assert [job.cell.length for job in jobs] == [512] * 12 + [256] * 12
    assert [job.cell.task for job in jobs[:12]] == ["single"] * 6 + ["multikey"] * 6
    sizes = [len(sample.ids) for job in jobs[:3] for sample in job.samples]
    assert sizes == sorted(sizes, reverse=True)
    assert list(store.cells()) == [cell for _, cell in cells(plan, plan.sources[0])]
    assert workers.started == 1


def test_stored_samples_are_not_done_again_but_failed_ones_are(
    tmp_path: Path, pocket: Pocket
) -> None:
    _, store, work = _work(tmp_path / "run", pocket, method="lampe")
    first = [
        job for job in work.jobs(Nobody()) if job.cell.length == 512 and job.cell.task == "single"
    ]
    (good,), (bad,) = first[0].samples, first[1].samples
    store.append(first[0].cell, {"id": good.id, "prompt_sha256": sha256(good)})
    store.append(first[0].cell, {"id": bad.id, "prompt_sha256": sha256(bad), "error": "oom"})
    again = [job for job in work.jobs(Nobody()) if job.cell == first[0].cell]
    assert [set(job.wanted) for job in again] == [{bad.id}, {first[2].samples[0].id}]


def test_a_batch_of_which_some_is_stored_is_the_same_batch(tmp_path: Path, pocket: Pocket) -> None:
    _, store, work = _work(tmp_path / "run", pocket, method="lampe", max_batch_tokens=1100)
    first = next(iter(work.jobs(Nobody())))
    assert len(first.samples) == 2
    store.append(first.cell, {"id": first.samples[0].id, "prompt_sha256": sha256(first.samples[0])})
    again = next(iter(work.jobs(Nobody())))
    assert [sample.id for sample in again.samples] == [sample.id for sample in first.samples]
    assert again.wanted == {first.samples[1].id}


def test_counts_of_what_was_drawn_outlast_the_work_that_drew_it(
    tmp_path: Path, pocket: Pocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a task with fewer samples than its card says; the next model begins with the same counts."""
    plan, store, work = _work(tmp_path / "run", pocket)
    draw = Plan.samples
    monkeypatch.setattr(Plan, "samples", lambda *args, **options: draw(*args, **options)[:2])
    list(work.jobs(Nobody()))
    assert set(store.cells().values()) == {2}
    next(Work(plan, plan.sources[0], pocket[1], store, Lines(), Watchdog(tmp_path)).jobs(Nobody()))
    assert set(store.cells().values()) == {2}


def test_nothing_left_loads_nothing(tmp_path: Path, pocket: Pocket) -> None:
    _, store, work = _work(tmp_path / "run", pocket)
    for job in work.jobs(Nobody()):
        store.append(job.cell, {"id": job.samples[0].id, "prompt_sha256": sha256(job.samples[0])})
    workers = Nobody()
    assert list(work.jobs(workers)) == []
    assert workers.started == 0


def test_a_room_of_nothing_is_one_sample_and_is_measured_once(
    tmp_path: Path, pocket: Pocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, work = _work(tmp_path / "run", pocket)
    monkeypatch.setattr(Plan, "batch", "measured")
    monkeypatch.setattr(Nobody, "room", lambda _: 0)
    workers = Nobody()
    assert {len(job.samples) for job in work.jobs(workers)} == {1}
    assert workers.started == 1


def test_drawing_and_loading_are_watched(
    tmp_path: Path, pocket: Pocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, watched = Watchdog(tmp_path), set[str]()
    plan, store, _ = _work(tmp_path / "run", pocket)
    draw = Plan.samples

    def note() -> None:
        assert not watch.has_jobs
        watched.update(map(str, watch._in_hand))

    monkeypatch.setattr(Plan, "samples", lambda *args, **options: note() or draw(*args, **options))
    monkeypatch.setattr(Nobody, "start", lambda _: note())
    list(Work(plan, plan.sources[0], pocket[1], store, Lines(), watch).jobs(Nobody()))
    drawn = {
        f"drawing niah/{task} · {length}"
        for task in ("single", "multikey")
        for length in (256, 512)
    }
    assert watched == {*drawn, "loading pocket"}
    assert not watch._in_hand


def _prompt(tokens: int, room: int = 10, **options: object) -> Prompt:
    return Prompt(f"{tokens}", [0] * tokens, room, (), **options)  # type: ignore[arg-type]


def _sizes(samples: list[Prompt | Passage], room: int) -> list[list[int]]:
    return [[len(sample.ids) for sample in batch] for batch in batches(samples, room)]


def test_a_batch_with_its_padding_fits_its_room() -> None:
    samples = [_prompt(n) for n in (90, 80, 40, 30, 20)]
    assert _sizes(samples, 200) == [[90, 80], [40, 30, 20]]
    assert _sizes(samples, 300) == [[90, 80, 40], [30, 20]]
    assert _sizes(samples, 1) == [[90], [80], [40], [30], [20]]


def test_only_what_is_alike_shares_a_batch() -> None:
    follow = FollowUp(lambda text: _prompt(1), lambda first, second: second)
    odd = [
        _prompt(5, room=11),
        _prompt(5, stop_token_ids=(3,)),
        _prompt(5, follow_up=follow),
        _prompt(5, skip=True),
    ]
    for sample in [*odd, Passage("x", [0] * 5, 2)]:
        assert _sizes(
            [_prompt(6), sample, sample] if sample not in odd[:2] else [_prompt(6), sample], 1000
        )[0] == [6]
    assert _sizes([Passage("x", [0] * 5, 2)] * 2, 1000) == [[5], [5]]


def test_the_next_is_made_while_the_last_is_used() -> None:
    used, made = threading.Event(), []

    def items() -> Iterator[int]:
        yield 0
        made.append(threading.current_thread())
        used.set()
        yield 1

    coming = prefetch(items())
    assert next(coming) == 0
    assert used.wait(10)  # while nobody asked for it
    assert next(coming) == 1
    assert made[0] is not threading.current_thread()
    assert list(coming) == []


def test_what_making_raised_comes_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise ValueError("no text")

    coming = prefetch(items())
    assert next(coming) == 0
    with pytest.raises(ValueError, match="no text"):
        next(coming)


def test_a_process_does_not_wait_for_what_nobody_wants_any_more() -> None:
    code = """
import time
from lampe_eval.running.prefetch import ahead
def items():
    yield 0
    time.sleep(3600)
print(next(ahead(items())), flush=True)
raise SystemExit(2)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "0\n")
