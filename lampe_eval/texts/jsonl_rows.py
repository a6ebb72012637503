"""Rows of a benchmark's data file: JSON objects, one a line, with the fields that its schema asks for."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lampe_eval.errors import UserError

RowSchema = Mapping[str, type | tuple[type, ...]]


def read_rows(path: Path, schema: RowSchema) -> Iterator[dict[str, Any]]:
    """The rows of a file.

    Raises:
        UserError: for a file that cannot be read or has no rows, a line that is no JSON object, and a row that lacks a
            field or has one of another type; it names file, line and field.
    """
    empty = True
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    empty = False
                    yield _checked(_parsed(line, f"{path}:{number}"), schema, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if empty:
        raise UserError(f"{path}: has no rows")


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        raise UserError(f"{where}: is not JSON; is the file whole?") from None


def _checked(row: Any, schema: RowSchema, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"{where}: is not a JSON object")
    for field, kind in schema.items():
        if field not in row:
            raise UserError(
                f"{where}: has no {field!r}; fields of this benchmark are: {', '.join(schema)}"
            )
        if not isinstance(row[field], kind):
            raise UserError(
                f"{where}: {field!r} is {type(row[field]).__name__}, expected {_named(kind)}"
            )
    return row


def _named(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(item.__name__ for item in kinds)
