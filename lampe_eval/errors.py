"""Errors that a person can mend: one line that says what, where, and what to do; the exit code is 2."""

from collections.abc import Iterable


class UserError(Exception):
    """Something in the user's hands: a name, a file, an option, a network."""


def told(error: Exception) -> str:
    """An error as it is stored and logged: class and message, of what a person can mend the message alone."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def unknown(kind: str, name: str, known: Iterable[str], see: str) -> UserError:
    """An error for a name that does not exist, with the nearest one and the command that lists them."""
    from lampe.errors import nearest  # brings torch along, which the command line does without until it errs

    near = nearest(name, known)
    hint = f" (did you mean {near!r}?)" if near else ""
    return UserError(f"unknown {kind} {name!r}{hint}; see: {see}")
