"""GGUF files: which one a folder has, and whether its header lets transformers load it.

The ``gguf`` package reads the header. transformers needs it too, and ``accelerate``; both come with
the extra ``gguf`` of this package.
"""

import functools
from collections.abc import Mapping, Set
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lampe.errors import first_line
from lampe_eval.errors import UserError, first_names
from lampe_eval.file_io import file_problem

SUFFIX = ".gguf"
NEEDED_PACKAGES = ("gguf", "accelerate")
NEEDED_FIELDS = {
    "general.architecture": "architecture",
    "tokenizer.ggml.model": "tokenizer",
    "tokenizer.ggml.tokens": "tokenizer",
}
"""Fields of the header that transformers needs, and what they hold."""
ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors by which a file scales its rotary frequencies, as Llama 3.1's and Phi 3's do."""


def only_gguf(folder: Path) -> str:
    """Return the name of the one GGUF file of a folder; empty if it has none.

    Raises:
        UserError: if there are several.
    """
    found = [path for path in folder.iterdir() if path.suffix.lower() == SUFFIX]
    # Some systems leave a hidden file, such as ._model.gguf, beside each one that was copied.
    names = sorted(p.name for p in found if not p.is_dir() and not p.name.startswith("."))
    if len(names) > 1:
        raise UserError(
            f"--model: {folder} has {len(names)} GGUF files ({first_names(names)}); "
            f"name one, such as {folder / names[0]}"
        )
    return names[0] if names else ""


def check_gguf(path: Path) -> str:
    """Refuse a GGUF file that transformers cannot load, as far as its header tells.

    Returns:
        What in the file scales its rope, such as "llama.rope.scaling.type=yarn"; empty if nothing.

    Raises:
        UserError: if it cannot be read, is damaged, lacks a part, or a package is missing.
    """
    problem = file_problem(path)
    if problem:
        raise UserError(f"{path}: cannot be read: {problem}")
    missing = [name for name in NEEDED_PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{path}: needs the package {missing[0]}; install it with: "
            "pip install 'lampe-eval[gguf]'"
        )
    state = path.stat()
    return _check_header(path, state.st_size, state.st_mtime_ns)


# Once for a path, size and time of change: the package takes seconds for a large vocabulary, and a
# command describes a model several times.
@functools.lru_cache(maxsize=8)
def _check_header(path: Path, size: int, time: int) -> str:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        # Arrays, such as a vocabulary, are long, and none is needed.
        values = {
            name: field.contents() for name, field in reader.fields.items() if len(field.data) == 1
        }
        tensors = {tensor.name for tensor in reader.tensors}
    # The reader views slices of the file as numbers, so a damaged file raises errors of numpy.
    except Exception as error:
        raise UserError(
            f"{path}: no GGUF file, or a truncated or damaged one ({first_line(error)}); "
            "get it again"
        ) from None
    parts = values.get("split.count", 1)
    if parts not in (0, 1):
        raise UserError(
            f"{path}: is one of {parts} parts, which transformers cannot join; join them with: "
            "llama-gguf-split --merge"
        )
    for name, part in NEEDED_FIELDS.items():
        if name not in reader.fields:
            raise UserError(f"{path}: has no {part} (field {name}); get a file that has it")
    return _rope_scaling(values, tensors)


def _rope_scaling(values: Mapping[str, Any], tensors: Set[str]) -> str:
    """Return the field or tensor that scales a file's rope; empty if there is none."""
    for name in ROPE_FACTORS:
        if name in tensors:
            return name
    rope = f"{values.get('general.architecture')}.rope"
    kind = values.get(f"{rope}.scaling.type")
    if kind == "none":
        return ""
    # llama.cpp takes a factor without a type as linear, and an old name of it; 0 is none to it.
    for field in (f"{rope}.scaling.factor", f"{rope}.scale_linear"):
        if field in values:
            is_scaled = values[field] not in (0, 1)
            name = f"{rope}.scaling.type={kind}" if kind else f"{field}={values[field]}"
            return name if is_scaled else ""
    return f"{rope}.scaling.type={kind}" if kind else ""
