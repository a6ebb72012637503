"""Lock of a run's folder: one process at a time writes to it, and others can ask which one."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lampe_eval.errors import UserError
from lampe_eval.file_io import (
    clean_if_refused,
    existing_paths,
    refuse_links,
    remove_new,
    unwritable,
    write_atomically,
)


class FolderLock:
    """Lock of a run's folder, which need not exist yet, for the process that writes to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / ".lock"
        self._holder = folder / ".holder"
        self._lock = FileLock(self._path)
        self._since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            UserError: if another run holds it, with its process, the folder cannot be written, or
                the lock is a link.
        """
        refuse_links(self._folder, self._path)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._file = self._path.stat()
            process = f"process {os.getpid()} on {platform.node()} since {self._since}"
            write_atomically(self._holder, process)
        except Timeout:
            raise self._is_taken() from None
        except OSError as error:
            self._lock.release()
            raise unwritable(self._folder, error, "choose another --output") from None

    def renew(self) -> None:
        """Take the lock again where somebody removed its file.

        Raises:
            UserError: if another run has taken it since.
        """
        if not self._path.exists():
            self._lock.release()
            self.acquire()
        elif not self._is_ours():
            raise self._is_taken()

    def release(self) -> None:
        """Leave the folder to others."""
        # Before the lock is released: afterwards the file may be that of the next run.
        if self._is_ours():
            self._holder.unlink(missing_ok=True)
        self._lock.release()

    def _is_ours(self) -> bool:
        """Return whether the lock's file is still the one that this process has locked."""
        return self._path.exists() and os.path.samestat(self._file, self._path.stat())

    def _is_taken(self) -> UserError:
        return UserError(
            f"{self._folder}: another run is writing here{_held_by(self._holder)}; "
            "wait for it, or choose another --output"
        )


@contextmanager
def lock_for_writing(folder: Path) -> Iterator[FolderLock]:
    """Keep every other run from writing to a folder.

    A run that is refused before a sample is stored leaves nothing of itself behind.

    Raises:
        UserError: as `FolderLock.acquire`.
    """
    existing = existing_paths(folder)
    lock = FolderLock(folder)
    lock.acquire()
    try:
        # Inside of the lock, so that it cannot be the folder of another run that has begun.
        with clean_if_refused(folder, existing, "samples/**/*.jsonl"):
            yield lock
    finally:
        lock.release()


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that a run could not write to, as the run would; nothing stays behind.

    Raises:
        UserError: as `FolderLock.acquire`.
    """
    existing = existing_paths(folder)
    lock = FolderLock(folder)
    lock.acquire()
    try:
        remove_new(folder, existing)
    finally:
        lock.release()


def current_writer(folder: Path) -> str:
    """Return which process writes to a folder now, or an empty text if none does."""
    holder = folder / ".holder"
    # Some versions of filelock empty the file that a link of the lock's name leads to.
    if not holder.exists() or (folder / ".lock").is_symlink():
        return ""
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            return ""  # the file is left over from a run that was killed
    except OSError:  # another process holds the lock, or we may not open it
        return _held_by(holder).removeprefix(": ") or "another process"


def _held_by(holder: Path) -> str:
    """Return ": " and the process that holds the lock; an empty text if it cannot be read."""
    try:
        return f": {holder.read_text(encoding='utf-8')}"
    except (OSError, UnicodeDecodeError):
        return ""
