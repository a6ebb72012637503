"""Export of a model with a method, as a checkpoint that other programs load.

Methods of frequencies become plain configuration, wherever transformers then computes the same. For
all others the checkpoint brings a module of a few lines, which patches the model while it loads.
"""

import json
import shutil
from importlib.metadata import version
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from lampe.checkpoints.draft_folder import CONFIG, draft_of, read_config, refuse_output
from lampe.checkpoints.loading import (
    DISTRIBUTION,
    OTHER_CLASSES,
    LampeConfig,
    LampeForCausalLM,
)
from lampe.checkpoints.model_card import model_card, source_of
from lampe.checkpoints.plain_configuration import plain_configuration
from lampe.errors import BadSetting, ExportError, UnsupportedModel, first_line
from lampe.geometry import Geometry, geometry_of
from lampe.methods import Method, require_loadable
from lampe.patching.exclusive_access import require_transformers_model
from lampe.patching.handle import outermost_handle
from lampe.patching.layer_encodings import require_coverage
from lampe.patching.patch import EXPORT_RECORD, method_from, patch

ADAPTER = "adapter_config.json"
"""File that PEFT leaves in the folder of an adapter."""
TOKENIZER_FILES = ("tokenizer*", "*.model", "vocab*", "*.tiktoken", "tekken.json")
AUTO_CLASSES = ("AutoModelForCausalLM", "AutoModelForDecision")
"""Classes of transformers that load an exported model.

``transformers serve`` tries the second one first, and knows no other that could run code.
"""
LICENCE_FILES = ["LICENSE*", "LICENCE*", "NOTICE*"]
"""Files that licences want to go with the weights."""
MODULE = "modeling_lampe"
"""Module of an exported checkpoint, which patches its model."""
CODE = '''"""Loads the model of this checkpoint and patches it; README.md says how."""

try:
    from lampe.checkpoints.loading import LampeConfig, LampeForCausalLM
except ImportError as error:
    raise ImportError(
        f"this checkpoint needs {distribution} {version} or later, which patches its model: "
        f"install it ({{error}})"
    ) from None

__all__ = ["LampeConfig", "LampeForCausalLM"]
'''


def export(
    model: PreTrainedModel | str | PathLike[str],
    method: str | Method,
    output: str | PathLike[str],
    *,
    window: int | None = None,
    max_length: int | None = None,
    tokenizer: Any = None,
    source: str | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Path:
    """Write a checkpoint that loads as the model with a method.

    Methods of frequencies become plain configuration (``rope_parameters``), which needs no lampe to
    load: where their factor is set, or ``max_length`` fixes it, and where transformers computes the
    same by it. All others, and a factor that follows the length of each prompt, are patched on
    load: ``from_pretrained`` then needs an installed lampe and ``trust_remote_code=True``.

    The folder appears when it is complete. Weights are in memory once.

    Args:
        model: a model, or the folder or hub id of one; a patched model's patch is not exported.
        method: a method or its name.
        output: folder to write.
        window: tokens that the model was pretrained on; read from its configuration by default.
        max_length: tokens of the longest prompt, with which settings have to fit.
        tokenizer: tokenizer of a model that is given as an object.
        source: name of the original model on the model card; read from the model by default.
        overwrite: whether an exported checkpoint at ``output`` is replaced.
        settings: hyper-parameters of a method given by name.

    Returns:
        The folder.

    Raises:
        UnknownName: for a method or setting that does not exist.
        BadSetting: for settings that do not fit the model or the length, or a method that another
            process could not find by its name.
        UnsupportedModel: for a model that cannot be patched exactly, or has an adapter.
        ExportError: for a folder that exists or cannot be written, and a checkpoint that cannot be
            read, or was exported already.
    """
    folder = Path(output).resolve()
    refuse_output(folder, overwrite)
    method = method_from(method, settings)
    if isinstance(model, str | PathLike):
        model, tokenizer = _load(str(model))
    _refuse_model(model)
    below = outermost_handle(model)
    if window is None and below is not None:
        window = below.geometry.window
    geometry = geometry_of(model.config, window)
    trained = geometry.window
    check_length(method, geometry, max_length)
    with patch(model, method, window=window, stack=True) as handle:
        changes = plain_configuration(model, handle, max_length)
    if changes is None:
        require_loadable(method)
    else:
        # A configuration has one factor, also where the method derives it from a length.
        method = method.resolved(handle.geometry, max_length or trained)
    record = {
        "method": method.label,
        "settings": method.settings,
        "window": trained,
        "version": version(DISTRIBUTION),
        "source": source or source_of(model),
    }
    with draft_of(folder) as draft:
        _write_model(model, tokenizer, draft)
        _write_configuration(draft, record, changes)
        card = model_card(record, max_length, is_patched=changes is None)
        (draft / "README.md").write_text(card, encoding="utf-8")
    return folder


def check_length(method: Method, geometry: Geometry, max_length: int | None) -> None:
    """Refuse a length for which an export makes no sense, or which settings do not fit.

    Raises:
        BadSetting: for such a length.
    """
    if max_length is None:
        return
    if not isinstance(max_length, int):
        raise BadSetting(f"max_length={max_length!r} must be a whole number of tokens")
    if max_length <= geometry.window:
        raise BadSetting(
            f"max_length={max_length} is within the window of {geometry.window}: give the length "
            "of longer prompts"
        )
    require_coverage(method, method.encode(geometry, max_length).plan)


def _load(path: str) -> tuple[PreTrainedModel, Any]:
    """Return the model and the tokenizer of a folder or hub id; None for a missing tokenizer."""
    folder = Path(path)
    record = read_config(folder).get(EXPORT_RECORD)
    if record:
        raise _exported_already(path, record)
    # Where PEFT is missing, transformers would load the model without the adapter.
    _refuse_adapter(folder)
    has_tokenizer = not folder.is_dir() or any(any(folder.glob(name)) for name in TOKENIZER_FILES)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            path, dtype="auto", trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(path) if has_tokenizer else None
    except Exception as error:
        # A checkpoint can be broken in the ways of every library that reads it.
        raise ExportError(f"{path}: cannot be loaded ({first_line(error)})") from error
    return model, tokenizer


def _refuse_model(model: PreTrainedModel) -> None:
    """Refuse a model whose checkpoint would load as another one."""
    name = type(model).__name__
    # PEFT wraps a model in an object of its own, or adds adapters to the model itself.
    if hasattr(model, "merge_and_unload") or getattr(model, "_hf_peft_config_loaded", False):
        raise _has_adapter(name)
    require_transformers_model(model)
    record = getattr(model.config, EXPORT_RECORD, None)
    if record:
        raise _exported_already(name, record)
    if model.name_or_path:
        _refuse_adapter(Path(model.name_or_path))
    known: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(model.config), ())
    if type(model) not in (known if isinstance(known, tuple) else (known,)):
        raise UnsupportedModel(
            f"{name}: AutoModelForCausalLM does not load it from its configuration "
            f"({type(model.config).__name__})"
        )


def _refuse_adapter(folder: Path) -> None:
    if (folder / ADAPTER).is_file():
        raise _has_adapter(str(folder))


def _has_adapter(name: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{name}: has an adapter (LoRA); merge it into the weights (merge_and_unload), and export "
        "the merged model"
    )


def _exported_already(name: str, record: Any) -> ExportError:
    method, source = record.get("method"), record.get("source")
    return ExportError(f"{name}: was exported with {method} already; export its source, {source}")


def _write_model(model: PreTrainedModel, tokenizer: Any, draft: Path) -> None:
    try:
        # The class's own: that of a patched model warns that it does not write the patch.
        type(model).save_pretrained(model, draft)
    except ValueError as error:
        # transformers refuses to write some of the generation configurations that it reads.
        raise ExportError(
            f"{type(model).__name__}: cannot be saved ({first_line(error)})"
        ) from error
    if tokenizer is not None:
        tokenizer.save_pretrained(draft)
    name = model.name_or_path
    if name:
        for path in _licence_files(name, getattr(model.config, "_commit_hash", None)):
            shutil.copyfile(path, draft / path.name)


def _licence_files(source: str, commit: str | None) -> list[Path]:
    """Return the licence files of a folder or a hub repository, as far as they can be had."""
    folder = Path(source)
    if not folder.is_dir():
        if commit is None:
            return []
        try:
            folder = Path(snapshot_download(source, revision=commit, allow_patterns=LICENCE_FILES))
        except Exception:
            # Offline, or no repository: then the model card names the source.
            return []
    return list(chain.from_iterable(folder.glob(pattern) for pattern in LICENCE_FILES))


def _write_configuration(
    draft: Path, record: dict[str, Any], changes: dict[str, Any] | None
) -> None:
    """Change a saved configuration, so that it has the method or names the code that has it.

    Args:
        draft: folder of the checkpoint.
        record: what is recorded of the export.
        changes: new values of the configuration; None for a model that is patched while it loads.
    """
    config = read_config(draft)
    if changes is None:
        record = {**record, "config": config}
        classes = {"AutoConfig": LampeConfig, **dict.fromkeys(AUTO_CLASSES, LampeForCausalLM)}
        config = {
            "architectures": [LampeForCausalLM.__name__],
            "auto_map": {auto: f"{MODULE}.{known.__name__}" for auto, known in classes.items()},
            "model_type": LampeConfig.model_type,
            **OTHER_CLASSES,
        }
        code = CODE.format(distribution=DISTRIBUTION, version=record["version"])
        (draft / f"{MODULE}.py").write_text(code, encoding="utf-8")
    config |= {**(changes or {}), EXPORT_RECORD: record}
    (draft / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
