"""Elements of a JSON array, read one after another: data files have up to a gigabyte."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson  # type: ignore[import-untyped]

from lampe_eval.errors import UserError

BUFFER_BYTES = 1 << 20
"""Bytes of the file that are read at a time.

Rows have up to several megabytes of text: with the 64 KiB that ijson reads by default, 520 MB took
30 seconds instead of 6.
"""


def starts_array(path: Path) -> bool:
    """Return whether the first character of a file opens a JSON array.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(BUFFER_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def array_items(path: Path) -> Iterator[Any]:
    """Yield the elements of the JSON array in a file.

    Raises:
        UserError: if the file holds no array, or its text is no JSON.
        OSError: if the file cannot be read.
    """
    # ijson yields nothing for a file that holds no array, and does not say so.
    if not starts_array(path):
        raise UserError(f"{path}: is not a JSON array; is it the official file?")
    count = 0
    with path.open("rb") as file:
        if file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)
        try:
            for item in ijson.items(file, "item", buf_size=BUFFER_BYTES, use_float=True):
                count += 1
                yield item
        except (ijson.JSONError, UnicodeDecodeError):
            raise UserError(f"{path}: row {count + 1}: is not JSON; is the file whole?") from None
