"""Fingerprint of a checkpoint's folder; it needs no torch, so that changed weights show at once."""

from pathlib import Path

from lampe_eval.cards import ModelCard
from lampe_eval.file_io import sha256_of_pieces
from lampe_eval.pocket import WEIGHTS

FINGERPRINT_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors", "*.bin")
"""Files of a checkpoint that decide its answers: settings, chat templates, tokenizer, weights."""


def checkpoint_path(card: ModelCard) -> str:
    """Return the folder or the hub id of a card's checkpoint."""
    return str(WEIGHTS) if card.path == "pocket" else card.path


def folder_fingerprint(folder: Path) -> str:
    """Return a hash of the files that decide a checkpoint's answers.

    Raises:
        OSError: if a file cannot be read.
    """
    files: list[Path] = []
    for pattern in FINGERPRINT_FILES:
        files += sorted(folder.glob(pattern))
    return f"sha256:{sha256_of_pieces(files)[:16]}"
