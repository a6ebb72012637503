"""Conversion of a GGUF file of a Python package to a checkpoint, once, into the cache.

transformers takes half a minute to read such a file, and a second for a checkpoint.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path

from lampe.errors import first_line
from lampe_eval import user_cache
from lampe_eval.assets import LocalAsset
from lampe_eval.cards import ModelCard
from lampe_eval.checkpoint_files import (
    CONVERTED_DTYPE,
    ORIGIN,
    converted_folder,
    fingerprint,
    hash_of_files,
)
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text
from lampe_eval.models import describe_model, load_model


def convert_model(local: LocalAsset) -> Path:
    """Return the folder of the checkpoint made from a verified GGUF file.

    One that was changed or damaged since is made anew.

    Args:
        local: the file on this machine.

    Raises:
        UserError: if the file cannot be read, or the cache cannot be written.
    """
    folder = converted_folder(local.asset.name)
    # Of two processes the second waits, and then finds the checkpoint of the first.
    with user_cache.lock(folder):
        if not _is_sound(local, folder):
            _write_checkpoint(local, folder)
    return folder


def _is_sound(local: LocalAsset, folder: Path) -> bool:
    """Return whether a checkpoint has the files with which it was made from a GGUF file."""
    with suppress(UserError):  # of a file that cannot be read
        return folder.is_dir() and fingerprint(folder) == _made_from(local)
    return False


def _made_from(local: LocalAsset) -> str:
    # Versions of transformers write other files from the same weights, so the checkpoint is known
    # by what it was made from.
    return f"sha256:{sha256_of_text(f'{local.sha256} {CONVERTED_DTYPE}')[:16]}"


def _write_checkpoint(local: LocalAsset, folder: Path) -> None:
    path = local.open_path()
    card = ModelCard(path=str(path.parent), gguf=path.name, dtype=CONVERTED_DTYPE)
    model, tokenizer = load_model(describe_model(card, local.asset.name), "cpu")
    # A folder that exists counts as whole, so it gets its name at the end.
    draft = folder.with_name(f"{folder.name}.part")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        origin = {"made_from": _made_from(local), "files": hash_of_files(draft)}
        (draft / ORIGIN).write_text(json.dumps(origin))
        if folder.exists():
            shutil.rmtree(folder)
        draft.replace(folder)
    except Exception as error:
        # safetensors and tokenizers have their own errors for a full disk.
        raise UserError(
            f"cannot write {folder}: {first_line(error)}; {user_cache.ADVICE}"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
