"""Models by card, folder or hub id: first described from their configuration, then loaded."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    logging,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

import lampe
from lampe_eval.cards import ModelCard
from lampe_eval.errors import UserError, first_line, report_warning
from lampe_eval.fingerprint import checkpoint_path, folder_fingerprint
from lampe_eval.records import ModelRecord

ALL_GPUS = "spread"
"""Device name for a model that is spread over all GPUs of this process."""
UNREACHABLE_ERRORS = {
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "ConnectionError",
    "ConnectError",
    "TransportError",
}
"""Errors of the hub's HTTP libraries that mean that it cannot be reached."""


@dataclass(frozen=True)
class ModelSource:
    """Model whose weights are not loaded yet.

    Attributes:
        name: the model's name in tables.
        path: folder or hub id.
        revision: revision of the hub repository.
        dtype: data type of the weights as torch names it, or "auto" for the checkpoint's own.
        geometry: window and rope.
        settings: settings of methods by method name, from the model's card.
        fingerprint: the hub's commit, or a hash of a folder's files.
    """

    name: str
    path: str
    revision: str
    dtype: str
    geometry: lampe.Geometry
    settings: Mapping[str, Mapping[str, Any]]
    fingerprint: str

    @property
    def described(self) -> ModelRecord:
        """Properties that scores depend on, as a run records them."""
        return {
            "fingerprint": self.fingerprint,
            "dtype": self.dtype,
            "window": self.geometry.window,
        }


@dataclass(frozen=True)
class ModelCost:
    """Sizes by which time and memory are estimated.

    Attributes:
        parameters: number of all parameters.
        parameter_bytes: bytes of a parameter.
        cache_bytes: bytes of the keys and values of a token in all layers.
        attention_operations: multiplications and additions of attention for a pair of tokens, in
            all layers.
    """

    parameters: int
    parameter_bytes: int
    cache_bytes: int
    attention_operations: int


def describe_model(
    card: ModelCard, label: str, *, window: int | None = None, dtype: str | None = None
) -> ModelSource:
    """Describe a model from its card and its configuration, without its weights.

    Args:
        card: the model's card.
        label: the model's name in tables.
        window: tokens of pretraining; overrides the card and the configuration.
        dtype: data type of the weights; overrides the card.

    Raises:
        UserError: if the model cannot be used.
    """
    _silence_libraries()
    path = checkpoint_path(card)
    config = _load_config(path, card.revision)
    try:
        geometry = lampe.geometry_of(config, window or card.window)
    except lampe.LampeError as error:
        raise UserError(f"model {label!r}: {error}") from None
    if not (window or card.window):
        note = geometry.window_note or _default_window_note(path, card.revision, config, geometry)
        if note:
            _warn_once(f"model {label!r}: {note.replace('window=', '--window ')}")
    dtype = dtype or card.dtype
    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UserError(
            f"--dtype: {dtype!r} is no type of torch's; use auto, float32, bfloat16 or float16"
        )
    fingerprint = _fingerprint(path, config)
    return ModelSource(label, path, card.revision, dtype, geometry, card.settings, fingerprint)


def load_model(source: ModelSource, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model, ready for inference, and its tokenizer.

    Args:
        source: the model.
        device: device as torch names it, or `ALL_GPUS`.

    Raises:
        UserError: if weights or tokenizer cannot be loaded, or the device refuses the model.
    """
    tokenizer = load_tokenizer(source)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.path,
            revision=source.revision,
            dtype=source.dtype,
            device_map="auto" if device == ALL_GPUS else None,
            output_loading_info=True,
        )
    except Exception as error:
        # A checkpoint can be broken in the ways of every library that reads it.
        raise _loading_error(source.path, error) from None
    model, report = loaded
    # transformers initializes missing weights at random and only logs it.
    missing = sorted(report["missing_keys"]) or sorted(report["mismatched_keys"])
    if missing:
        names = ", ".join(map(str, missing[:3]))
        raise UserError(f"{source.path}: the checkpoint lacks weights: {names}")
    try:
        placed: Any = model if device == ALL_GPUS else model.to(device)
    except Exception as error:
        # Every backend of torch has its own errors for a device that is missing or full.
        raise UserError(
            f"model {source.name!r} on device {device!r}: {first_line(error)}"
        ) from None
    return placed.eval(), tokenizer


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer.

    Raises:
        UserError: if it cannot be loaded.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.path, revision=source.revision
        )
    except Exception as error:
        # As for weights: every library that reads a tokenizer has its own errors.
        raise _loading_error(source.path, error) from None
    return tokenizer


def cost_of(source: ModelSource) -> ModelCost:
    """Return the sizes of a model, from its configuration alone."""
    config = _load_config(source.path, source.revision)
    # On the meta device parameters have shapes and take no memory.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    text = config.get_text_config()
    layers = text.num_hidden_layers
    heads = text.num_attention_heads
    key_value_heads = getattr(text, "num_key_value_heads", None) or heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    dtype = source.dtype
    if dtype == "auto":
        dtype = str(config.dtype or "float32").removeprefix("torch.")
    parameter_bytes: int = getattr(torch, dtype).itemsize
    return ModelCost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        parameter_bytes=parameter_bytes,
        # 2: a key and a value
        cache_bytes=2 * layers * key_value_heads * head_dim * parameter_bytes,
        # 4: a multiplication and an addition, for the scores and for the sum of values
        attention_operations=4 * layers * heads * head_dim,
    )


def _silence_libraries() -> None:
    """Silence transformers and the hub: our own errors say in one line what they log."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    critical = 50
    huggingface_hub.logging.set_verbosity(critical)


def _load_config(path: str, revision: str) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise _loading_error(path, error) from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(f"{path}: a {config.model_type!r} model is no causal language model")
    return config


def _default_window_note(
    path: str, revision: str, config: PreTrainedConfig, geometry: lampe.Geometry
) -> str:
    """Return a sentence where the window is a default of transformers, not of the checkpoint."""
    text = config.get_text_config(decoder=True)
    if getattr(text, "max_position_embeddings", None) != geometry.window:
        return ""
    written, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
    # Some types have a name of their own for it, such as n_positions.
    name = text.attribute_map.get("max_position_embeddings", "max_position_embeddings")
    parts = [written, *(part for part in written.values() if isinstance(part, Mapping))]
    if any({name, "max_position_embeddings"} & part.keys() for part in parts):
        return ""
    return (
        f"its configuration has no max_position_embeddings; the window is taken to be "
        f"{geometry.window} tokens, the default of {text.model_type!r}; give window=TOKENS if it "
        "is another"
    )


@functools.cache
def _warn_once(text: str) -> None:
    """Write a warning, once in a process: a command may describe the same model several times."""
    report_warning(text)


def _fingerprint(path: str, config: PreTrainedConfig) -> str:
    """Return the commit of a hub model, or a hash of a folder's files."""
    if not Path(path).is_dir():
        return f"{path}@{config._commit_hash}"
    return folder_fingerprint(Path(path))


def _loading_error(path: str, error: Exception) -> UserError:
    """Return one line about a checkpoint that cannot be loaded."""
    # transformers wraps what the hub raised, sometimes several times, so the classes of the whole
    # chain of errors decide; by name, because they come from optional libraries.
    kinds = _class_names_in_chain(error)
    if Path(path).is_dir():
        return UserError(f"{path}: not a checkpoint of transformers: {first_line(error)}")
    if "GatedRepoError" in kinds:
        return UserError(
            f"{path}: gated on the hub: accept its licence there, "
            "then set HF_TOKEN or run `hf auth login`"
        )
    if "RepositoryNotFoundError" in kinds or "RevisionNotFoundError" in kinds:
        return UserError(
            f"{path}: no such model or revision on the hub (a private one needs HF_TOKEN)"
        )
    if kinds & UNREACHABLE_ERRORS:
        return UserError(
            f"{path}: not in the local cache, and the hub cannot be reached; "
            "check the network, or give a folder"
        )
    return UserError(f"{path}: cannot be loaded: {first_line(error)}")


def _class_names_in_chain(error: BaseException) -> set[str]:
    """Return the class names of an error, of its causes and of their base classes."""
    names: set[str] = set()
    current: BaseException | None = error
    while current is not None:
        names.update(kind.__name__ for kind in type(current).__mro__)
        current = current.__cause__ or current.__context__
    return names
