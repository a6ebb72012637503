"""What is given to a loaded model to do, and what comes back."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import lampe
from lampe_eval.benches.bench import Sample, Task
from lampe_eval.store import Cell

Outcome = dict[str, Any]
"""What came of a sample: an answer, a loss, an error, or that it was left out."""


@dataclass(frozen=True, eq=False)
class Job:
    """Samples of a cell that are done together.

    Attributes:
        samples: one, or a batch; the same batch whatever of it is stored already.
        wanted: ids of those that are to be stored.
    """

    task: Task
    cell: Cell
    method: lampe.Method
    samples: tuple[Sample, ...]
    wanted: frozenset[str]

    def __str__(self) -> str:
        ids = ", ".join(sample.id for sample in self.samples if sample.id in self.wanted)
        return f"{self.cell.model} · {self.cell.method} · {self.task.full_name} · {self.cell.length} · {ids}"


class Workers(Protocol):
    """Where jobs are done: this process, or replicas of the model on many devices."""

    def start(self) -> None:
        """Loads the model, where that was not done.

        Raises:
            UserError: where it cannot be loaded.
        """
        ...

    def room(self) -> int:
        """Tokens of a batch, answers included, that free memory has room for; 1 where it cannot be told."""
        ...

    def do(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, list[Outcome]]]:
        """Does jobs, begun in their order, and yields each with what came of its samples when it is done.

        Raises:
            UserError: where the model cannot be run under a method.
        """
        ...
