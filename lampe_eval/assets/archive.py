"""Unpacking archives that nobody vouches for: only plain files, only below the target, and no more than the caps allow.

Sizes are counted while they are written; what an archive says of itself is not believed.
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
from pathlib import Path
from typing import IO

from lampe_eval.assets.card import is_inside
from lampe_eval.errors import UserError

CHUNK = 1 << 20
BROKEN = (
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
"""What the readers raise on damaged archives, and on passwords and methods that they do not have."""


@dataclass(frozen=True)
class Caps:
    """What an archive may hold at most: files, bytes of one, bytes of all."""

    files: int = 10_000
    file: int = 4 << 30
    total: int = 16 << 30


Entry = tuple[str, bool, Callable[[], IO[bytes] | None]]
"""Path, whether it is a plain file, and how to open it."""


def unpack(archive: Path, target: Path, caps: Caps = Caps()) -> None:
    """Unpacks a zip or tar archive into a folder that does not exist yet, whole or not at all.

    Raises:
        UserError: for an archive that is broken, or holds what it must not; it names the entry.
    """
    draft = target.with_name(f"{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        with _entries(archive) as entries:
            _write(entries, draft, caps)
        draft.replace(target)
    except BROKEN as error:
        raise UserError(
            f"{archive}: is a broken archive ({' '.join(str(error).split())})"
        ) from None
    except Unsafe as error:
        raise UserError(f"{archive}: not unpacked: {error}") from None
    except OSError as error:
        raise UserError(
            f"{archive}: cannot be unpacked to {target} ({error.strerror or error})"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


class Unsafe(Exception):
    """What an archive must not hold."""


def _write(entries: Iterator[Entry], folder: Path, caps: Caps) -> None:
    total = 0
    for number, (name, plain, opened) in enumerate(entries, start=1):
        if not plain or not is_inside(name):
            raise Unsafe(f"{name!r} is no plain file below the target")
        if number > caps.files:
            raise Unsafe(f"more than {caps.files} files")
        contents = opened()
        assert contents, "plain files have contents"
        with contents:
            total += _copy(contents, folder / name, name, min(caps.file, caps.total - total))


def _copy(contents: IO[bytes], path: Path, name: str, most: int) -> int:
    """Writes a new file of at most ``most`` bytes and returns their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    try:
        with path.open("xb") as file:
            while chunk := contents.read(CHUNK):
                size += len(chunk)
                if size > most:
                    raise Unsafe(f"{name!r} is too large: more than {most} bytes")
                file.write(chunk)
    except FileExistsError:
        raise Unsafe(f"{name!r} is in it twice") from None
    return size


@contextmanager
def _entries(archive: Path) -> Iterator[Iterator[Entry]]:
    """Everything in an archive but its folders."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield _zipped(file)
    else:
        with tarfile.open(archive) as tar:
            yield (
                (entry.name, entry.isreg(), partial(tar.extractfile, entry))
                for entry in tar
                if not entry.isdir()
            )


def _zipped(file: zipfile.ZipFile) -> Iterator[Entry]:
    for entry in file.infolist():
        if not entry.is_dir():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            yield entry.filename, kind in (0, stat.S_IFREG), partial(file.open, entry)
