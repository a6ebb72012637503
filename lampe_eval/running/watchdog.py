"""Log of a run with a heartbeat, and a warning about a sample that may hang.

All clocks here are monotonic: a clock that is set during a run must not look like a hanging sample.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from types import TracebackType
from typing import Self

from lampe_eval.engine.batch_job import BatchJob
from lampe_eval.errors import LOG, one_line, report_warning
from lampe_eval.file_io import open_unlinked

MEASURED_MARGIN = 3
"""Patience with a batch in units of the slowest batch of its model and length: answers differ."""
ESTIMATE_MARGIN = 10
"""Patience in units of a dry run's estimate, which is what the device takes at best."""


class Watchdog:
    """Thread that watches running batches, and other activities such as loading.

    As a context manager it writes ``run.log``.

    Args:
        folder: the run's folder.
        heartbeat: seconds between two lines about the state.
        patience: seconds after which a batch or an activity may hang; a batch that is expected to
            take long gets more, see `begin`.
    """

    def __init__(self, folder: Path, heartbeat: float = 60, patience: float = 600) -> None:
        self._file = _LogFile(folder / "run.log")
        self._heartbeat = heartbeat
        self._patience = patience
        self._started_at: dict[BatchJob | str, float] = {}
        self._least_seconds: dict[BatchJob, float] = {}
        self._slowest: dict[tuple[str, int], float] = {}
        self._finished_samples = 0
        self._failed_samples = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

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
        self._stop.set()
        self._thread.join()
        if self._finished_samples:
            LOG.info("ended%s: %s", f" by {kind.__name__}" if kind else "", self._state())
        LOG.removeHandler(self._file)
        self._file.close()

    @property
    def has_running_batches(self) -> bool:
        """Return whether a batch is running or its records are being stored."""
        # A copy: the thread that draws samples adds and removes activities meanwhile.
        return any(isinstance(running, BatchJob) for running in tuple(self._started_at))

    @contextmanager
    def watching(self, activity: str) -> Iterator[None]:
        """Watch an activity that is no batch for the time of the context."""
        self._started_at[activity] = time.monotonic()
        try:
            yield
        finally:
            del self._started_at[activity]

    def begin(self, job: BatchJob, least_seconds: float = 0) -> None:
        """Watch a batch until `finish` is called for it.

        Args:
            job: the batch.
            least_seconds: the least time that it takes, as a dry run estimates it; the slowest
                batch of its length in this run tells more, once there is one.
        """
        self._least_seconds[job] = least_seconds
        self._started_at[job] = time.monotonic()

    def finish(self, job: BatchJob, errors: list[str]) -> None:
        """Count and log a batch whose records are stored.

        Args:
            job: the batch.
            errors: errors of its samples.
        """
        seconds = time.monotonic() - self._started_at.pop(job)
        del self._least_seconds[job]
        key = _model_and_length(job)
        self._slowest[key] = max(seconds, self._slowest.get(key, 0))
        self._finished_samples += len(job.missing)
        self._failed_samples += len(errors)
        for error in errors:
            LOG.error("%s: %s", job, error)

    def _watch(self) -> None:
        warned: set[BatchJob | str] = set()
        last_heartbeat = time.monotonic()
        # Ten looks in the shorter of both times: a line is late by a tenth of it at most.
        while not self._stop.wait(min(self._heartbeat, self._patience) / 10):
            now = time.monotonic()
            if now - last_heartbeat >= self._heartbeat:
                LOG.info("%s", self._state())
                last_heartbeat = now
            # A copy, because other threads add and remove entries meanwhile.
            started_at = dict(self._started_at)
            warned &= started_at.keys()
            for running, start in started_at.items():
                if now - start >= self._patience_with(running) and running not in warned:
                    warned.add(running)
                    report_warning(f"may hang: {running}: running for {now - start:.0f} s")

    def _patience_with(self, running: BatchJob | str) -> float:
        """Return the seconds after which a batch or an activity may hang."""
        if isinstance(running, str):
            return self._patience
        expected = MEASURED_MARGIN * self._slowest.get(_model_and_length(running), 0)
        if not expected:
            # The batch may finish at this moment, in another thread.
            expected = ESTIMATE_MARGIN * self._least_seconds.get(running, 0)
        return max(self._patience, expected)

    def _state(self) -> str:
        now = time.monotonic()
        running = [
            f"{running} for {now - start:.0f} s"
            for running, start in dict(self._started_at).items()
        ]
        return (
            f"{self._finished_samples} samples finished, {self._failed_samples} of them failed; "
            f"running: {'; '.join(running) or 'nothing'}"
        )


def _model_and_length(job: BatchJob) -> tuple[str, int]:
    return job.cell.model, job.cell.length


class _OneLineFormatter(logging.Formatter):
    """Formatter that writes one line for each record, whatever an error's message contains."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


class _LogFile(WatchedFileHandler):
    """Log file, created with its first line, and anew where somebody removed it.

    A disk that refuses it does not stop the run.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self.setFormatter(_OneLineFormatter("%(asctime)s %(levelname)s %(message)s"))

    def _open(self) -> TextIOWrapper:
        # A folder from somebody else may hold a link of this name.
        return open(self.baseFilename, "a", encoding="utf-8", opener=open_unlinked)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Ignore what cannot be logged."""
