"""What can go wrong, as exceptions a person can act on.

LampeError              anything below; its message is one line: what, got, allowed, next step
├── UnknownName         a method, setting or backend that does not exist; names the nearest one
├── BadSetting          a hyper-parameter outside what its method can do
└── UnsupportedModel    a model whose attention or positions cannot be patched exactly; says why

PositionWarning         a prompt puts a relative position beyond what the model was trained on, or a method moves none
"""

import difflib
from collections.abc import Iterable


class LampeError(ValueError):
    """Base of all errors this library raises on purpose."""


class BadSetting(LampeError):
    """A hyper-parameter outside what its method can do."""


class UnsupportedModel(LampeError):
    """A model that cannot be patched exactly."""


class UnknownName(LampeError):
    """A name that does not exist; the message offers the nearest one.

    Args:
        kind: what was looked up, such as "method".
        name: what was asked for.
        known: the names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = nearest(name, names)
        hint = f"did you mean {near!r}?" if near else f"one of: {', '.join(names)}"
        super().__init__(f"unknown {kind} {name!r} ({hint})")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like ``name``; one with the same first letter is preferred, for that is seldom mistyped."""
    names = list(known)
    alike = difflib.get_close_matches(
        name, [other for other in names if other[:1] == name[:1]], n=1, cutoff=0.5
    )
    return next(iter(alike or difflib.get_close_matches(name, names, n=1)), None)


class PositionWarning(UserWarning):
    """A relative position at or beyond the model's window, or a model in which a method has none to move."""
