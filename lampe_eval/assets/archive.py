"""Unpacking of zip and tar archives that are not trusted.

Only plain files are unpacked, only below the target, and no more than the limits allow. Sizes are
counted while the files are written: the sizes that an archive states may be false.
"""

import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO

from lampe_eval.assets.asset_cards import is_inside
from lampe_eval.errors import UserError
from lampe_eval.file_io import unwritable

CHUNK_BYTES = 1 << 20
READ_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    ValueError,
)
"""Errors of the standard library's readers for archives that are damaged or encrypted, or are
compressed by a method that they lack."""


class UnsafeArchive(Exception):
    """Archive that holds something it must not hold."""


@dataclass(frozen=True)
class ArchiveLimits:
    """Largest archive that is unpacked.

    Attributes:
        files: number of files.
        file_bytes: bytes of one file.
        total_bytes: bytes of all files.
    """

    files: int = 10_000
    file_bytes: int = 4 << 30
    total_bytes: int = 16 << 30


@dataclass(frozen=True)
class ArchiveEntry:
    """Entry of an archive that is no folder.

    Attributes:
        path: path in the archive.
        is_plain_file: whether it is a file, no link or device.
        open: opens its contents; returns None unless it is a plain file.
    """

    path: str
    is_plain_file: bool
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, target: Path, limits: ArchiveLimits = ArchiveLimits()) -> None:
    """Unpack a zip or tar archive into a folder that does not exist yet, whole or not at all.

    Raises:
        UserError: if the archive is broken or unsafe (the message names the entry), or the target
            cannot be written.
    """
    # The target counts as whole as soon as it exists, so that it is renamed into place at the end.
    draft = target.with_name(f"{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        with _open_entries(archive) as entries:
            _write_entries(entries, draft, limits)
        draft.replace(target)
    except READ_ERRORS as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{archive}: is a broken archive ({reason})") from None
    except UnsafeArchive as error:
        raise UserError(f"{archive}: not unpacked: {error}") from None
    except OSError as error:
        if str(error.filename) == str(archive):
            raise UserError(f"{archive}: cannot be read ({error.strerror})") from None
        raise unwritable(target, error, f"it is unpacked from {archive}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def list_files(archive: Path, limits: ArchiveLimits = ArchiveLimits()) -> list[str]:
    """Return the paths of the plain files in an archive, as far as the limits allow.

    Raises:
        UserError: if the archive cannot be read.
    """
    try:
        with _open_entries(archive) as entries:
            plain = (entry.path for entry in entries if entry.is_plain_file)
            return list(islice(plain, limits.files))
    except READ_ERRORS as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{archive}: is a broken archive ({reason})") from None
    except OSError as error:
        raise UserError(f"{archive}: cannot be read ({error.strerror})") from None


def _write_entries(entries: Iterator[ArchiveEntry], folder: Path, limits: ArchiveLimits) -> None:
    remaining = limits.total_bytes
    for number, entry in enumerate(entries, start=1):
        # Before anything is opened: a link, a device or a path with .. could write outside of the
        # target.
        if not entry.is_plain_file or not is_inside(entry.path):
            raise UnsafeArchive(f"{entry.path!r} is no plain file below the target")
        if number > limits.files:
            raise UnsafeArchive(f"more than {limits.files} files")
        contents = entry.open()
        assert contents, "plain files have contents"
        with contents:
            remaining -= _write_file(
                contents, folder / entry.path, entry.path, min(limits.file_bytes, remaining)
            )


def _write_file(contents: IO[bytes], path: Path, name: str, limit: int) -> int:
    """Write a new file of at most ``limit`` bytes and return its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    try:
        # Exclusive creation refuses an entry that would overwrite an earlier one.
        with path.open("xb") as file:
            while chunk := contents.read(CHUNK_BYTES):
                size += len(chunk)
                if size > limit:
                    raise UnsafeArchive(f"{name!r} is too large: more than {limit} bytes")
                file.write(chunk)
    except FileExistsError:
        raise UnsafeArchive(f"{name!r} is in it twice") from None
    return size


@contextmanager
def _open_entries(archive: Path) -> Iterator[Iterator[ArchiveEntry]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield _zip_entries(file)
    else:
        with tarfile.open(archive) as tar:
            yield _tar_entries(tar)


def _zip_entries(file: zipfile.ZipFile) -> Iterator[ArchiveEntry]:
    for entry in file.infolist():
        if not entry.is_dir():
            # The upper 16 bits hold the Unix mode; archives made elsewhere leave it 0.
            kind = stat.S_IFMT(entry.external_attr >> 16)
            is_plain_file = kind in (0, stat.S_IFREG)
            yield ArchiveEntry(entry.filename, is_plain_file, partial(file.open, entry))


def _tar_entries(tar: tarfile.TarFile) -> Iterator[ArchiveEntry]:
    # ``isreg`` is false for links, which may point outside of the target.
    for entry in tar:
        if not entry.isdir():
            yield ArchiveEntry(entry.name, entry.isreg(), partial(tar.extractfile, entry))
