"""Progress of a run on the error stream: a bar where somebody looks, else a line for whatever begins; and durations."""

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)


class Terminal:
    """A bar with what runs now, done of total, time left."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID = self._bar.add_task("planning", total=None)

    def __enter__(self) -> "Terminal":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def total(self, samples: int) -> None:
        self._bar.update(self._task, total=samples)

    def now(self, text: str) -> None:
        self._bar.update(self._task, description=text)

    def finished(self, samples: int = 1) -> None:
        self._bar.advance(self._task, samples)


class Lines:
    """Plain lines, for a file or a pipe, from when it is known how much there is to do."""

    def __init__(self) -> None:
        self._done, self._total = 0, 0

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None: ...

    def total(self, samples: int) -> None:
        self._total = samples

    def now(self, text: str) -> None:
        if self._total:
            say(f"[{self._done}/{self._total}] {text}")

    def finished(self, samples: int = 1) -> None:
        self._done += samples


def progress() -> Terminal | Lines:
    """A bar on a terminal, else lines."""
    return Terminal() if Console(stderr=True).is_terminal else Lines()


def say(text: str) -> None:
    """A line on the error stream, at once."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as a person would say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
