"""Runs a plan: jobs to workers, and a row for every sample that comes back; only this process writes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from lampe_eval import models
from lampe_eval.engine.job import Job, Outcome, Workers
from lampe_eval.engine.worker import Worker
from lampe_eval.errors import Stopped, UserError, describe_error
from lampe_eval.models import ModelSource
from lampe_eval.plan import Plan
from lampe_eval.running.environment import environment
from lampe_eval.running.interrupt import Interrupt
from lampe_eval.running.progress import Progress
from lampe_eval.running.rows import Rows
from lampe_eval.running.watchdog import Watchdog
from lampe_eval.running.work import Work
from lampe_eval.store import Store, lock_for_writing


def run(
    plan: Plan, progress: Progress, began: Callable[[Store], None] = lambda store: None
) -> Store:
    """Does what is left of a plan.

    Args:
        began: told when nothing is refused any more, before anything runs.

    Raises:
        UserError: for whatever a person can mend; what is finished stays stored.
        Stopped: after Ctrl-C or SIGTERM, when the samples in hand are stored; at once where there are none, or after
            a second one.
    """
    tokenizers = {source.name: models.load_tokenizer(source) for source in plan.sources}
    for source in plan.sources:
        probe(plan, source, tokenizers[source.name], progress.now)
    with (
        lock_for_writing(plan.folder),
        Watchdog(plan.folder) as watch,
        Interrupt(lambda: watch.has_jobs) as interrupt,
    ):
        store = Store.create(plan.folder, plan.config, environment())
        began(store)
        for source in plan.sources:
            tokenizer = tokenizers[source.name]
            work, rows = (
                Work(plan, source, tokenizer, store, progress, watch),
                Rows(plan, source, tokenizer),
            )
            with _workers(plan, source) as workers:
                jobs = takewhile(lambda _: not interrupt.asked, work.jobs(workers))
                for job, outcomes in workers.do(watch.begins(jobs)):
                    watch.done(job, _store(store, rows, job, outcomes))
                    progress.finished(len(job.wanted))
            if interrupt.asked:
                raise Stopped(interrupt.asked)
    return store


def probe(
    plan: Plan, source: ModelSource, tokenizer: PreTrainedTokenizerBase, now: Callable[[str], None]
) -> None:
    """Draws one sample of every task at every length, so that what cannot be had is said before anything runs.

    ``now`` is told which.

    Raises:
        UserError: for all tasks that cannot be had, in one line.
    """
    faults: dict[str, str] = {}
    for task in plan.tasks:
        for length in plan.lengths(source, task.bench):
            now(f"trying {task.full_name} · {length}")
            try:
                plan.samples(task, length, tokenizer, limit=1)
            except Exception as error:
                faults[task.full_name] = describe_error(error)
    if faults:
        raise UserError("; ".join(f"{task}: {fault}" for task, fault in faults.items()))


def _workers(plan: Plan, source: ModelSource) -> AbstractContextManager[Workers]:
    if plan.suite.engine == "ray" or plan.suite.devices:
        from lampe_eval.engine.ray import Replicas

        return Replicas(source, plan.suite)
    return Worker(source, plan.device, plan.suite.attention)


def _store(store: Store, rows: Rows, job: Job, outcomes: list[Outcome]) -> list[str]:
    """Stores a row for each sample that is wanted; returns the errors of those that failed."""
    made = [
        rows.of(job, *pair)
        for pair in zip(job.samples, outcomes, strict=True)
        if pair[0].id in job.wanted
    ]
    for row in made:
        store.append(job.cell, row)
    return [str(row["error"]) for row in made if "error" in row]
