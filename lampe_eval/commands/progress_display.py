"""Progress on the error stream: a bar on a terminal, lines in a file; and durations as text."""

import sys
from typing import Self

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from lampe_eval.terminal import TerminalConsole, visible


class ProgressBar:
    """Bar with what runs now, how many samples of the total have finished, and the time left."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=TerminalConsole(stderr=True),
            transient=True,
        )
        self._task: TaskID = self._bar.add_task("planning", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def total(self, samples: int) -> None:
        """Set the number of all samples."""
        self._bar.update(self._task, total=samples)

    def now(self, text: str) -> None:
        """Show what runs now."""
        self._bar.update(self._task, description=escape(visible(text)))

    def finished(self, samples: int = 1) -> None:
        """Count finished samples."""
        self._bar.advance(self._task, samples)


class ProgressLines:
    """Plain lines for a file or a pipe, once the number of samples is known."""

    def __init__(self) -> None:
        self._finished = 0
        self._total = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing; there is nothing to release."""

    def total(self, samples: int) -> None:
        """Set the number of all samples."""
        self._total = samples

    def now(self, text: str) -> None:
        """Print what runs now."""
        if self._total:
            print_line(f"[{self._finished}/{self._total}] {text}")

    def finished(self, samples: int = 1) -> None:
        """Count finished samples."""
        self._finished += samples


def progress_display() -> ProgressBar | ProgressLines:
    """Return a bar on a terminal, else lines."""
    return ProgressBar() if TerminalConsole(stderr=True).is_terminal else ProgressLines()


def print_line(text: str) -> None:
    """Print a line on the error stream at once."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return seconds, minutes or hours as people write them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
