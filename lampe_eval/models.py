"""Models by card, folder, file or hub id: first described from their configuration, then loaded."""

import copy
import functools
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    logging,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils.hub import cached_file

import lampe
from lampe.errors import first_line
from lampe_eval import checkpoint_config, checkpoint_files
from lampe_eval.cards import PACKAGE, ModelCard
from lampe_eval.device_memory import is_out_of_memory
from lampe_eval.errors import UserError, first_names, report_warning
from lampe_eval.gguf_files import check_gguf
from lampe_eval.records import ModelRecord

ALL_GPUS = "spread"
"""Device name for a model that is spread over all GPUs of this process."""
TOKENIZER_FILES = ("tokenizer*", "*.model", "vocab*", "*.tiktoken")
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
        gguf: GGUF file of the folder or repository that holds the model; empty for others.
        dtype: data type of the weights as torch names it, or "auto" for the checkpoint's own, which
            is float32 for a GGUF file.
        geometry: window and rope.
        settings: settings of methods by method name, from the model's card.
        commit: commit of the hub repository; None for a folder and a GGUF file.
    """

    name: str
    path: str
    revision: str
    gguf: str
    dtype: str
    geometry: lampe.Geometry
    settings: Mapping[str, Mapping[str, Any]]
    commit: str | None

    @property
    def file(self) -> str:
        """Return the folder, hub id or GGUF file, as messages name it."""
        return _file_name(self.path, self.gguf)

    # Only runs need it, and large weights take a while to read.
    @functools.cached_property
    def fingerprint(self) -> str:
        """Commit of the hub, or a hash of a GGUF file or of a folder's files.

        Raises:
            UserError: if a file cannot be read.
        """
        if self.gguf:
            file = _gguf_path(self.path, self.revision, self.gguf)
            return checkpoint_files.fingerprint(file.parent, file.name)
        if not Path(self.path).is_dir():
            return f"{self.path}@{self.commit}"
        return checkpoint_files.fingerprint(Path(self.path))

    @property
    def described(self) -> ModelRecord:
        """Return the properties that scores depend on, as a run records them."""
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
    path = checkpoint_files.checkpoint_path(card)
    gguf = checkpoint_files.gguf_file(card)
    config = _load_config(path, card.revision, gguf)
    try:
        geometry = lampe.geometry_of(config, window or card.window)
        geometry.rope(geometry.window)
    except lampe.LampeError as error:
        raise UserError(f"model {label!r}: {error}") from None
    if not (window or card.window):
        note = geometry.window_note or _default_window_note(
            path, card.revision, gguf, config, geometry
        )
        if note:
            _warn_once(f"model {label!r}: {note.replace('window=', '--window ')}")
    commit = getattr(config, "_commit_hash", None)  # configurations of folders have none
    dtype = dtype or card.dtype
    return ModelSource(label, path, card.revision, gguf, dtype, geometry, card.settings, commit)


def load_config(source: ModelSource) -> PreTrainedConfig:
    """Return the configuration of a model."""
    return _load_config(source.path, source.revision, source.gguf)


def load_model(source: ModelSource, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model, ready for inference, and its tokenizer.

    Args:
        source: the model.
        device: device as torch names it, or `ALL_GPUS`.

    Raises:
        UserError: if weights or tokenizer cannot be loaded, or the device refuses the model.
    """
    tokenizer = load_tokenizer(source)
    config = _load_config(source.path, source.revision, source.gguf)
    checkpoint_config.refuse_beyond_memory(source.file, config, _parameter_bytes(source, config))
    place, options = loading_arguments(source.path, source.revision, source.gguf)
    dtype = source.dtype
    if source.gguf:
        dtype = "float32" if dtype == "auto" else dtype
        # Versions of transformers before this class always dequantize.
        if hasattr(transformers, "GgufConfig"):
            options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    # Only redirecting the error stream hides the progress bar of transformers for GGUF files.
    hidden = redirect_stderr(io.StringIO()) if source.gguf else nullcontext()
    with _reading(source.file, "weights"), hidden:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            place,
            dtype=dtype,
            device_map="auto" if device == ALL_GPUS else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            **options,
        )
    model, report = loaded
    # transformers initializes missing weights at random and only logs it.
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(f"{source.file}: the checkpoint lacks weights: {first_names(missing)}")
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, stored, described = mismatched[0]
        raise UserError(
            f"{source.file}: its weights and its configuration are of different models: {name} has "
            f"shape {tuple(stored)} in the weights and {tuple(described)} by the configuration"
        )
    unexpected = sorted(report["unexpected_keys"])
    if unexpected:
        _warn_once(
            f"{source.file}: {len(unexpected)} weights of the checkpoint are unknown to the model "
            f"and not used: {first_names(unexpected)}"
        )
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
    folder = Path(source.path)
    has_files = any(any(folder.glob(name)) for name in TOKENIZER_FILES)
    if folder.is_dir() and not source.gguf and not has_files:
        raise UserError(f"{folder}: has no tokenizer (such as tokenizer.json); copy it there")
    place, options = loading_arguments(source.path, source.revision, source.gguf)
    with _reading(source.file, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place, **options)
        # Some settings of a wrong type are noticed only here.
        tokenizer("text")
    return tokenizer


def load_generation_config(source: ModelSource) -> GenerationConfig | None:
    """Return what a checkpoint recommends for generation; None where it recommends nothing."""
    try:
        return GenerationConfig.from_pretrained(source.path, revision=source.revision)
    except OSError:
        return None


def cost_of(source: ModelSource) -> ModelCost:
    """Return the sizes of a model, from its configuration alone."""
    config = _load_config(source.path, source.revision, source.gguf)
    # On the meta device parameters have shapes and take no memory.
    with _reading(source.file, "configuration"), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    text = config.get_text_config()
    layers = text.num_hidden_layers
    heads = text.num_attention_heads
    key_value_heads = getattr(text, "num_key_value_heads", None) or heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    parameter_bytes = _parameter_bytes(source, config)
    return ModelCost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        parameter_bytes=parameter_bytes,
        # 2: a key and a value
        cache_bytes=2 * layers * key_value_heads * head_dim * parameter_bytes,
        # 4: a multiplication and an addition, for the scores and for the sum of values
        attention_operations=4 * layers * heads * head_dim,
    )


def weights_dtype(source: ModelSource) -> str:
    """Return the data type of the weights once they are loaded, as torch names it."""
    return _weights_dtype(source, load_config(source))


def _weights_dtype(source: ModelSource, config: PreTrainedConfig) -> str:
    if source.dtype != "auto":
        return source.dtype
    return str(config.dtype or "float32").removeprefix("torch.")


def _parameter_bytes(source: ModelSource, config: PreTrainedConfig) -> int:
    """Return the bytes of a parameter once the weights are loaded."""
    size: int = getattr(torch, _weights_dtype(source, config)).itemsize
    return size


def _silence_libraries() -> None:
    """Silence transformers and the hub: our own errors say in one line what they log."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    critical = 50
    huggingface_hub.logging.set_verbosity(critical)
    # Of torch, on pickles that it then refuses to read.
    warnings.filterwarnings("ignore", message="Detected pickle protocol")


@contextmanager
def _reading(path: str, part: str) -> Iterator[None]:
    """Turn whatever a library raises on a part of a checkpoint into one line.

    A checkpoint can be broken in the ways of every library that reads it, and their errors have no
    common class. Nothing but calls of such libraries belongs here: a bug of ours would be blamed on
    the checkpoint.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _loading_error(path, part, error) from None


def _file_name(path: str, gguf: str) -> str:
    if not gguf:
        return path
    return str(Path(path) / gguf) if Path(path).is_dir() else f"{path}:{gguf}"


def loading_arguments(path: str, revision: str, gguf: str) -> tuple[str, dict[str, Any]]:
    """Return the place and options from which transformers loads each part of a checkpoint."""
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    if not gguf:
        return path, options
    # In a GGUF file's own folder transformers prefers a tokenizer.json, which may be of another
    # model; in this package's it finds none.
    return str(PACKAGE), {**options, "gguf_file": str(_gguf_path(path, revision, gguf).absolute())}


def _gguf_path(path: str, revision: str, gguf: str) -> Path:
    """Return where a GGUF file is on this machine; it is fetched if it is on the hub."""
    if Path(path).is_dir():
        return Path(path) / gguf
    with _reading(_file_name(path, gguf), "file"):
        return Path(str(cached_file(path, gguf, revision=revision)))


def _load_config(path: str, revision: str, gguf: str) -> PreTrainedConfig:
    if not gguf:
        if Path(path).is_dir():
            checkpoint_files.check_files(Path(path))
        return _read_config(path, revision, "")
    file = _gguf_path(path, revision, gguf)
    scaling = check_gguf(file)
    state = file.stat()
    # A copy, because transformers writes into a configuration while it loads a model.
    config = copy.deepcopy(
        _read_gguf_config(path, revision, gguf, state.st_size, state.st_mtime_ns)
    )
    rope = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    if scaling and rope.get("rope_type", "default") == "default":
        raise UserError(
            f"{_file_name(path, gguf)}: its rope is scaled ({scaling}), which transformers ignores "
            f"in GGUF files of this architecture ({config.model_type}); use the model's checkpoint "
            "in safetensors"
        )
    return config


# Once for a file's size and time of change: a large vocabulary takes transformers seconds, and a
# command describes, measures and loads a model.
@functools.lru_cache(maxsize=8)
def _read_gguf_config(
    path: str, revision: str, gguf: str, size: int, time: int
) -> PreTrainedConfig:
    return _read_config(path, revision, gguf)


def _read_config(path: str, revision: str, gguf: str) -> PreTrainedConfig:
    name = _file_name(path, gguf)
    with _reading(name, "header" if gguf else "config.json"):
        place, options = loading_arguments(path, revision, gguf)
        config: PreTrainedConfig = AutoConfig.from_pretrained(place, **options)
        checkpoint_config.check_config(path, config)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(f"{name}: a {config.model_type!r} model is no causal language model")
    return config


def _default_window_note(
    path: str, revision: str, gguf: str, config: PreTrainedConfig, geometry: lampe.Geometry
) -> str:
    """Return a sentence where the window is a default of transformers, not of the checkpoint."""
    text = config.get_text_config(decoder=True)
    if getattr(text, "max_position_embeddings", None) != geometry.window:
        return ""
    place, options = loading_arguments(path, revision, gguf)
    written, _ = PreTrainedConfig.get_config_dict(place, **options)
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


def _loading_error(path: str, part: str, error: Exception) -> UserError:
    """Return one line about a checkpoint that cannot be loaded."""
    if is_out_of_memory(error):
        return UserError(
            f"{path}: too little memory to load its {part} ({first_line(error)}); "
            "try a smaller --dtype, such as bfloat16, or a smaller model"
        )
    # transformers wraps what the hub raised, sometimes several times, so the classes of the whole
    # chain of errors decide; by name, because they come from optional libraries.
    kinds = _class_names_in_chain(error)
    if "UnpicklingError" in kinds:
        return UserError(
            f"{path}: its weights are pickles that are damaged, or hold more than tensors and "
            "could run code; they are not loaded: use a checkpoint in safetensors"
        )
    if "trust_remote_code" in str(error):
        return UserError(
            f"{path}: comes with code of its own, which is never run; use a checkpoint of a type "
            "that transformers knows"
        )
    if Path(path).exists():
        return UserError(
            f"{path}: not a checkpoint of transformers ({part}): {_first_words(error)}"
        )
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


def _first_words(error: Exception) -> str:
    """Return a message up to its second line, which in some libraries says what is wrong."""
    lines = str(error).strip().splitlines()[:2]
    if not lines:
        return type(error).__name__
    # Messages of these classes are a bare name or value.
    kind = f"{type(error).__name__}: " if isinstance(error, LookupError) else ""
    return kind + " ".join(line.strip() for line in lines)


def _class_names_in_chain(error: BaseException) -> set[str]:
    """Return the class names of an error, of its causes and of their base classes."""
    names: set[str] = set()
    current: BaseException | None = error
    while current is not None:
        names.update(kind.__name__ for kind in type(current).__mro__)
        current = current.__cause__ or current.__context__
    return names
