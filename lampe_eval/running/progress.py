"""Interface by which a run reports its progress."""

from typing import Protocol


class Progress(Protocol):
    """Receiver of a run's progress."""

    def total(self, samples: int, *, at_most: bool = False) -> None:
        """Set the number of samples of the whole run, or the most that a stopping rule lets run."""
        ...

    def now(self, text: str) -> None:
        """Show what runs now."""
        ...

    def finished(self, samples: int = 1) -> None:
        """Count samples that have finished, or that were found finished in the folder."""
        ...
