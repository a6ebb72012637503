"""Errors that the user can fix: one line says what is wrong, where, and what to do."""

import errno
import logging
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

LOG = logging.getLogger("lampe_eval")
"""Logger of a run; while a run goes on, its records are written to ``run.log``."""

# Without a handler, logging writes warnings to the error stream itself, where they would be twice.
LOG.addHandler(logging.NullHandler())

MAX_LISTED = 5
"""Names that a message lists at most."""
MACHINE_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EIO,
}
"""Numbers of errors by which a machine refuses: a full disk, too many open files, no permission."""


class UserError(Exception):
    """Error in what the user controls: a name, a file, an option, a network."""


class ClusterLost(UserError):
    """Loss of a part of the Ray cluster without which a run cannot go on.

    Ray's threads still wait for that part, and crash in Python's own shutdown.
    """


class Stopped(BaseException):
    """Stop by a signal: Ctrl-C, or SIGTERM as clusters send it.

    It is no `Exception`, so that code which records the errors of samples does not catch it.

    Attributes:
        number: the number of the signal.
    """

    def __init__(self, number: int, message: str = "stopped") -> None:
        super().__init__(message)
        self.number = number

    @property
    def code(self) -> int:
        """Return the exit code of a process that a signal ended, by the convention of shells."""
        return 128 + self.number


def machine_refusal(error: Exception) -> UserError | None:
    """Return the error for what the machine refused, or None for an error of another kind."""
    if isinstance(error, MemoryError):
        return UserError("this machine has not enough memory")
    if not (isinstance(error, OSError) and error.errno in MACHINE_ERRORS):
        return None
    where = "" if error.filename is None else f"{error.filename}: "
    return UserError(f"{where}{error.strerror}")


def describe_error(error: Exception) -> str:
    """Return an error's class and message, as they are stored and logged."""
    # A UserError's message is complete; its class would only be noise.
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def first_names(names: Sequence[str]) -> str:
    """Return names as a message lists them: of many the first ones."""
    return ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")


def report_warning(text: str) -> None:
    """Write a warning to the log and, as one line, to the error stream."""
    LOG.warning("%s", text)
    print(f"lampe-eval: {one_line(text)}", file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Return a text with line breaks and other invisible characters as Python escapes them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unknown_name(kind: str, name: str, known: Iterable[str], see: str) -> UserError:
    """Return the error for a name that does not exist, with the nearest known name.

    Args:
        kind: what the name is of, such as "method".
        name: the unknown name.
        known: all names of that kind.
        see: the command that lists them.
    """
    return UserError(f"unknown {kind} {name!r}{suggestion(name, known)}; see: {see}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" with the known name most like it, whatever its case.

    Returns:
        An empty text if no known name is near.
    """
    names = {other.casefold(): other for other in known}
    near = get_close_matches(name.casefold(), names, n=1, cutoff=0.5)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""
