"""Folder that is written whole or not at all: a draft beside it gets its name at the end."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from lampe.errors import ExportError
from lampe.patching.patch import EXPORT_RECORD

CONFIG = "config.json"


def read_config(folder: Path) -> dict[str, Any]:
    """Return a folder's configuration, empty where it has none that can be read."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def refuse_output(output: Path, overwrite: bool) -> None:
    """Refuse a folder that an export must not replace.

    Raises:
        ExportError: for a file, a folder that is not empty, unless it is to be overwritten, and
            then for one that no export has written; also where nothing can be written.
    """
    around = next(folder for folder in output.absolute().parents if os.path.lexists(folder))
    if not (around.is_dir() and os.access(around, os.W_OK | os.X_OK)):
        raise ExportError(f"{output}: {around} is no folder to write to; choose another output")
    if not os.path.lexists(output):
        return
    if not output.is_dir():
        raise ExportError(f"{output}: exists and is not a folder; choose another output")
    if not any(output.iterdir()):
        return
    if not overwrite:
        raise ExportError(
            f"{output}: exists already; choose another output, or overwrite it (overwrite=True, "
            "--overwrite)"
        )
    # Whatever else it is, its files are nowhere else.
    if EXPORT_RECORD not in read_config(output):
        raise ExportError(
            f"{output}: is not a checkpoint that lampe exported, so it is not overwritten; choose "
            "another output"
        )


@contextmanager
def draft_of(output: Path) -> Iterator[Path]:
    """Give a new folder to write to, which becomes ``output`` where the block succeeds.

    Raises:
        ExportError: where it cannot be written.
    """
    _remove_left_drafts(output)
    draft = output.with_name(f"{output.name}.{os.getpid()}.part")
    replaced = output.with_name(f"{output.name}.{os.getpid()}.old")
    # Not below: a draft that exists is that of another thread.
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise _unwritable(output, error) from None
    try:
        yield draft
        if output.is_dir():
            output.replace(replaced)
        draft.replace(output)
    # Also safetensors and tokenizers, which have errors of their own, report a full disk.
    except OSError as error:
        raise _unwritable(output, error) from None
    except Exception as error:
        if "os error" not in str(error):
            raise
        raise _unwritable(output, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if replaced.is_dir() and not output.exists():
            replaced.replace(output)
        shutil.rmtree(replaced, ignore_errors=True)


def _remove_left_drafts(output: Path) -> None:
    """Remove the drafts of processes that were killed."""
    for draft in output.parent.glob(f"{escape(output.name)}.*.part"):
        process = draft.name.removeprefix(f"{output.name}.").removesuffix(".part")
        if process.isdecimal() and not _is_running(int(process)):
            shutil.rmtree(draft, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # That of another user.
        return True
    return True


def _unwritable(output: Path, error: Exception) -> ExportError:
    reason = " ".join(str(error).split())
    return ExportError(f"{output}: cannot be written ({reason}); choose another output")
