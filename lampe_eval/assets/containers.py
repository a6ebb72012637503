"""Rows in the containers that people keep them in: JSON lines, a JSON array, parquet.

A file in another container than the official one is written into the cache as the official one:
rows are the same, and benches read one container only.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from lampe_eval import user_cache
from lampe_eval.errors import UserError
from lampe_eval.file_io import unwritable
from lampe_eval.json_arrays import array_items, starts_array

Container = Literal["JSON lines", "JSON array", "parquet"]

READY_FIELDS = frozenset({"context", "question", "answer_prefix"})
"""Columns of the parquet mirrors that hold prompts with their instructions."""

PARQUET_ROWS = 16
"""Rows that are read at a time; a row has up to several megabytes of text."""


def container_of(path: Path) -> Container:
    """Return the container of a file with rows.

    Raises:
        UserError: if the file cannot be read.
    """
    if path.suffix == ".parquet":
        return "parquet"
    try:
        # Not by its ending: JSON lines are often called .json.
        return "JSON array" if starts_array(path) else "JSON lines"
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def first_fields(path: Path) -> frozenset[str]:
    """Return the names of the fields in the first row of a file.

    Raises:
        UserError: if the file cannot be read, or has no rows that are objects.
    """
    row = next(container_rows(path), None)
    if not isinstance(row, dict):
        raise UserError(f"{path}: has no rows that are JSON objects")
    return frozenset(row)


def write_rows(files: Sequence[Path], target: Path) -> None:
    """Write the rows of files into one, whole or not at all: an array if it is called .json.

    Raises:
        UserError: if a file cannot be read, or the target cannot be written.
    """
    is_array = target.suffix == ".json"
    draft = target.with_name(f"{target.name}.part")
    separator, end = (",\n", "\n]\n") if is_array else ("\n", "\n")
    try:
        with draft.open("w", encoding="utf-8") as output:
            following = "[\n" if is_array else ""
            for path in files:
                for row in container_rows(path):
                    # In ASCII, because a row may hold half a surrogate pair.
                    output.write(following + json.dumps(row))
                    following = separator
            output.write(end)
        draft.replace(target)
    except OSError as error:
        raise unwritable(target, error, user_cache.ADVICE) from None
    finally:
        draft.unlink(missing_ok=True)


def container_rows(path: Path) -> Iterator[Any]:
    """Yield the rows of a file in any container.

    Raises:
        UserError: if the file cannot be read; the message names the row, where it is known.
    """
    readers = {"parquet": _parquet_rows, "JSON array": _array_rows, "JSON lines": _json_lines}
    try:
        yield from readers[container_of(path)](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _array_rows(path: Path) -> Iterator[Any]:
    for _, value in array_items(path):
        yield value


def _json_lines(path: Path) -> Iterator[Any]:
    rows = 0
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for line in lines:
                if line.strip():
                    yield json.loads(line)
                    rows += 1
    # Bytes that are not UTF-8 are a ValueError too.
    except (ValueError, RecursionError):
        raise UserError(f"{path}: row {rows + 1}: is not JSON; is the file whole?") from None


def _parquet_rows(path: Path) -> Iterator[Any]:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: is no sound parquet file ({reason})") from None
