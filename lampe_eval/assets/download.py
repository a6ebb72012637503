"""Download of one file over http(s), resumed where it broke off if the server allows that."""

import os
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ATTEMPTS = 3  # in a row that bring no byte
PAUSE_SECONDS = 0.5  # before the second attempt; doubled before each further one
TIMEOUT_SECONDS = 30.0  # without a byte
CHUNK_BYTES = 1 << 20
RANGE_REFUSED = 416
TEMPORARY = (408, RANGE_REFUSED, 429, 500, 502, 503, 504)
"""HTTP statuses after which another attempt may succeed."""


class FileTooLarge(Exception):
    """More bytes arrived, or were announced, than the file can have."""


def download(url: str, draft: Path, limit: int, progress: Callable[[int], None]) -> None:
    """Fill a draft with the file at an address, beginning after what the draft already holds.

    Args:
        url: address of the file.
        draft: file to write; it is kept after a failure, for the next call to resume.
        limit: largest size in bytes.
        progress: called with the number of bytes that have arrived so far.

    Raises:
        URLError: if the server does not answer; also HTTPException, ConnectionError, TimeoutError.
        FileTooLarge: if the file has more than ``limit`` bytes; the draft is removed.
        OSError: if the draft cannot be written.
    """
    failures = 0
    while True:
        size_before = _size(draft)
        try:
            _transfer(url, draft, limit, progress)
            return
        except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
            # An attempt that brought bytes starts the count again: a long download may break often.
            failures = 1 if _size(draft) > size_before else failures + 1
            if not _is_temporary(error, draft) or failures == ATTEMPTS:
                raise
        time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))


def _transfer(url: str, draft: Path, limit: int, progress: Callable[[int], None]) -> None:
    """Make one attempt."""
    start = _size(draft)
    headers = {"User-Agent": "lampe-eval"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT_SECONDS) as response:
        # A server that ignores the range sends the file from its first byte.
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0
        remaining = response.headers.get("Content-Length", "")
        end = start + int(remaining) if remaining.isdecimal() else None
        # A server that announces too much is refused before its first byte, not read to its end.
        if end is not None and end > limit:
            raise _too_large(draft, limit)
        _write_body(response, draft, start, limit, progress)
    if end is not None and _size(draft) < end:
        raise ConnectionError(f"the connection broke after {_size(draft)} of {end} bytes")


def _write_body(
    response: HTTPResponse,
    draft: Path,
    start: int,
    limit: int,
    progress: Callable[[int], None],
) -> None:
    size = start
    with draft.open("ab" if start else "wb") as file:
        while chunk := response.read1(CHUNK_BYTES):
            size += len(chunk)
            if size > limit:
                raise _too_large(draft, limit)
            file.write(chunk)
            progress(size)
        file.flush()
        # The manifest must not reach the disk before the contents that it describes.
        os.fsync(file.fileno())


def _is_temporary(error: Exception, draft: Path) -> bool:
    """Return whether another attempt may succeed; remove a draft that the server cannot resume."""
    if not isinstance(error, HTTPError):
        return True
    error.close()
    # The draft is no beginning of this file, so the next attempt starts at the first byte.
    if error.code == RANGE_REFUSED:
        draft.unlink(missing_ok=True)
    return error.code in TEMPORARY


def _too_large(draft: Path, limit: int) -> FileTooLarge:
    draft.unlink(missing_ok=True)
    return FileTooLarge(f"it has more than {limit} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
