"""Batches of samples, their outcomes, and the interface of what runs them."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import lampe
from lampe_eval.benches.bench import Sample, Task
from lampe_eval.records import Outcome
from lampe_eval.store import Cell


@dataclass(frozen=True, eq=False)
class BatchJob:
    """Samples of a cell that run together.

    Attributes:
        task: the task that the samples are of.
        cell: the cell that their records go to.
        method: the method to patch in.
        samples: one or several. A partly stored batch is run again as a whole: padding and batch
            size move the last bits of logits, so only the same batch gives the same records.
        missing: ids of the samples whose records are to be stored.
    """

    task: Task
    cell: Cell
    method: lampe.Method
    samples: tuple[Sample, ...]
    missing: frozenset[str]

    def __str__(self) -> str:
        cell = self.cell
        ids = ", ".join(sample.id for sample in self.samples if sample.id in self.missing)
        return f"{cell.model} · {cell.method} · {self.task.full_name} · {cell.length} · {ids}"


@dataclass(frozen=True)
class FinishedBatch:
    """Batch that has run, with an outcome for each of its samples, in their order."""

    job: BatchJob
    outcomes: Sequence[Outcome]


class WorkerPool(Protocol):
    """Interface of what runs batches of one model: this process, or replicas on many devices.

    As a context manager it releases its workers at the end.
    """

    @property
    def is_full(self) -> bool:
        """Return whether no worker is free, so that `collect` must be called before `submit`."""
        ...

    @property
    def is_busy(self) -> bool:
        """Return whether a submitted batch has not been collected yet."""
        ...

    def start(self) -> None:
        """Load the model; return when at least one worker is free.

        Raises:
            UserError: if the model cannot be loaded.
        """
        ...

    def measure_batch_tokens(self) -> int:
        """Return how many tokens, answers included, fit the free memory; 1 if unknown."""
        ...

    def submit(self, job: BatchJob) -> None:
        """Give a batch to a free worker.

        Raises:
            UserError: if the model cannot be patched with the method, or no worker is left.
        """
        ...

    def collect(self) -> list[FinishedBatch]:
        """Wait for the next event and return the batches that it finished, possibly none.

        Raises:
            UserError: if the model cannot be patched, or no worker is left for a batch.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
