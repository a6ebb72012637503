"""Part of two results that is compared."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Narrowing:
    """Part of a run, or of another program's files, that is compared.

    Attributes:
        method: label of the method in runs; empty for all.
        model: name of the model in runs; empty for all.
        task: "bench/task", a bench, or a task; empty for all.
        length: tokens of the cells; None for all.
    """

    method: str = ""
    model: str = ""
    task: str = ""
    length: int | None = None

    def has_task(self, task: str) -> bool:
        """Return whether a task is compared."""
        return not self.task or self.task in (task, *task.split("/"))

    def has_length(self, length: int | None) -> bool:
        """Return whether a length is compared; an unknown one is."""
        return self.length is None or length in (None, self.length)
