"""Constants in upstream's Python source, read without running it.

Only values that ``ast.literal_eval`` accepts are read.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lampe_eval.errors import UserError

LIMIT_BYTES = 1 << 20  # of a source file


def literal(path: Path, name: str, scope: str | None = None) -> Any:
    """Return the one literal that a file assigns to a name.

    Args:
        path: Python source.
        name: variable.
        scope: function or class in the file that has the assignment; None for the module itself.

    Raises:
        UserError: if there is none or more than one; the message names file and name.
    """
    values = literals(path, name, scope)
    if len(values) != 1:
        raise UserError(
            f"{path}: {name!r} is assigned {len(values)} literals, expected 1; "
            "is it the pinned file?"
        )
    return values[0]


def literals(path: Path, name: str, scope: str | None = None) -> list[Any]:
    """Return all literals that a file assigns to a name, in the order of the source.

    Values that are no literal (a call, a name, an f-string) are left out. Arguments are those of
    ``literal``.

    Raises:
        UserError: if the file cannot be read, is not Python, or lacks the function or class.
    """
    values: list[Any] = []
    for statement in _assignments(_body(path, scope)):
        if name in _assigned_names(statement) and statement.value is not None:
            # A value that is no literal raises; so does one nested too deeply for the parser.
            try:
                values.append(ast.literal_eval(statement.value))
            except (ValueError, TypeError, RecursionError, MemoryError):
                continue
    return values


def strings(path: Path, function: str) -> list[str]:
    """Return all string constants in a function, in the order of the source.

    The constant parts of f-strings are included, the docstring is not.

    Raises:
        UserError: if the file cannot be read, is not Python, or lacks the function.
    """
    body = _body(path, function)
    if _is_docstring(body[0]):
        body = body[1:]
    constants: list[ast.Constant] = []
    for statement in body:
        constants += [node for node in ast.walk(statement) if isinstance(node, ast.Constant)]
    # ``ast.walk`` goes level by level, not in the order of the source.
    constants.sort(key=lambda node: (node.lineno, node.col_offset))
    return [node.value for node in constants if isinstance(node.value, str)]


def all_strings(path: Path) -> list[str]:
    """Return all string constants of a file, wherever they stand.

    Raises:
        UserError: if the file cannot be read, or is not Python.
    """
    constants: list[ast.Constant] = []
    for statement in _body(path, None):
        constants += [node for node in ast.walk(statement) if isinstance(node, ast.Constant)]
    return [node.value for node in constants if isinstance(node.value, str)]


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _body(path: Path, scope: str | None) -> list[ast.stmt]:
    """Return the statements of a file, or of a function or class in it."""
    try:
        source = path.read_bytes()
        if len(source) > LIMIT_BYTES:
            raise ValueError(f"it is larger than {LIMIT_BYTES} bytes")
        # Parsed and never run, since the file comes from the web.
        tree = ast.parse(source)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: is not Python source that can be read ({reason})") from None
    if scope is None:
        return tree.body
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == scope:
            return node.body
    raise UserError(f"{path}: has no function or class {scope!r}; is it the pinned file?")


def _assignments(body: list[ast.stmt]) -> Iterator[ast.Assign | ast.AnnAssign]:
    """Yield the assignments of a body and its branches, not of functions and classes in it."""
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for field in ("body", "handlers", "orelse", "finalbody"):
                yield from _assignments(getattr(node, field, []))


def _assigned_names(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]
