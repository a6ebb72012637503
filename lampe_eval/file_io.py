"""Reading and writing files: whole or not at all, with hashes and one error for a full disk."""

import errno
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lampe_eval.errors import UserError

CHUNK_BYTES = 1 << 20
SHORT_HASH_DIGITS = 8
"""Hexadecimal digits of a hash in the name of a folder."""
MAX_NAME_BYTES = 200
"""Bytes of a file's name; file systems allow 255, and drafts and suffixes need some of them."""
DRAFT_SECONDS = 3600
"""Age after which a draft is that of a killed process: any other is renamed in a moment."""
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
    _remove_old_drafts(path)
    # The draft lies beside the target under a name nobody can predict and is opened exclusively, so
    # that a link which somebody left in the folder is never followed.
    descriptor, name = tempfile.mkstemp(prefix=_draft_prefix(path), suffix=".part", dir=path.parent)
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


def _draft_prefix(path: Path) -> str:
    return f".{shorten_name(path.name)}."


def _remove_old_drafts(path: Path) -> None:
    """Remove the drafts of a file that killed processes left."""
    prefix = _draft_prefix(path)
    with os.scandir(path.parent) as entries:
        drafts = [e for e in entries if e.name.startswith(prefix) and e.name.endswith(".part")]
    for draft in drafts:
        # Another process may have removed or renamed it meanwhile.
        with suppress(FileNotFoundError):
            if time.time() - draft.stat(follow_symlinks=False).st_mtime > DRAFT_SECONDS:
                os.unlink(draft)


def open_unlinked(path: str, flags: int) -> int:
    """Open a file but no link to one, as the opener of `open`; a pipe does not block.

    Raises:
        OSError: if the path is a link, or cannot be opened.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, flags, 0o666)


def refuse_links(folder: Path, path: Path) -> None:
    """Refuse a path below a folder that is a link, or leads through one.

    The folder itself may be a link: its user chose it, whereas what lies in it may be from
    somebody else, and would let them write to any file of the user.

    Raises:
        UserError: for a link, with its path.
    """
    for part in (path, *path.parents):
        if part == folder:
            return
        # Unlike Path.is_symlink, it takes a name that is too long for a file.
        if os.path.islink(part):
            raise UserError(
                f"{part}: a link, which could lead out of the folder of the results; "
                "replace it by what it stands for, or choose another --output"
            )


def safe_name(name: str) -> str:
    """Return a name as that of a file or folder; names that need no change keep their letters.

    Characters that file systems dislike are written as %XX, and so are names of dots alone.
    """
    safe = "".join(c if c.isalnum() or c in "-_.+=," else f"%{ord(c):02X}" for c in name)
    if not safe.strip("."):
        safe = safe.replace(".", "%2E")
    return shorten_name(safe)


def shorten_name(name: str) -> str:
    """Return a name of a file; of one that is too long the start and a hash of the whole."""
    encoded = name.encode("utf-8", "surrogatepass")
    if len(encoded) <= MAX_NAME_BYTES:
        return name
    digest = sha256_of_bytes(encoded)[:SHORT_HASH_DIGITS]
    start = encoded[: MAX_NAME_BYTES - SHORT_HASH_DIGITS - 1].decode("utf-8", "ignore")
    return f"{start}-{digest}"


def save_file(path: Path, content: str | bytes, advice: str = "") -> None:
    """Write a file as `write_atomically` does, with one error that the user can read.

    Args:
        path: the file to write or to replace.
        content: text, written as UTF-8, or bytes.
        advice: what the user can do where it cannot be written.

    Raises:
        UserError: if the file cannot be written, or if there is something else than a file.
    """
    check_writable(path, advice)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise unwritable(path, error, advice) from None


def save_files(folder: Path, files: Mapping[str, str | bytes], advice: str = "") -> None:
    """Write the files of a folder, after all of them were found to be writable.

    Args:
        folder: the folder.
        files: contents by path below the folder.
        advice: what the user can do where one cannot be written.

    Raises:
        UserError: for a link below the folder, and as `save_file`.
    """
    for name in files:
        path = folder / name
        refuse_links(folder, path.parent)
        check_writable(path, advice)
    for name, content in files.items():
        save_file(folder / name, content, advice)


def check_writable(path: Path, advice: str = "") -> None:
    """Refuse to write a file where there is something else, or where the system will not let us.

    Replacing a device would take it from all other programs.

    Args:
        path: the file, which need not exist, nor its folder.
        advice: what the user can do where it cannot be written.

    Raises:
        UserError: as `save_file`, as far as can be told without writing.
    """
    # Unlike Path.exists, it takes a name that is too long for a file.
    mode = os.lstat(path).st_mode if os.path.lexists(path) else 0
    kind = NOT_A_FILE.get(stat.S_IFMT(mode))
    if kind:
        raise _not_written(path, f"{kind}, not a file", advice)
    existing = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    number = 0
    if not os.path.isdir(existing):
        number = errno.ENOTDIR
    elif not os.access(existing, os.W_OK | os.X_OK):
        number = errno.EACCES
    if number:
        raise unwritable(path, OSError(number, os.strerror(number)), advice)


def unwritable(path: Path, error: OSError, advice: str = "") -> UserError:
    """Return the error for a path that cannot be written.

    Args:
        path: what was to be written.
        error: what the system said.
        advice: what the user can do, such as "choose another --output".
    """
    return _not_written(path, error.strerror or str(error), advice)


def _not_written(path: Path, reason: str, advice: str) -> UserError:
    return UserError(f"cannot write {path}: {reason}" + (f"; {advice}" if advice else ""))


def existing_paths(folder: Path) -> set[Path]:
    """Return what exists of a folder's entries, of itself and of the folders above it."""
    # Unlike those of Path, these functions take names that are too long for a file.
    entries = set(folder.iterdir()) if os.path.isdir(folder) else set()
    return entries | {path for path in (folder, *folder.parents) if os.path.exists(path)}


@contextmanager
def clean_if_refused(folder: Path, existing: set[Path], results: str) -> Iterator[None]:
    """Remove what is new in a folder, and the folder if it is, on a refusal before any result.

    Args:
        folder: the folder.
        existing: what `existing_paths` returned before anything was written.
        results: pattern of the results' files in the folder.
    """
    try:
        yield
    except UserError:
        if os.path.isdir(folder) and not any(folder.glob(results)):
            remove_new(folder, existing)
        raise


def remove_new(folder: Path, existing: set[Path]) -> None:
    """Remove what is new in a folder, and the folder and those above it where they are new.

    Args:
        folder: the folder.
        existing: what `existing_paths` returned before anything was written.
    """
    for path in set(folder.iterdir()) - existing:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for path in (folder, *folder.parents):
        if path not in existing:
            with suppress(OSError):  # others may have put something there
                path.rmdir()


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


def to_json(value: Any) -> str:
    """Return a value as indented JSON, with null for NaN and infinity, which JSON does not have."""
    return f"{json.dumps(_finite(value), indent=1)}\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_suffixes(path: Path, *suffixes: str) -> list[Path]:
    """Return the files that a result is written to: one for each suffix.

    Args:
        path: the path that the user named, with or without one of the suffixes.
        suffixes: the suffixes, such as ".csv".
    """
    base = path.with_suffix("") if path.suffix in suffixes else path
    return [base.with_name(f"{base.name}{suffix}") for suffix in suffixes]


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


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, empty where there is none.

    Raises:
        UserError: if it is no file, or cannot be read.
    """
    if not os.path.lexists(path):
        return b""
    problem = file_problem(path)
    if problem:
        raise UserError(f"{path}: {problem}; restore it, or run again with another --output")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
