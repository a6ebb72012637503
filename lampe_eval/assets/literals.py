"""Constants from upstream's Python source, read and never run: only what ``ast.literal_eval`` takes as a literal."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lampe_eval.errors import UserError

LARGEST = 1 << 20  # bytes of a source file


def literal(path: Path, name: str, scope: str | None = None) -> Any:
    """The one literal that a file, or a function or class in it, assigns to a name.

    Raises:
        UserError: where there is none or more than one; it names file and name.
    """
    found = literals(path, name, scope)
    if len(found) != 1:
        raise UserError(
            f"{path}: {name!r} is assigned {len(found)} literals, expected 1; is it the pinned file?"
        )
    return found[0]


def literals(path: Path, name: str, scope: str | None = None) -> list[Any]:
    """All literals that a file, or a function or class in it, assigns to a name, in the order of the source.

    Anything that is no literal (a call, a name, an f-string) is left out.

    Raises:
        UserError: for a file that cannot be read or is not Python, and a function or class that it does not have.
    """
    values = (node.value for node in _statements(_body(path, scope)) if name in _targets(node))
    return [value for node in values if node is not None for value in _evaluated(node)]


def strings(path: Path, function: str) -> list[str]:
    """All string constants in a function in the order of the source, those inside f-strings too; no docstring.

    Raises:
        UserError: as ``literals``.
    """
    body = _body(path, function)
    first = body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        body = body[1:]
    constants = [node for part in body for node in ast.walk(part) if isinstance(node, ast.Constant)]
    constants.sort(key=lambda node: (node.lineno, node.col_offset))
    return [node.value for node in constants if isinstance(node.value, str)]


def _body(path: Path, scope: str | None) -> list[ast.stmt]:
    try:
        source = path.read_bytes()
        if len(source) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST} bytes")
        tree = ast.parse(source)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(
            f"{path}: not Python source that can be read ({str(error) or type(error).__name__})"
        ) from None
    if scope is None:
        return tree.body
    scopes = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))
    found = next((node for node in scopes if node.name == scope), None)
    if found is None:
        raise UserError(f"{path}: has no function or class {scope!r}; is it the pinned file?")
    return found.body


def _statements(body: list[ast.stmt]) -> Iterator[ast.Assign | ast.AnnAssign]:
    """Assignments of a body and of its branches, but not of functions and classes in it."""
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for field in ("body", "handlers", "orelse", "finalbody"):
                yield from _statements(getattr(node, field, []))


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _evaluated(node: ast.expr) -> list[Any]:
    """The value of a literal; nothing for another expression."""
    try:
        return [ast.literal_eval(node)]
    except (ValueError, TypeError, RecursionError, MemoryError):
        return []
