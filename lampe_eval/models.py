"""A model by card, folder or hub id: its description first, then the model and its tokenizer."""

import hashlib
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
from lampe_eval.cards import find_model_card
from lampe_eval.errors import UserError
from lampe_eval.pocket import WEIGHTS

ALL_GPUS = "spread"


@dataclass(frozen=True)
class ModelSource:
    """Where a model is and what is known of it before its weights are loaded.

    Attributes:
        name: as tables call it.
        path: folder or hub id.
        geometry: window and rope.
        settings: hyper-parameters by method name.
        fingerprint: the hub's commit, or a digest of a folder's weights.
    """

    name: str
    path: str
    revision: str
    dtype: str
    geometry: lampe.Geometry
    settings: Mapping[str, Mapping[str, Any]]
    fingerprint: str

    @property
    def described(self) -> dict[str, Any]:
        """What a score depends on."""
        return {
            "fingerprint": self.fingerprint,
            "dtype": self.dtype,
            "window": self.geometry.window,
        }


@dataclass(frozen=True)
class ModelCost:
    """What a model costs.

    Attributes:
        parameters: of all its layers.
        itemsize: bytes of one.
        cached: bytes of keys and values for a token.
        attended: multiplications and additions of attention for a pair of tokens.
    """

    parameters: int
    itemsize: int
    cached: int
    attended: int


def find_model(name: str, *, window: int | None = None, dtype: str | None = None) -> ModelSource:
    """Describes a model from its configuration alone.

    Args:
        name: of a card, a card's file, a folder or a hub id.
        window: tokens of pretraining, before what the card or configuration says.
        dtype: before what the card says.

    Raises:
        UserError: for a name that is none of these, and for a model that cannot be used.
    """
    _quiet_hub()
    card, label = find_model_card(name)
    path = str(WEIGHTS) if card.path == "pocket" else card.path
    config = _config(path, card.revision)
    try:
        geometry = lampe.geometry_of(config, window or card.window)
    except lampe.UnsupportedModel as error:
        raise UserError(f"model {name!r}: {error}") from None
    dtype = dtype or card.dtype
    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UserError(
            f"--dtype: {dtype!r} is no type of torch's; use auto, float32, bfloat16 or float16"
        )
    return ModelSource(
        label, path, card.revision, dtype, geometry, card.settings, _fingerprint(path, config)
    )


def load_model(source: ModelSource, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, ready to be asked, on a device as torch names it, or ``SPREAD`` over all GPUs of this process.

    Raises:
        UserError: where weights, tokenizer or device cannot be had.
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
    except (
        Exception
    ) as error:  # a checkpoint can be broken in the ways of every library that reads it
        raise _loading_error(source.path, error) from None
    model, report = loaded
    if lacking := sorted(report["missing_keys"]) or sorted(report["mismatched_keys"]):
        raise UserError(
            f"{source.path}: the checkpoint lacks weights: {', '.join(map(str, lacking[:3]))}"
        )
    try:
        return (model if device == ALL_GPUS else model.to(device)).eval(), tokenizer
    except Exception as error:  # what a device refuses, each backend says in its own way
        raise UserError(
            f"model {source.name!r} on device {device!r}: {_first_line(error)}"
        ) from None


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        UserError: where it cannot be had.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.path, revision=source.revision
        )
    except Exception as error:  # as above
        raise _loading_error(source.path, error) from None
    return tokenizer


def size_of(source: ModelSource) -> ModelCost:
    """Parameters and cache of a model, from its configuration alone."""
    config = _config(source.path, source.revision)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    named = (
        str(config.dtype or "float32").removeprefix("torch.")
        if source.dtype == "auto"
        else source.dtype
    )
    itemsize: int = getattr(torch, named).itemsize
    return ModelCost(
        parameters=sum(p.numel() for p in model.parameters()),
        itemsize=itemsize,
        cached=2 * text.num_hidden_layers * heads * width * itemsize,
        attended=4 * text.num_hidden_layers * text.num_attention_heads * width,
    )


def _quiet_hub() -> None:
    """Leaves the terminal to our own progress bar and messages."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    huggingface_hub.logging.set_verbosity(
        50
    )  # nothing below critical: our own error says it in one line


def _config(path: str, revision: str) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise _loading_error(path, error) from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(f"{path}: a {config.model_type!r} model is no causal language model")
    return config


def _fingerprint(path: str, config: PreTrainedConfig) -> str:
    """Commit of a hub model; of a folder, a digest of its settings, tokenizer, templates and samples of its weights."""
    if not Path(path).is_dir():
        return f"{path}@{config._commit_hash}"
    digest = hashlib.sha256()
    patterns = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors", "*.bin")
    for pattern in patterns:
        for file in sorted(Path(path).glob(pattern)):
            digest.update(f"{file.name} {file.stat().st_size}".encode())
            _sample(file, digest)
    return f"sha256:{digest.hexdigest()[:16]}"


def _sample(path: Path, digest: Any, pieces: int = 1024, size: int = 2**14) -> None:
    """Feeds a digest with pieces from all over a file; with the whole of a file that is no larger than they are."""
    step = max(size, path.stat().st_size // pieces)
    with path.open("rb") as file:
        for start in range(0, path.stat().st_size, step):
            file.seek(start)
            digest.update(file.read(size))


def _loading_error(path: str, error: Exception) -> UserError:
    """What went wrong while fetching, by the kinds of error in the chain."""
    kinds = set()
    cause: BaseException | None = error
    while cause is not None:
        kinds |= {kind.__name__ for kind in type(cause).__mro__}
        cause = cause.__cause__ or cause.__context__
    if Path(path).is_dir():
        return UserError(f"{path}: not a checkpoint of transformers: {_first_line(error)}")
    if "GatedRepoError" in kinds:
        return UserError(
            f"{path}: gated on the hub: accept its licence there, then set HF_TOKEN or run `hf auth login`"
        )
    if "RepositoryNotFoundError" in kinds or "RevisionNotFoundError" in kinds:
        return UserError(
            f"{path}: no such model or revision on the hub (a private one needs HF_TOKEN)"
        )
    if kinds & {
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "ConnectionError",
        "ConnectError",
        "TransportError",
    }:
        return UserError(
            f"{path}: not in the local cache, and the hub cannot be reached; check the network, or give a folder"
        )
    return UserError(f"{path}: cannot be loaded: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
