"""Files of a checkpoint in a folder: which decide its answers, what they hash to, which are broken.

A hub model is known by its commit, so nothing of this concerns it.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path

from lampe_eval import assets, user_cache
from lampe_eval.cards import ModelCard, find_model_card
from lampe_eval.errors import UserError, report_warning
from lampe_eval.file_io import CHUNK_BYTES, file_problem, read_json, sha256_of_files, sha256_of_text
from lampe_eval.gguf_files import check_gguf
from lampe_eval.pocket import WEIGHTS

SUFFIXES = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".safetensors", ".bin")
"""Suffixes of settings, chat templates, tokenizers and weights, in the order of the fingerprint."""
SMALL_BYTES = 2**24
"""Size up to which a file's content is hashed each time, without the cache."""
ANNOUNCED_BYTES = 2**30
"""Size from which on hashing takes seconds, so that it is announced."""
MAPPING_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "adapter_config.json",
)
TOKEN_ID_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")
CONVERTED_DTYPE = "bfloat16"
"""Data type of the checkpoints that `lampe-eval data fetch` converts."""
ORIGIN = "converted-from"
"""File of a converted checkpoint that says what it was made from, and what was made."""


def checkpoint_path(card: ModelCard) -> str:
    """Return the folder or the hub id of a card's checkpoint.

    Raises:
        UserError: if it is to be fetched first.
    """
    if card.source == "package":
        folder = converted_folder(card.package)
        if not folder.is_dir():
            raise UserError(
                f"{card.path}: is not on this machine; get it with: "
                f"lampe-eval data fetch {card.package}"
            )
        return str(folder)
    return str(WEIGHTS) if card.path == "pocket" else card.path


def gguf_file(card: ModelCard) -> str:
    """Return the name of the GGUF file that a card's checkpoint is; empty for another."""
    return "" if card.source == "package" else card.gguf


def converted_folder(package: str) -> Path:
    """Return where the checkpoint lies that is made from a package's GGUF file: beside it.

    Raises:
        UserError: for an asset that does not exist.
    """
    return assets.cache_path(assets.find(package)).with_suffix("")


def find_model(name: str) -> tuple[ModelCard, str]:
    """Return the card and the label of a model, as `find_model_card` does.

    Raises:
        UserError: for a name that does not exist, or a folder that is no checkpoint, as far as can
            be told without transformers, which takes seconds to import.
    """
    card, label = find_model_card(name)
    folder = Path(checkpoint_path(card))
    if folder.is_dir():
        check_files(folder, gguf_file(card))
    return card, label


def fingerprint(folder: Path, gguf: str = "") -> str:
    """Return a hash of all files that transformers may load from a folder.

    Args:
        folder: the checkpoint.
        gguf: name of the GGUF file that is loaded instead of all others.

    Raises:
        UserError: for a file that is broken, leaves the folder, or cannot be read.
    """
    if gguf:
        _announce_hashing(folder / gguf, [folder / gguf])
        try:
            return _short(_cached_sha256(folder / gguf))
        except OSError as error:
            raise UserError(f"{folder / gguf}: cannot be read ({error.strerror})") from None
    files = hash_of_files(folder)
    if (folder / ORIGIN).exists():
        origin = _read_mapping(folder / ORIGIN)
        # A checkpoint that was changed since is not what was converted.
        if origin.get("files") == files:
            return str(origin["made_from"])
    return files


def hash_of_files(folder: Path) -> str:
    """Return a hash of all files that transformers may load from a folder and its subfolders.

    Raises:
        UserError: as `fingerprint` does.
    """
    digest = hashlib.sha256()
    paths = _files(folder)
    _announce_hashing(folder, paths)
    for path in paths:
        try:
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder).as_posix()} {size}".encode())
            if size > SMALL_BYTES:
                digest.update(_cached_sha256(path).encode())
                continue
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    return _short(digest.hexdigest())


def _short(sha256: str) -> str:
    return f"sha256:{sha256[:16]}"


def check_files(folder: Path, gguf: str = "") -> None:
    """Refuse a folder without settings, with broken ones, or with files that cannot be read.

    Args:
        folder: the checkpoint.
        gguf: name of the GGUF file that is loaded instead of all others.

    Raises:
        UserError: naming the file.
    """
    if gguf:
        check_gguf(folder / gguf)
        return
    if not (folder / "config.json").exists():
        raise UserError(
            f"{folder}: not a checkpoint of transformers: it has no config.json, and no GGUF file"
        )
    for path in _files(folder):
        problem = file_problem(path)
        if problem:
            raise UserError(f"{path}: cannot be read: {problem}")
    for name in MAPPING_FILES:
        if (folder / name).exists():
            _read_mapping(folder / name)
    _refuse_export(folder)
    if (folder / "generation_config.json").exists():
        _check_token_ids(folder / "generation_config.json")


def _refuse_export(folder: Path) -> None:
    """Refuse a checkpoint that `lampe-eval export` wrote with code: the harness patches itself."""
    config = _read_mapping(folder / "config.json")
    record = config.get("lampe_export")
    if "auto_map" in config and isinstance(record, Mapping):
        raise UserError(
            f"{folder}: was exported with the method {record.get('method')} already; give its "
            f"source, {record.get('source')}, as the model and {record.get('method')} as the method"
        )


def _files(folder: Path) -> list[Path]:
    """Return the files that decide a checkpoint's answers, in a fixed order."""
    found = {path for path in folder.rglob("*") if path.suffix in SUFFIXES and not path.is_dir()}
    # Folders of other programs, such as the hub's .cache, hold nothing that is loaded.
    shown = {path for path in found if not path.relative_to(folder).parts[0].startswith(".")}
    return sorted(
        shown | set(_indexed_files(folder)), key=lambda path: (SUFFIXES.index(path.suffix), path)
    )


def _indexed_files(folder: Path) -> list[Path]:
    """Return the files that the folder's indexes of weights name."""
    indexes = sorted(folder.glob("*.index.json"))
    return list(chain.from_iterable(_files_of_index(folder, index) for index in indexes))


def _files_of_index(folder: Path, index: Path) -> list[Path]:
    """Return the files that an index names, once each.

    Raises:
        UserError: for an index without files, and for a file outside the folder.
    """
    weight_map = _read_mapping(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise UserError(f"{index}: its 'weight_map' names no weights")
    names = dict.fromkeys(weight_map.values())
    for name in names:
        if not isinstance(name, str) or Path(name).suffix not in (".safetensors", ".bin"):
            raise UserError(f"{index}: {name!r} is no file of weights")
        if not _is_inside(folder, name):
            raise UserError(f"{index}: {name!r} lies outside the model's folder")
    return [folder / name for name in names]


def _is_inside(folder: Path, name: str) -> bool:
    """Return whether a file that an index names lies in the folder, or in the hub's cache of it."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        return False
    try:
        target, home = (folder / path).resolve(strict=True), folder.resolve()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{folder / path}: cannot be read ({error})") from None
    # The hub's cache has models--*/snapshots/COMMIT/FILE -> ../../blobs/HASH.
    in_hub_cache = home.parent.name == "snapshots" and target.parent == home.parents[1] / "blobs"
    return target.is_relative_to(home) or in_hub_cache


def _read_mapping(path: Path) -> Mapping[str, object]:
    value = read_json(path)
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: must be a mapping of keys to values, got {str(value)[:40]!r}")
    return value


def _check_token_ids(path: Path) -> None:
    """Refuse settings of generation whose special tokens are no token ids."""
    settings = _read_mapping(path)
    for key in TOKEN_ID_KEYS:
        value = settings.get(key)
        ids = value if isinstance(value, list) else [value]
        # type(), because True is an int too.
        if value is not None and any(type(each) is not int for each in ids):
            raise UserError(f"{path}: {key}={str(value)[:40]!r} is no token id")


def _announce_hashing(checkpoint: Path, paths: list[Path]) -> None:
    """Say in one line that large weights are hashed for the first time."""
    size = 0
    with suppress(OSError):  # of a file that cannot be read, whose reader says so
        for path in paths:
            if path.stat().st_size > SMALL_BYTES and not _hash_file(path).exists():
                size += path.stat().st_size
    if size > ANNOUNCED_BYTES:
        report_warning(f"{checkpoint}: hashing weights of {size / 2**30:.1f} GiB, this once")


def _hash_file(path: Path) -> Path:
    """Return the file of the cache that holds the hash of a large file as it now is."""
    state = path.stat()
    # ctime too: nobody can set it back, as `cp -p` and `touch -r` do with mtime.
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"
    return user_cache.root() / "weights" / f"{sha256_of_text(key)}.sha256"


def _cached_sha256(path: Path) -> str:
    """Return the sha256 of a large file, computed once for a path, size and time of change."""
    entry = _hash_file(path)
    with suppress(OSError, UnicodeDecodeError):
        stored = entry.read_text()
        if len(stored) == hashlib.sha256().digest_size * 2:
            return stored
    digest = sha256_of_files([path])
    with suppress(UserError):  # a cache that cannot be written only costs time
        user_cache.write(entry, digest)
    return digest
