"""Samples that are left to run: groups of cells that share samples, and which are missing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lampe_eval.benches.bench import Sample, Task
from lampe_eval.errors import UserError
from lampe_eval.models import ModelSource
from lampe_eval.results.decisions import scores_by_id
from lampe_eval.running.prepared_run import PreparedRun
from lampe_eval.running.progress import Progress
from lampe_eval.running.resolved_settings import settings_of_cells
from lampe_eval.running.sample_records import ReadPrompt
from lampe_eval.running.sampling import uses_release_prompts
from lampe_eval.store import Cell, Store


@dataclass(frozen=True)
class SampleGroup:
    """Cells of one task and length whose methods get the same samples.

    Attributes:
        task: the task.
        length: tokens of the cells.
        cells: one for each method, in the order of the tables.
        release_prompts: whether the samples are those of a method's own release.
    """

    task: Task
    length: int
    cells: tuple[Cell, ...]
    release_prompts: bool


def sample_groups(prepared: PreparedRun, source: ModelSource) -> list[SampleGroup]:
    """Return the groups of a model's cells, longest first: what does not fit fails early."""
    cells: dict[tuple[str, int, bool], list[Cell]] = {}
    tasks: dict[str, Task] = {}
    for task, cell in prepared.cells(source):
        release_prompts = uses_release_prompts(prepared, task, cell.model, cell.method)
        tasks[task.full_name] = task
        cells.setdefault((task.full_name, cell.length, release_prompts), []).append(cell)
    groups = [
        SampleGroup(tasks[name], length, tuple(group), release_prompts)
        for (name, length, release_prompts), group in cells.items()
    ]
    # sorted() is stable: groups of one length stay in the order of the tables.
    return sorted(groups, key=lambda group: -group.length)


def stored_prompts(store: Store, cells: Iterable[Cell]) -> dict[Cell, dict[str, ReadPrompt]]:
    """Return the prompt of each sample that is stored, by cell and id.

    A record of an error does not count: its sample is tried again.
    """
    prompts: dict[Cell, dict[str, ReadPrompt]] = {}
    for cell, rows in store.rows_by_cell(cells).items():
        finished = [row for row in rows if "error" not in row]
        prompts[cell] = {row["id"]: ReadPrompt.of_record(row) for row in finished}
    return prompts


def stored_scores(store: Store, cells: Iterable[Cell]) -> dict[Cell, dict[str, float]]:
    """Return the score of each sample that is stored and has one, by cell and id."""
    rows_by_cell = store.rows_by_cell(cells)
    return {cell: scores_by_id(rows) for cell, rows in rows_by_cell.items()}


def missing_samples(
    folder: Path, cell: Cell, samples: Sequence[Sample], stored: Mapping[str, ReadPrompt]
) -> frozenset[str]:
    """Return the ids of a cell's samples that are not stored yet.

    A stored question counts as missing where its document has another plan since then: a larger
    limit may bring a longer question about it.

    Args:
        folder: the run's folder.
        cell: the cell.
        samples: all samples of the cell.
        stored: prompt of each stored sample, as `stored_prompts` returns them.

    Raises:
        UserError: for a sample whose prompt differs from the one that was answered: a chat
            template that changed under a run would otherwise give one score to two prompts. Also
            for a stored sample that is none of the cell's, as where a larger limit has others.
    """
    prompts = {sample.id: ReadPrompt.of_sample(sample) for sample in samples}
    others = stored.keys() - prompts.keys()
    if others:
        raise UserError(
            f"{folder}: {cell.bench}/{cell.task} at {cell.length}: sample {min(others)} is stored, "
            f"but is none of the {len(samples)} samples that this command has; "
            "choose another --output"
        )
    changed = [
        name
        for name, prompt in prompts.items()
        if name in stored and stored[name].sha256 != prompt.sha256
    ]
    if changed:
        raise UserError(
            f"{folder}: {cell.bench}/{cell.task} at {cell.length}: sample {min(changed)} has "
            "another prompt now than when its answer was stored; choose another --output"
        )
    return frozenset(name for name, prompt in prompts.items() if stored.get(name) != prompt)


class CellCounts:
    """Number of samples of every cell of a session, for the store and the progress display.

    Until a cell's samples are drawn, it is the number that the task's card says. Cells that other
    sessions have stored keep their numbers.
    """

    def __init__(self, prepared: PreparedRun, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._stored = store.known_cells()
        self._at_most = store.at_most()
        self._counts: dict[Cell, int] = {}
        for cell, samples in planned_cells(prepared).items():
            self._counts[cell] = self._stored.get(cell, samples)
        self._resolved = store.resolved_settings()
        for source in prepared.sources:
            self._resolved |= settings_of_cells(prepared, source)
        self._publish()

    def update(self, group: SampleGroup, samples: int) -> None:
        """Set the number of samples of a group's cells once they are drawn.

        Cells that a stopping rule has ended keep theirs, unless the rule finds otherwise.
        """
        for cell in group.cells:
            if cell not in self._at_most:
                self._counts[cell] = samples
        self._publish()

    def end(self, cells: Mapping[Cell, tuple[int, int]]) -> None:
        """Set the number of samples that cells have used, and how many they could have had."""
        for cell, (used, at_most) in cells.items():
            self._counts[cell] = used
            self._at_most.pop(cell, None)
            if used < at_most:
                self._at_most[cell] = at_most
        self._publish()

    def _publish(self) -> None:
        counts = {**self._stored, **self._counts}
        if self._store.save_cells(counts, self._resolved, self._at_most):
            stops = "stopping" in self._store.config
            self._progress.total(sum(self._counts.values()), at_most=stops)


def planned_cells(prepared: PreparedRun) -> dict[Cell, int]:
    """Return the cells of a session with the most samples that each may have."""
    planned: dict[Cell, int] = {}
    for source in prepared.sources:
        for task, cell in prepared.cells(source):
            planned[cell] = prepared.limit(task)
    return planned
