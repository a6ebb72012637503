"""Reading and writing files: whole or not at all, with hashes and one error for a full disk."""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lampe_eval.errors import UserError

CHUNK_BYTES = 1 << 20
SHORT_HASH_DIGITS = 8
"""Hexadecimal digits of a hash in the name of a folder."""


NOT_A_FILE = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""Names of what a path may be instead of a file."""


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# Read once while this module is imported: the system tells the umask only by setting another, which
# would be wrong for files that other threads create in that moment.
_UMASK = _read_umask()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; its folder is made where it is missing.

    Args:
        path: the file to write or to replace.
        content: text, written as UTF-8, or bytes.

    Raises:
        OSError: if the disk refuses; the target is then what it was.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    # The draft lies beside the target under a name nobody can predict and is opened exclusively, so
    # that a link which somebody left in the folder is never followed.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        # mkstemp ignores the umask, and other users may have to read results.
        draft.chmod(0o666 & ~_UMASK)
        draft.replace(path)
    # Not only Exception: a signal raises Stopped, which is none.
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def save_file(path: Path, content: str | bytes, advice: str = "") -> None:
    """Write a file as `write_atomically` does, with one error that the user can read.

    Args:
        path: the file to write or to replace.
        content: text, written as UTF-8, or bytes.
        advice: what the user can do where it cannot be written.

    Raises:
        UserError: if the file cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise unwritable(path, error, advice) from None


def unwritable(path: Path, error: OSError, advice: str = "") -> UserError:
    """Return the error for a path that cannot be written.

    Args:
        path: what was to be written.
        error: what the system said.
        advice: what the user can do, such as "choose another --output".
    """
    reason = error.strerror or str(error)
    return UserError(f"cannot write {path}: {reason}" + (f"; {advice}" if advice else ""))


def file_problem(path: Path) -> str:
    """Return why a path is no file that can be read, such as "no such file" or "a pipe".

    Opening a pipe would wait for a writer, and a device may have no end.

    Returns:
        An empty text for a file.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "no such file"
    except OSError as error:  # a name that is too long, a loop of links, no permission
        return error.strerror or str(error)
    kind = NOT_A_FILE.get(stat.S_IFMT(mode))
    return f"{kind}, not a file" if kind else ""


def read_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        UserError: if it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def sha256_of_files(paths: Iterable[Path]) -> str:
    """Return the sha256 of the files' contents, one after the other, in hexadecimal.

    Raises:
        OSError: if a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
        except OSError as error:
            error.filename = str(path)  # an error while reading does not say of which file
            raise
    return digest.hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """Return the sha256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_text(text: str) -> str:
    """Return the sha256 of a text as UTF-8, in hexadecimal."""
    return sha256_of_bytes(text.encode())


def short_sha256_of_json(value: Any) -> str:
    """Return the first digits of the sha256 of a JSON value, by which a folder is named.

    The order of keys counts: tables have the order of a configuration.
    """
    return sha256_of_text(json.dumps(value, ensure_ascii=False))[:SHORT_HASH_DIGITS]
