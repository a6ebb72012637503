"""Errors that a person can mend: one line that says what, where, and what to do; the exit code is 2."""

import logging
import sys
from collections.abc import Iterable
from difflib import get_close_matches

LOG = logging.getLogger("lampe_eval")
"""Of a run; ``run.log`` listens."""


class UserError(Exception):
    """Something in the user's hands: a name, a file, an option, a network."""


class Stopped(BaseException):
    """By a signal: Ctrl-C, or SIGTERM as clusters send it. The message says what is kept."""

    def __init__(self, number: int, message: str = "stopped") -> None:
        super().__init__(message)
        self.number = number

    @property
    def code(self) -> int:
        """The exit code, as shells have it."""
        return 128 + self.number


def describe_error(error: Exception) -> str:
    """An error as it is stored and logged: class and message, of what a person can mend the message alone."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def warn(text: str) -> None:
    """Says in the log and on the error stream, in one line, what does not end the run."""
    LOG.warning("%s", text)
    print(f"lampe-eval: {one_line(text)}", file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """A text whose line breaks, escapes and other characters that cannot be seen are written as Python writes them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unknown_name(kind: str, name: str, known: Iterable[str], see: str) -> UserError:
    """An error for a name that does not exist, with the nearest one and the command that lists them."""
    return UserError(f"unknown {kind} {name!r}{suggestion(name, known)}; see: {see}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """The name that is meant, as a message offers it behind an unknown one; empty where none is near."""
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
