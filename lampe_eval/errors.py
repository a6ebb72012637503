"""Errors that a person can mend: one line that says what, where, and what to do; the exit code is 2."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something in the user's hands: a name, a file, an option, a network."""


def unknown(kind: str, name: str, known: Iterable[str], see: str) -> UserError:
    """An error for a name that does not exist, with the nearest one and the command that lists them."""
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return UserError(f"unknown {kind} {name!r}{hint}; see: {see}")
