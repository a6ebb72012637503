"""Conversion of a GGUF file of a Python package to a checkpoint, once, into the cache.

transformers takes half a minute to read such a file, and a second for a checkpoint.
"""

import json
import shutil
from pathlib import Path

from lampe.errors import first_line
from lampe_eval import user_cache
from lampe_eval.assets import LocalAsset
from lampe_eval.cards import ModelCard
from lampe_eval.checkpoint_files import CONVERTED_DTYPE, ORIGIN, converted_folder, hash_of_files
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text
from lampe_eval.models import describe_model, load_model


def convert_model(local: LocalAsset) -> Path:
    """Return the folder of the checkpoint made from a verified GGUF file.

    Args:
        local: the file on this machine.

    Raises:
        UserError: if the file cannot be read, or the cache cannot be written.
    """
    folder = converted_folder(local.asset.name)
    # Of two processes the second waits, and then finds the checkpoint of the first.
    with user_cache.lock(folder):
        if not folder.is_dir():
            _write_checkpoint(local, folder)
    return folder


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
        # Versions of transformers write other files from the same weights, so the checkpoint is
        # known by what it was made from.
        origin = {
            "made_from": f"sha256:{sha256_of_text(f'{local.sha256} {CONVERTED_DTYPE}')[:16]}",
            "files": hash_of_files(draft),
        }
        (draft / ORIGIN).write_text(json.dumps(origin))
        draft.replace(folder)
    except Exception as error:
        # safetensors and tokenizers have their own errors for a full disk.
        raise UserError(
            f"cannot write {folder}: {first_line(error)}; {user_cache.ADVICE}"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
