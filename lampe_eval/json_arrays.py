"""Elements of a JSON array, read one after another: data files have up to a gigabyte."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from lampe_eval.errors import UserError

CHUNK_LETTERS = 1 << 20
"""Letters of a file that are read at a time: rows have up to several megabytes of text."""
JSON = json.JSONDecoder()


def starts_array(path: Path) -> bool:
    """Return whether the first character of a file opens a JSON array.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        return file.read(CHUNK_LETTERS).lstrip().startswith("[")


def array_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield source and value of each element of the JSON array in a file.

    Raises:
        UserError: if the file holds no array, or its text is no JSON.
        OSError: if the file cannot be read.
    """
    # Bytes that are not UTF-8 become surrogates, by which the row that holds them is found.
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        rest = file.read(CHUNK_LETTERS).lstrip()
        if not rest.startswith("["):
            raise UserError(f"{path}: is not a JSON array; is it the official file?")
        rest = rest[1:].lstrip()
        for number in count(1):
            if number == 1 and rest.startswith("]"):
                return
            while (element := _first_element(rest)) is None:
                # As many letters again, so that a long row is not parsed over and over.
                more = file.read(max(CHUNK_LETTERS, len(rest)))
                if not more:
                    raise UserError(f"{path}: row {number}: is not JSON; is the file whole?")
                rest = (rest + more).lstrip()
            value, size, tail = element
            yield rest[:size], value
            rest = tail[1:].lstrip()
            if tail.startswith("]"):
                if rest or file.read().strip():
                    raise UserError(f"{path}: has more behind its array; is the file whole?")
                return


def _first_element(text: str) -> tuple[Any, int, str] | None:
    """Return the value, the letters and what follows of an array's next element, if it is whole."""
    try:
        value, size = JSON.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    tail = text[size:].lstrip()
    return (value, size, tail) if tail.startswith((",", "]")) else None
