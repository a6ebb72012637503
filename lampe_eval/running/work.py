"""What of a plan is left to do with one model: jobs, longest first, their samples drawn ahead."""

from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from lampe_eval.benches.bench import Prompt, Sample, Task
from lampe_eval.engine.job import Job, Workers
from lampe_eval.errors import UserError, describe_error, warn
from lampe_eval.models import ModelSource
from lampe_eval.plan import Plan
from lampe_eval.running.prefetch import prefetch
from lampe_eval.running.progress import Progress
from lampe_eval.running.rows import sha256
from lampe_eval.running.watchdog import Watchdog
from lampe_eval.store import Cell, Store

Group = tuple[Task, list[Cell]]
"""Cells of a task and length whose methods get the same samples."""


class Work:
    """What is left to do with one model. Samples of two groups are held at a time, those that run and the next."""

    def __init__(
        self,
        plan: Plan,
        source: ModelSource,
        tokenizer: PreTrainedTokenizerBase,
        store: Store,
        progress: Progress,
        watch: Watchdog,
    ) -> None:
        self._plan, self._source, self._tokenizer = plan, source, tokenizer
        self._store, self._progress, self._watch = store, progress, watch
        every = [pair for other in plan.sources for pair in cells(plan, other)]
        drawn = store.cells()  # with other models, or before
        self._counts = {cell: drawn.get(cell, plan.limit(task)) for task, cell in every}

    def jobs(self, workers: Workers) -> Iterator[Job]:
        """Jobs for the samples that are not stored yet, or that failed; ``workers`` are started for the first.

        Raises:
            UserError: for a sample whose prompt is another one than when its answer was stored.
        """
        self._count({})
        room: int | None = None
        for task, group, samples in prefetch(self._drawn()):
            self._count(dict.fromkeys(group, len(samples)))
            for cell in group:
                if wanted := self._wanted(task, cell, samples):
                    room = self._start(workers) if room is None else room
                    self._progress.now(f"{cell.method} · {task.full_name} · {cell.length}")
                    yield from self._jobs_of(task, cell, batches(samples, room), wanted)

    def _drawn(self) -> Iterator[tuple[Task, list[Cell], list[Sample]]]:
        """Groups with their samples, longest first; one whose samples cannot be had is said, and left out."""
        for task, group in sorted(self._groups(), key=lambda group: -group[1][0].length):
            first = group[0]
            release_prompts = self._plan.release_prompts(task, first.model, first.method)
            try:
                with self._watch.over(f"drawing {task.full_name} · {first.length}"):
                    samples = self._plan.samples(
                        task, first.length, self._tokenizer, release_prompts=release_prompts
                    )
            except Exception as error:
                warn(f"{task.full_name} at {first.length} is left out: {describe_error(error)}")
                continue
            yield task, group, sorted(samples, key=lambda sample: -len(sample.ids))

    def _groups(self) -> Iterator[Group]:
        groups: dict[tuple[str, int, bool], Group] = {}
        for task, cell in cells(self._plan, self._source):
            key = (
                task.full_name,
                cell.length,
                self._plan.release_prompts(task, cell.model, cell.method),
            )
            groups.setdefault(key, (task, []))[1].append(cell)
        yield from groups.values()

    def _count(self, known: dict[Cell, int]) -> None:
        """Notes how many samples cells have: what their cards say, until they are drawn."""
        self._counts |= known
        if self._store.plan(self._counts):
            self._progress.total(sum(self._counts.values()))

    def _wanted(self, task: Task, cell: Cell, samples: Sequence[Sample]) -> frozenset[str]:
        """Samples of a cell that are left; one that failed before is tried again."""
        done = {
            row["id"]: row.get("prompt_sha256")
            for row in self._store.rows(cell)
            if "error" not in row
        }
        if changed := sorted(s.id for s in samples if s.id in done and done[s.id] != sha256(s)):
            raise UserError(
                f"{self._store.folder}: {task.full_name} at {cell.length}: sample {changed[0]} has another prompt now "
                "than when its answer was stored; choose another --output"
            )
        wanted = frozenset(sample.id for sample in samples if sample.id not in done)
        self._progress.finished(len(samples) - len(wanted))
        return wanted

    def _start(self, workers: Workers) -> int:
        """Loads the model; the tokens that a batch may have."""
        doing, room = f"loading {self._source.name}", self._plan.batch
        self._progress.now(doing)
        with self._watch.over(doing):
            workers.start()
            return (
                room
                if isinstance(room, int)
                else max(1, workers.room())
                if room == "measured"
                else 1
            )

    def _jobs_of(
        self, task: Task, cell: Cell, together: Iterator[tuple[Sample, ...]], wanted: frozenset[str]
    ) -> Iterator[Job]:
        """A batch of which some is stored is run as the same batch again, so that its rows come out the same."""
        for samples in together:
            if left := wanted.intersection(sample.id for sample in samples):
                yield Job(task, cell, self._plan.built[cell.model, cell.method], samples, left)


def cells(plan: Plan, source: ModelSource) -> Iterator[tuple[Task, Cell]]:
    """The cells of a model in the order of the tables."""
    for task in plan.tasks:
        for length in plan.lengths(source, task.bench):
            for spec in plan.specs:
                yield task, Cell(source.name, spec.label, task.bench, task.name, length)


def batches(samples: Sequence[Sample], room: int) -> Iterator[tuple[Sample, ...]]:
    """Samples, longest first, in groups of at most ``room`` tokens with padding and answers, or alone."""
    batch: list[Sample] = []
    for sample in samples:
        if batch and not (_alike(batch[0], sample) and (len(batch) + 1) * _size(batch[0]) <= room):
            yield tuple(batch)
            batch = []
        batch.append(sample)
    if batch:
        yield tuple(batch)


def _alike(one: Sample, other: Sample) -> bool:
    """Whether two samples can be run together."""
    if not (isinstance(one, Prompt) and isinstance(other, Prompt)):
        return False
    if any(prompt.skip or prompt.follow_up for prompt in (one, other)):
        return False
    return (one.max_new_tokens, one.stop_token_ids, one.decoding) == (
        other.max_new_tokens,
        other.stop_token_ids,
        other.decoding,
    )


def _size(sample: Sample) -> int:
    return len(sample.ids) + (sample.max_new_tokens if isinstance(sample, Prompt) else 0)
