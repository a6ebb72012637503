"""Rows of a benchmark's data file: JSON objects, one per line, with the fields of a schema."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lampe_eval.errors import UserError

RowSchema = Mapping[str, type | tuple[type, ...]]
"""Types of the fields that each row must have."""


def read_rows(path: Path, schema: RowSchema) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; empty lines are skipped.

    Raises:
        UserError: if the file cannot be read or has no rows, a line is no JSON object, or a row
            lacks a field or has one of another type; the message names file, line and field.
    """
    empty = True
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    empty = False
                    location = f"{path}:{number}"
                    yield _checked(parse_line(line, location), schema, location)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if empty:
        raise UserError(f"{path}: has no rows")


def parse_line(line: str, location: str) -> Any:
    """Return the JSON value of a line.

    Args:
        line: the text.
        location: file and line number, for the message.

    Raises:
        UserError: if the line is not JSON.
    """
    try:
        # A byte order mark is left where another reader opened the file.
        return json.loads(line.removeprefix("\ufeff"))
    except ValueError:
        raise UserError(f"{location}: is not JSON; is the file whole?") from None
    except RecursionError:
        raise UserError(f"{location}: is nested too deeply to be read") from None


def _checked(row: Any, schema: RowSchema, location: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"{location}: is not a JSON object")
    for field, types in schema.items():
        if field not in row:
            raise UserError(
                f"{location}: has no {field!r}; fields of this benchmark are: {', '.join(schema)}"
            )
        if not isinstance(row[field], types):
            got = type(row[field]).__name__
            raise UserError(f"{location}: {field!r} is {got}, expected {_type_names(types)}")
    return row


def _type_names(types: type | tuple[type, ...]) -> str:
    if isinstance(types, type):
        return types.__name__
    return " or ".join(item.__name__ for item in types)
