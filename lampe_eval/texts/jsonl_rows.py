"""Rows of a benchmark's data file: JSON objects, each of the declared type or faulty."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lampe_eval.assets.containers import container_of, container_rows
from lampe_eval.cards import plain_message
from lampe_eval.errors import UserError

Row = TypeVar("Row")

MAX_REASON_LETTERS = 300
"""Letters of a fault that are shown: a value of the wrong type can be a whole book."""
NO_TEXT = "holds half of a surrogate pair, or bytes that are not UTF-8, which no tokenizer reads"


@dataclass(frozen=True)
class FaultyRow:
    """Row that cannot become a sample.

    Attributes:
        location: file and line, or file and number of the row.
        reason: what is wrong with it.
        value: its JSON value; None where it has none.
    """

    location: str
    reason: str
    value: Any = None

    def __str__(self) -> str:
        return f"{self.location}: {self.reason}"


def read_rows(path: Path, parse: Callable[[Any], Row]) -> Iterator[Row | FaultyRow]:
    """Yield the rows of a file of JSON lines; empty lines are skipped.

    Args:
        path: the file.
        parse: returns a row of a JSON value; raises a ValueError, such as pydantic's, for another.

    Raises:
        UserError: if the file cannot be read, has no rows, or none that is without fault.
    """
    return with_one_good_row(_parsed_lines(path, parse), path)


def read_container(path: Path, parse: Callable[[Any], Row]) -> Iterator[Row | FaultyRow]:
    """Yield the rows of a file in any container: JSON lines, a JSON array or parquet.

    Args:
        path: the file.
        parse: as for `read_rows`.

    Raises:
        UserError: if the file cannot be read, has no rows, or none that is without fault.
    """
    if container_of(path) == "JSON lines":
        return read_rows(path, parse)
    return with_one_good_row(_parsed_values(path, parse), path)


def _parsed_values(path: Path, parse: Callable[[Any], Row]) -> Iterator[Row | FaultyRow]:
    for number, value in enumerate(container_rows(path), 1):
        location = f"{path}: row {number}"
        if is_text(str(value)):
            yield parse_value(value, location, parse)
        else:
            yield FaultyRow(location, NO_TEXT)


def with_one_good_row(rows: Iterable[Row | FaultyRow], path: Path) -> Iterator[Row | FaultyRow]:
    """Yield rows as they are, after the first one without fault was found.

    Raises:
        UserError: if there is none: it is then the file that is not what it should be.
    """
    faulty: list[FaultyRow] | None = []
    for row in rows:
        if faulty is not None and isinstance(row, FaultyRow):
            faulty.append(row)
            continue
        if faulty is not None:
            yield from faulty
            faulty = None
        yield row
    if faulty is not None:
        raise UserError(str(faulty[0]) if faulty else f"{path}: has no rows")


def _parsed_lines(path: Path, parse: Callable[[Any], Row]) -> Iterator[Row | FaultyRow]:
    try:
        # Bytes that are not UTF-8 become surrogates, by which the row that holds them is found.
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    location = f"{path}:{number}"
                    try:
                        value = parse_line(line, location)
                    except UserError as error:
                        reason = str(error).removeprefix(f"{location}: ")
                        yield FaultyRow(location, reason)
                    else:
                        yield parse_value(value, location, parse)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def parse_value(value: Any, location: str, parse: Callable[[Any], Row]) -> Row | FaultyRow:
    """Return a JSON value as a row, or what is wrong with it."""
    if not isinstance(value, dict):
        return FaultyRow(location, "is not a JSON object")
    try:
        return parse(value)
    except ValidationError as error:
        reason = _reason(error.errors()[0])
    except ValueError as error:
        reason = str(error)
    return FaultyRow(location, reason[:MAX_REASON_LETTERS], value)


def _reason(fault: ErrorDetails) -> str:
    """Return which field of a row is wrong, and why; faults between fields name them."""
    field = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        return f"has no {field!r}"
    return f"{field!r}: {plain_message(fault)}" if field else plain_message(fault)


def parse_line(line: str, location: str) -> Any:
    """Return the JSON value of a line.

    Args:
        line: the text.
        location: file and line number, for the message.

    Raises:
        UserError: if the line is not JSON, or holds what is no text.
    """
    try:
        # A byte order mark is left where another reader opened the file.
        value = json.loads(line.removeprefix("\ufeff"))
    except ValueError:
        raise UserError(f"{location}: is not JSON; is the file whole?") from None
    except RecursionError:
        raise UserError(f"{location}: is nested too deeply to be read") from None
    if not is_json_text(line, value):
        raise UserError(f"{location}: {NO_TEXT}")
    return value


def is_json_text(source: str, value: Any) -> bool:
    r"""Return whether a JSON value and the text that it was read from hold no lone surrogate.

    JSON can spell half of a surrogate pair, as `\ud83d`, which Python reads and UTF-8 cannot hold.
    """
    if not is_text(source):
        return False
    return "\\ud" not in source.lower() or is_text(json.dumps(value, ensure_ascii=False))


def is_text(text: str) -> bool:
    """Return whether a string is Unicode text, which a tokenizer reads: without lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
