"""The user's cache folder: downloaded and generated files that every run on this machine shares."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from lampe_eval.file_io import save_file, unwritable

ADVICE = "set LAMPE_EVAL_CACHE to another folder"
"""What the user can do where the cache cannot be written."""


def root() -> Path:
    """Return the cache folder: that of ``LAMPE_EVAL_CACHE``, else the one usual on this system."""
    folder = os.environ.get("LAMPE_EVAL_CACHE")
    if folder:
        return Path(folder).expanduser().absolute()
    return user_cache_path("lampe-eval", appauthor=False)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock of a path in the cache against other processes; create its parent folder.

    Raises:
        UserError: if the cache cannot be written.
    """
    file_lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file_lock.acquire()
    except OSError as error:
        raise unwritable(path, error, ADVICE) from None
    try:
        yield
    finally:
        file_lock.release()


def write(path: Path, content: str | bytes) -> None:
    """Write a file of the cache whole or not at all.

    Raises:
        UserError: if the cache cannot be written.
    """
    save_file(path, content, ADVICE)
