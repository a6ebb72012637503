"""Main loop of a run: draw samples, run them in batches under every method, store records.

Only this process writes to the run's folder; workers, even on other machines, return outcomes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from lampe_eval import models
from lampe_eval.benches.bench import Sample
from lampe_eval.engine.batch_job import BatchJob, FinishedBatch, WorkerPool
from lampe_eval.engine.local_worker import LocalPool
from lampe_eval.errors import Stopped, describe_error, report_warning
from lampe_eval.models import ModelSource
from lampe_eval.running.batching import make_batches
from lampe_eval.running.configuration import run_configuration, run_folder
from lampe_eval.running.environment import environment
from lampe_eval.running.interrupt import Interrupt
from lampe_eval.running.prefetch import prefetch
from lampe_eval.running.progress import Progress
from lampe_eval.running.remaining import CellCounts, SampleGroup, missing_samples, sample_groups
from lampe_eval.running.run_plan import RunPlan
from lampe_eval.running.sample_records import SampleRecorder
from lampe_eval.running.sampling import check_samples, draw_samples
from lampe_eval.running.watchdog import Watchdog
from lampe_eval.store import Store, lock_for_writing


def run(
    plan: RunPlan, progress: Progress, announce: Callable[[Store], None] = lambda store: None
) -> Store:
    """Run what is left of a plan and return its store.

    Args:
        plan: what to run.
        progress: receives the number of samples, what runs now, and what has finished.
        announce: called once nothing can be refused any more and before anything runs.

    Raises:
        UserError: for whatever the user can fix; finished samples stay stored.
        Stopped: after Ctrl-C or SIGTERM, once the running batches are stored; at once if none is
            running or after a second signal.
    """
    folder = run_folder(plan)
    # Everything that can be refused is refused here, before the folder is created.
    tokenizers = {source.name: models.load_tokenizer(source) for source in plan.sources}
    for source in plan.sources:
        check_samples(plan, source, tokenizers[source.name], progress.now)
    with (
        lock_for_writing(folder),
        Watchdog(folder) as watchdog,
        Interrupt(lambda: watchdog.has_running_batches) as interrupt,
    ):
        store = Store.create(folder, run_configuration(plan), environment())
        announce(store)
        counts = CellCounts(plan, store, progress)
        for source in plan.sources:
            tokenizer = tokenizers[source.name]
            with _worker_pool(plan, source) as pool:
                model_run = ModelRun(
                    plan, source, tokenizer, store, counts, pool, progress, watchdog, interrupt
                )
                model_run.run_batches()
                model_run.wait_for_running_batches()
            # Raised here, so that running batches are stored and the workers released first.
            if interrupt.signal_number is not None:
                raise Stopped(interrupt.signal_number)
    return store


@dataclass
class ModelRun:
    """Run of one model: every method on every cell."""

    plan: RunPlan
    source: ModelSource
    tokenizer: PreTrainedTokenizerBase
    store: Store
    counts: CellCounts
    pool: WorkerPool
    progress: Progress
    watchdog: Watchdog
    interrupt: Interrupt

    def __post_init__(self) -> None:
        self._recorder = SampleRecorder(self.plan, self.source, self.tokenizer)
        self._max_tokens: int | None = None

    def run_batches(self) -> None:
        """Run every batch that has samples without a record, until a signal asks to stop.

        A group is the cells of one task and length: their methods get the same samples. Groups
        come longest first, so that what does not fit in memory fails early. A sample that fails
        is an outcome like any other (`engine.run_samples`), so nothing is caught here.
        """
        groups = sample_groups(self.plan, self.source)
        # The samples of the next group are drawn while those of this one run, so that two groups
        # are in memory at a time, however many a run has.
        for group, samples in prefetch(self._draw, groups):
            if samples is None:
                continue
            self.counts.update(group, len(samples))
            for cell in group.cells:
                missing = missing_samples(self.store, group.task, cell, samples)
                self.progress.finished(len(samples) - len(missing))
                if not missing:
                    continue
                # Batch sizes depend on the memory that is free once the model is loaded.
                max_tokens = self._start_workers()
                self.progress.now(f"{cell.method} · {group.task.full_name} · {cell.length}")
                method = self.plan.methods[cell.model, cell.method]
                # Batches are made of all samples, stored ones included, so that a resumed run has
                # the same batches as an uninterrupted one, and the same records to the last bit.
                for batch in make_batches(samples, max_tokens):
                    missing_in_batch = missing.intersection(sample.id for sample in batch)
                    if not missing_in_batch:
                        continue
                    if self.interrupt.signal_number is not None:
                        return
                    self._submit(BatchJob(group.task, cell, method, batch, missing_in_batch))

    def wait_for_running_batches(self) -> None:
        """Store the batches that are still running."""
        while self.pool.is_busy:
            self._store_records(self.pool.collect())

    def _submit(self, job: BatchJob) -> None:
        """Give a batch to a free worker, and store what finishes until another worker is free."""
        self.watchdog.begin(job)
        self.pool.submit(job)
        # The pool of this process has one worker, so this runs the batch and stores it. With Ray,
        # batches of several cells and methods run at the same time.
        while self.pool.is_full:
            self._store_records(self.pool.collect())

    def _draw(self, group: SampleGroup) -> tuple[SampleGroup, list[Sample] | None]:
        """Draw a group's samples, longest first; None, with a warning, if that fails.

        Called in the background while the group before it runs.
        """
        task = group.task
        try:
            with self.watchdog.watching(f"drawing {task.full_name} · {group.length}"):
                samples = draw_samples(
                    self.plan,
                    task,
                    group.length,
                    self.tokenizer,
                    release_prompts=group.release_prompts,
                )
        except Exception as error:
            report_warning(
                f"{task.full_name} at {group.length} is left out: {describe_error(error)}"
            )
            return group, None
        return group, sorted(samples, key=lambda sample: -len(sample.ids))

    def _start_workers(self) -> int:
        """Load the model before the first batch; a run that is finished loads nothing.

        Returns:
            Most tokens of a batch.
        """
        if self._max_tokens is None:
            activity = f"loading {self.source.name}"
            self.progress.now(activity)
            with self.watchdog.watching(activity):
                self.pool.start()
                limit = self.plan.max_batch_tokens
                if limit == "measured":
                    limit = max(1, self.pool.measure_batch_tokens())
            # With 1 token no two samples fit a batch.
            self._max_tokens = limit or 1
        return self._max_tokens

    def _store_records(self, finished: list[FinishedBatch]) -> None:
        """Store a record of each missing sample of finished batches."""
        for batch in finished:
            job = batch.job
            errors: list[str] = []
            for sample, outcome in zip(job.samples, batch.outcomes, strict=True):
                if sample.id not in job.missing:
                    continue
                record = self._recorder.record(job, sample, outcome)
                self.store.append(job.cell, record)
                if "error" in record:
                    errors.append(record["error"])
            self.watchdog.finish(job, errors)
            self.progress.finished(len(job.missing))


def _worker_pool(plan: RunPlan, source: ModelSource) -> WorkerPool:
    """Return the pool that the suite asks for."""
    if plan.suite.engine == "ray" or plan.suite.devices:
        # Imported here, because Ray is an optional dependency.
        from lampe_eval.engine.ray_replicas import RayPool

        return RayPool(source, plan.suite)
    return LocalPool(source, plan.device, plan.suite.attention)
