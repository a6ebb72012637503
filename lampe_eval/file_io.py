"""Reading and writing files: whole or not at all, with hashes and one error for a full disk."""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lampe_eval.errors import UserError

CHUNK_BYTES = 1 << 20


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
        draft.chmod(0o666 & ~_umask())
        # Atomic within a file system only, hence a draft beside the target.
        draft.replace(path)
    # Not only Exception: a signal raises Stopped, which is none.
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def unwritable(path: Path, error: OSError, advice: str = "") -> UserError:
    """Return the error for a path that cannot be written.

    Args:
        path: what was to be written.
        error: what the system said.
        advice: what the user can do, such as "choose another --output".
    """
    reason = error.strerror or str(error)
    return UserError(f"cannot write {path}: {reason}" + (f"; {advice}" if advice else ""))


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


def _umask() -> int:
    """Return the process's umask, which `mkstemp` ignores: other users may have to read results."""
    # Python can read the mask only by setting another one.
    mask = os.umask(0)
    os.umask(mask)
    return mask
