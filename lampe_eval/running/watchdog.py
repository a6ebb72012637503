"""Watches over a run: ``run.log`` with a heartbeat, and a word about a sample that hangs. Clocks here are monotonic."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from lampe_eval.engine.job import Job
from lampe_eval.errors import LOG, one_line, warn


class Watchdog:
    """A thread that looks at what is in hand: jobs, and what else takes time, such as loading.

    Args:
        folder: of the run.
        heartbeat: seconds between lines of the log.
        patience: seconds after which a sample hangs.
    """

    def __init__(self, folder: Path, heartbeat: float = 60, patience: float = 600) -> None:
        self._file, self._heartbeat, self._patience = _File(folder / "run.log"), heartbeat, patience
        self._in_hand: dict[Job | str, float] = {}
        self._done = self._failed = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Self:
        LOG.setLevel(logging.INFO)
        LOG.addHandler(self._file)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._done:
            LOG.info("ended%s: %s", f" by {kind.__name__}" if kind else "", self._state())
        LOG.removeHandler(self._file)
        self._file.close()

    @property
    def has_jobs(self) -> bool:
        """Whether a sample is in hand."""
        return any(isinstance(doing, Job) for doing in tuple(self._in_hand))

    @contextmanager
    def over(self, doing: str) -> Iterator[None]:
        """What is no job is in hand within."""
        self._in_hand[doing] = time.monotonic()
        try:
            yield
        finally:
            del self._in_hand[doing]

    def begins(self, jobs: Iterator[Job]) -> Iterator[Job]:
        """The same jobs, each in hand from when it is taken."""
        for job in jobs:
            self._in_hand[job] = time.monotonic()
            yield job

    def done(self, job: Job, errors: list[str]) -> None:
        """A job is out of hand; ``errors`` are those of its samples."""
        del self._in_hand[job]
        self._done += len(job.wanted)
        self._failed += len(errors)
        for error in errors:
            LOG.error("%s: %s", job, error)

    def _look(self) -> None:
        warned: set[Job | str] = set()
        beat = time.monotonic()
        while not self._over.wait(min(self._heartbeat, self._patience) / 10):
            now, in_hand = time.monotonic(), dict(self._in_hand)
            if now - beat >= self._heartbeat:
                LOG.info("%s", self._state())
                beat = now
            warned &= in_hand.keys()
            for doing, since in in_hand.items():
                if now - since >= self._patience and doing not in warned:
                    warned.add(doing)
                    warn(f"hangs? {doing}: nothing for {now - since:.0f} s")

    def _state(self) -> str:
        now = time.monotonic()
        in_hand = "; ".join(
            f"{doing} since {now - since:.0f} s" for doing, since in dict(self._in_hand).items()
        )
        return f"{self._done} samples done, {self._failed} of them failed; in hand: {in_hand or 'nothing'}"


class _Lines(logging.Formatter):
    """A line for each thing that happened, whatever an error says."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


class _File(logging.FileHandler):
    """The log file, made with its first line. A disk that refuses it stops no run: rows are what must be kept."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None: ...  # noqa: N802
