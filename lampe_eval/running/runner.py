"""Main loop of a run: draw samples, run them in batches under every method, store records.

Only this process writes to the run's folder; workers, even on other machines, return outcomes.
"""

import datetime
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from lampe_eval.benches.bench import Sample
from lampe_eval.engine.batch_job import BatchJob, FinishedBatch, WorkerPool
from lampe_eval.engine.local_worker import LocalPool, LocalWorker
from lampe_eval.engine.vllm_worker import VllmWorker
from lampe_eval.errors import Stopped, describe_error, report_warning
from lampe_eval.folder_lock import lock_for_writing
from lampe_eval.method_specs import find_reference
from lampe_eval.models import ModelCost, ModelSource, cost_of
from lampe_eval.records import RunConfiguration
from lampe_eval.results.decisions import scores_by_id
from lampe_eval.run_description import run_date
from lampe_eval.running.batching import longest_first, make_batches
from lampe_eval.running.configuration import run_folder
from lampe_eval.running.environment import environment
from lampe_eval.running.extension import extended
from lampe_eval.running.interrupt import Interrupt
from lampe_eval.running.prefetch import prefetch
from lampe_eval.running.prepared_run import PreparedRun
from lampe_eval.running.preview import least_batch_seconds
from lampe_eval.running.progress import Progress
from lampe_eval.running.remaining import (
    CellCounts,
    SampleGroup,
    missing_samples,
    planned_cells,
    sample_groups,
    stored_prompts,
    stored_scores,
)
from lampe_eval.running.resolved_settings import positions_beyond_window
from lampe_eval.running.rounds import DrawnGroup, Rounds, groups_by_round, in_random_order
from lampe_eval.running.sample_records import ReadPrompt, SampleRecorder
from lampe_eval.running.sampling import check_samples, draw_samples, load_tokenizer
from lampe_eval.running.watchdog import Watchdog
from lampe_eval.store import Cell, Session, Store


def run(
    prepared: PreparedRun,
    configuration: RunConfiguration,
    progress: Progress,
    announce: Callable[[Store], None] = lambda store: None,
    date: datetime.date | None = None,
) -> Store:
    """Run what is left of a run and return its store.

    Args:
        prepared: what to run.
        configuration: the run's configuration, as `run_configuration` returns it.
        progress: receives the number of samples, what runs now, and what has finished.
        announce: called once nothing can be refused any more and before anything runs.
        date: date that chat templates write into the prompts of a new run; today by default.

    Raises:
        UserError: for whatever the user can fix; finished samples stay stored.
        Stopped: after Ctrl-C or SIGTERM, once the running batches are stored; at once if none is
            running or after a second signal.
    """
    suite = prepared.resolved.suite
    folder = run_folder(configuration, suite.output)
    # Everything that can be refused is refused here, before the folder is created.
    date = run_date(folder, date)
    methods = extended(folder, configuration)["methods"]
    reference = find_reference(suite.reference, methods) if suite.reference else None
    tokenizers = {source.name: load_tokenizer(source, date) for source in prepared.sources}
    check_samples(prepared, tokenizers, progress.now)
    with (
        lock_for_writing(folder) as lock,
        Watchdog(folder) as watchdog,
        Interrupt(lambda: watchdog.has_running_batches) as interrupt,
    ):
        store = Store.create(
            folder,
            # Compared again, because another session may have written since.
            extended(folder, configuration),
            environment(),
            Session(suite.given_options, planned_cells(prepared), date, reference),
        )
        announce(store)
        counts = CellCounts(prepared, store, progress)
        session = RunSession(prepared, store, counts, progress, watchdog, interrupt, lock.renew)
        for source in prepared.sources:
            with _worker_pool(prepared, source) as pool:
                model_run = ModelRun(session, source, tokenizers[source.name], pool)
                model_run.run_batches()
                model_run.wait_for_running_batches()
            # Raised here, so that running batches are stored and the workers released first.
            if interrupt.signal_number is not None:
                raise Stopped(interrupt.signal_number)
        lock.renew()
        store.restore()
    return store


@dataclass(frozen=True)
class RunSession:
    """Objects that all models of a run share while this process writes to the run's folder.

    Attributes:
        prepared: what to run.
        store: the run's folder.
        counts: number of samples of every cell.
        progress: receives what runs now, and what has finished.
        watchdog: log of the run, and warnings about batches that may hang.
        interrupt: whether a signal asks the run to stop.
        renew_lock: takes the folder's lock again where its file was removed.
    """

    prepared: PreparedRun
    store: Store
    counts: CellCounts
    progress: Progress
    watchdog: Watchdog
    interrupt: Interrupt
    renew_lock: Callable[[], None]


class ModelRun:
    """Run of one model: every method on every cell.

    Args:
        session: what all models of the run share.
        source: the model.
        tokenizer: the model's tokenizer.
        pool: workers that run batches of the model; the model is not loaded yet.
    """

    def __init__(
        self,
        session: RunSession,
        source: ModelSource,
        tokenizer: PreTrainedTokenizerBase,
        pool: WorkerPool,
    ) -> None:
        self.session = session
        self.source = source
        self.tokenizer = tokenizer
        self.pool = pool
        self._recorder = SampleRecorder(session.prepared, source, tokenizer)
        self._is_loaded = False
        self._scores: dict[Cell, dict[str, float]] = defaultdict(dict)

    @cached_property
    def max_batch_tokens(self) -> int:
        """Return the most tokens of a batch; free memory may set it, so the model loads first."""
        limit = self.session.prepared.max_batch_tokens
        if limit == "measured":
            with self.session.watchdog.watching(f"measuring the memory of {self.source.name}"):
                limit = self.pool.measure_batch_tokens()
        # With 1 token no two samples fit a batch.
        return max(1, limit or 1)

    @cached_property
    def _cost(self) -> ModelCost | None:
        try:
            return cost_of(self.source)
        # An estimate that cannot be made must not end a run.
        except Exception:
            return None

    def run_batches(self) -> None:
        """Run every batch that has samples without a record, until a signal asks to stop.

        A group is the cells of one task and length: their methods get the same samples. Groups
        come longest first, so that what does not fit in memory fails early. A sample that fails
        is an outcome like any other (`engine.run_samples`), so nothing is caught here.
        """
        session = self.session
        groups = sample_groups(session.prepared, self.source)
        cells = [cell for _, cell in session.prepared.cells(self.source)]
        stored = stored_prompts(session.store, cells)
        if "stopping" in session.store.config:
            self._run_in_rounds(groups, stored)
            return
        # The samples of the next group are drawn while those of this one run, so that two groups
        # are in memory at a time, however many a run has.
        for group, samples in prefetch(self._draw, groups):
            if samples is None:
                continue
            session.counts.update(group, len(samples))
            for cell in group.cells:
                missing = missing_samples(session.store.folder, cell, samples, stored[cell])
                self._run_samples(group, cell, samples, missing)
                if session.interrupt.signal_number is not None:
                    return

    def _run_in_rounds(
        self, groups: Sequence[SampleGroup], stored: Mapping[Cell, Mapping[str, ReadPrompt]]
    ) -> None:
        """Run the groups of a run that stops by rule, until a signal asks to stop.

        Args:
            groups: the groups of the model's cells.
            stored: prompt of each stored sample by cell.
        """
        session = self.session
        self._scores = stored_scores(session.store, stored)
        together = groups_by_round(groups, session.store.config)
        for drawn in prefetch(self._draw_in_random_order, together):
            missing: dict[Cell, frozenset[str]] = {}
            for group, samples in drawn:
                session.counts.update(group, len(samples))
                for cell in group.cells:
                    missing[cell] = missing_samples(
                        session.store.folder, cell, samples, stored[cell]
                    )
            rounds = Rounds(session.store.config, drawn)
            for taken in rounds:
                for group, cell, samples in taken:
                    self._run_samples(group, cell, longest_first(samples), missing[cell])
                    if session.interrupt.signal_number is not None:
                        return
                # Replicas finish in any order, and the rule looks at complete rounds only.
                self.wait_for_running_batches()
                rounds.look(self._scores)
                session.counts.end(rounds.stopped)
            session.counts.end(rounds.used)

    def _run_samples(
        self, group: SampleGroup, cell: Cell, samples: Sequence[Sample], missing: frozenset[str]
    ) -> None:
        """Run the samples of a cell that have no record, until a signal asks to stop.

        Args:
            group: the group of the cell.
            cell: the cell.
            samples: samples of the cell, longest first.
            missing: ids of samples that have no record, also of others.
        """
        session = self.session
        missing = missing.intersection(sample.id for sample in samples)
        session.progress.finished(len(samples) - len(missing))
        if not missing:
            return
        # Not earlier: a run that is finished loads no model.
        if not self._is_loaded:
            self._load_model()
        session.progress.now(f"{cell.method} · {group.task.full_name} · {cell.length}")
        method = session.prepared.methods[cell.model, cell.method]
        # Batches are made of all samples, stored ones included, so that a resumed run has
        # the same batches as an uninterrupted one, and the same records to the last bit.
        whole_documents = session.prepared.resolved.suite.uses_ray
        for batch in make_batches(samples, self.max_batch_tokens, whole_documents):
            missing_in_batch = missing.intersection(sample.id for sample in batch)
            if not missing_in_batch:
                continue
            if session.interrupt.signal_number is not None:
                return
            # The worker patches this method in if another one is patched in.
            self._submit(BatchJob(group.task, cell, method, batch, missing_in_batch))

    def wait_for_running_batches(self) -> None:
        """Store the batches that are still running."""
        while self.pool.is_busy:
            self._store_records(self.pool.collect())

    def _submit(self, job: BatchJob) -> None:
        """Give a batch to a free worker, and store what finishes until another worker is free.

        The pool of this process has one worker, so this runs the batch and stores it. With Ray,
        batches of several cells and methods run at the same time.
        """
        self.session.watchdog.begin(job, self._least_seconds(job))
        self.pool.submit(job)
        while self.pool.is_full:
            self._store_records(self.pool.collect())

    def _least_seconds(self, job: BatchJob) -> float:
        """Return the least time of a batch, as a dry run estimates it; 0 if unknown."""
        suite = self.session.prepared.resolved.suite
        # The GPUs belong to the replicas: measuring one here would take memory from them.
        if self._cost is None or (suite.uses_ray and not suite.runs_on_cpus):
            return 0.0
        return least_batch_seconds(job.samples, self.session.prepared.device, self._cost)

    def _draw(self, group: SampleGroup) -> tuple[SampleGroup, list[Sample] | None]:
        """Draw a group's samples, longest first; None, with a warning, if that fails.

        Called in the background while the group before it runs.
        """
        task = group.task
        try:
            with self.session.watchdog.watching(f"drawing {task.full_name} · {group.length}"):
                samples = draw_samples(
                    self.session.prepared,
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
        return group, longest_first(samples)

    def _draw_in_random_order(self, groups: Sequence[SampleGroup]) -> list[DrawnGroup]:
        """Draw the samples of groups that share their rounds, without those where that fails."""
        seed = self.session.store.config["seed"]
        drawn: list[DrawnGroup] = []
        for group, samples in map(self._draw, groups):
            if samples is not None:
                drawn.append((group, in_random_order(samples, seed)))
        return drawn

    def _load_model(self) -> None:
        """Load the model into the workers of the pool."""
        if line := positions_beyond_window(self.session.prepared, self.source):
            report_warning(line)
        activity = f"loading {self.source.name}"
        self.session.progress.now(activity)
        with self.session.watchdog.watching(activity):
            self.pool.start()
        self._is_loaded = True

    def _store_records(self, finished: list[FinishedBatch]) -> None:
        """Store a record of each missing sample of finished batches."""
        self.session.renew_lock()
        for batch in finished:
            job = batch.job
            errors: list[str] = []
            for sample, outcome in zip(job.samples, batch.outcomes, strict=True):
                if sample.id not in job.missing:
                    continue
                record = self._recorder.record(job, sample, outcome)
                self.session.store.append(job.cell, record)
                self._scores[job.cell] |= scores_by_id([record])
                if "error" in record:
                    errors.append(record["error"])
            self.session.watchdog.finish(job, errors)
            self.session.progress.finished(len(job.missing))


def _worker_pool(prepared: PreparedRun, source: ModelSource) -> WorkerPool:
    """Return the pool that the suite asks for."""
    if prepared.resolved.suite.uses_ray:
        # Imported here, because Ray is an optional dependency.
        from lampe_eval.engine.ray_replicas import RayPool

        return RayPool(source, prepared.resolved.suite)
    if prepared.resolved.suite.engine == "vllm":
        gpus = prepared.resolved.suite.gpus_per_replica
        return LocalPool(VllmWorker(source, max(prepared.all_lengths(source)), gpus))
    worker = LocalWorker(source, prepared.device, prepared.resolved.suite.attention)
    return LocalPool(worker)
