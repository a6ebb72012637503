"""Progress on the error stream: a bar on a terminal, lines in a file; and durations as text."""

import sys
import threading
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
            TextColumn("{task.fields[limit]}"),
            TimeRemainingColumn(),
            console=TerminalConsole(stderr=True),
            transient=True,
        )
        self._task: TaskID = self._bar.add_task("planning", total=None, limit="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def total(self, samples: int, *, at_most: bool = False) -> None:
        """Set the number of all samples, or the most that there can be."""
        self._bar.update(self._task, total=samples, limit="at most" if at_most else "")

    def now(self, text: str) -> None:
        """Show what runs now."""
        self._bar.update(self._task, description=escape(visible(text)))

    def finished(self, samples: int = 1) -> None:
        """Count finished samples."""
        self._bar.advance(self._task, samples)


class ProgressLines:
    """Plain lines for a file or a pipe: what runs now, again after each interval without a line.

    Args:
        interval: seconds of silence before the line that shows what runs still.
    """

    def __init__(self, interval: float = 30) -> None:
        self._interval = interval
        self._finished = 0
        self._total = 0
        self._limit = ""
        self._text = ""
        self._printed = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._repeat, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped = True
        self._printed.set()
        self._thread.join()

    def total(self, samples: int, *, at_most: bool = False) -> None:
        """Set the number of all samples, or the most that there can be."""
        self._total = samples
        self._limit = "at most " if at_most else ""

    def now(self, text: str) -> None:
        """Show what runs now; before the number of samples is known, only where it takes long."""
        self._text = text
        if self._total:
            self._print()
            self._printed.set()

    def finished(self, samples: int = 1) -> None:
        """Count finished samples."""
        self._finished += samples

    def _repeat(self) -> None:
        """Print what runs now after each interval in which nothing was printed."""
        while not self._stopped:
            if self._printed.wait(self._interval):
                self._printed.clear()
            elif self._text:
                self._print()

    def _print(self) -> None:
        count = f"[{self._finished}/{self._limit}{self._total}] " if self._total else ""
        print_line(f"{count}{self._text}")


def progress_display() -> ProgressBar | ProgressLines:
    """Return a bar on a terminal, else lines."""
    return ProgressBar() if TerminalConsole(stderr=True).is_terminal else ProgressLines()


def print_line(text: str) -> None:
    """Print a line on the error stream at once."""
    # In one piece, because several threads print.
    print(f"{text}\n", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return seconds, minutes or hours as people write them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
