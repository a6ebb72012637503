"""Exceptions and warnings of the library, each with one line that a person can act on.

.. code-block:: text

    LampeError              base of all errors below; says what, got, allowed, next step
    ├── UnknownName         a method, setting or backend that does not exist; names the nearest one
    ├── BadSetting          a hyper-parameter outside of what its method can do
    ├── UnsupportedModel    a model whose attention or positions cannot be patched exactly; says why
    └── ExportError         a checkpoint that cannot be written, or cannot be loaded again

    PositionWarning         a position beyond what the model was trained on, a method without
                            effect, or a window that a configuration leaves open
    CheckpointWarning       a checkpoint that is written without the patch of its model
"""

import difflib
from collections.abc import Iterable


class LampeError(ValueError):
    """Base of all errors that this library raises on purpose."""


class BadSetting(LampeError):
    """Error for a hyper-parameter outside of what its method can do."""


class UnsupportedModel(LampeError):
    """Error for a model that cannot be patched exactly."""


class ExportError(LampeError):
    """Error for a checkpoint that cannot be written, or cannot be loaded again."""


class UnknownName(LampeError):
    """Error for a name that does not exist; the message offers the nearest one.

    Args:
        kind: what was looked up, such as "method".
        name: the name that was not found.
        known: the names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = nearest(name, names)
        hint = f"did you mean {near!r}?" if near else f"one of: {', '.join(names)}"
        super().__init__(f"unknown {kind} {name!r} ({hint})")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class where it has none."""
    message = str(error).strip() or type(error).__name__
    return message.splitlines()[0]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like ``name``, whatever its case, or None where none is close."""
    names = {other.casefold(): other for other in known}
    folded = name.casefold()
    # The first letter is seldom mistyped, so names with the same one come first.
    same_initial = [other for other in names if other[:1] == folded[:1]]
    matches = difflib.get_close_matches(folded, same_initial, n=1, cutoff=0.5)
    if not matches:
        matches = difflib.get_close_matches(folded, names, n=1)
    return names[matches[0]] if matches else None


class PositionWarning(UserWarning):
    """Warning for a position beyond the window, a method without effect, or an uncertain window."""


class CheckpointWarning(UserWarning):
    """Warning for a checkpoint that is written without the patch of its model."""
