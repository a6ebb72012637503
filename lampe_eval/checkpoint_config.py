"""Values of a checkpoint's configuration that transformers itself does not check, or too late.

transformers checks the keys that the class of a model type declares. It skips those of its base
class, whose annotations are texts, and its code for masks and generation reads keys that a class
need not declare. A wrong value of these would be noticed while weights load, or by each sample.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

# pydantic reads typing's own TypedDict only from Python 3.12 on
from typing_extensions import TypedDict

from lampe_eval.cards import plain_message
from lampe_eval.device_memory import total_bytes
from lampe_eval.errors import UserError, suggestion
from lampe_eval.yaml_files import shortened

MOST_LAYERS = 1000
"""More layers than a model has; a broken configuration must not build them."""

SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
)
"""Keys that count rows or columns of weights."""

Size = Annotated[int, Field(ge=1)]


@with_config(ConfigDict(strict=True))
class DecoderConfig(TypedDict, total=False):
    """Keys of a decoder's configuration, with the types that transformers means them to have."""

    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Annotated[int, Field(ge=1, le=MOST_LAYERS)]
    num_attention_heads: Size
    num_key_value_heads: Size | None
    head_dim: Size | None
    intermediate_size: Size | list[Size] | None
    hidden_act: str
    sliding_window: int | None
    attention_chunk_size: int | None
    layer_types: list[str] | None
    is_encoder_decoder: bool
    output_attentions: bool | None
    output_hidden_states: bool | None
    return_dict: bool | None
    use_cache: bool | None
    chunk_size_feed_forward: int | None


DECODER = TypeAdapter(DecoderConfig)


def check_config(path: str, config: PreTrainedConfig) -> None:
    """Refuse values of a configuration that transformers ignores or notices late.

    Args:
        path: folder or hub id of the checkpoint.
        config: its configuration.

    Raises:
        UserError: with key and value.
    """
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None and not isinstance(quantization, Mapping):
        raise UserError(f"{path}/config.json: quantization_config={quantization!r} is no mapping")
    method = (quantization or {}).get("quant_method")
    if method is not None and method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise UserError(f"{path}/config.json: transformers knows no quant_method {method!r}")
    if config.dtype is not None and not isinstance(config.dtype, torch.dtype):
        raise UserError(f"{path}/config.json: dtype={config.dtype!r} is no data type of torch")
    values = _values(config)
    try:
        DECODER.validate_python(values)
    except ValidationError as error:
        fault = error.errors()[0]
        key = str(fault["loc"][0])
        # The message ends with the innermost value.
        problem = plain_message(fault).rpartition(", got ")[0]
        raise UserError(
            f"{path}/config.json: {key}={shortened(repr(values[key]))} {problem}"
        ) from None
    activation = values.get("hidden_act")
    if activation is not None and activation not in ACT2FN:
        raise UserError(
            f"{path}/config.json: hidden_act={activation!r} is no activation of transformers"
            f"{suggestion(activation, ACT2FN)}"
        )


def refuse_beyond_memory(path: str, config: PreTrainedConfig, parameter_bytes: int) -> None:
    """Refuse sizes by which the weights alone are more than the memory of this machine.

    Args:
        path: folder or hub id of the checkpoint.
        config: its configuration, which is checked.
        parameter_bytes: bytes of a parameter.

    Raises:
        UserError: with the sizes; libraries would build the model first, or blame something else.
    """
    # Quantized weights are of other sizes.
    if getattr(config, "quantization_config", None) is not None:
        return
    sizes = {
        key: size for key, size in _values(config).items() if key in SIZES and isinstance(size, int)
    }
    needed = parameter_bytes * _least_parameters(sizes)
    memory = _machine_bytes()
    if needed > memory:
        listed = ", ".join(f"{key}={size}" for key, size in sizes.items())
        raise UserError(
            f"{path}/config.json: {listed}: weights of at least {needed >> 30} GiB, and this "
            f"machine has {memory >> 30}; correct what is wrong, or take a smaller model"
        )


def _least_parameters(sizes: Mapping[str, int]) -> int:
    """Return how many parameters a decoder of these sizes has at least.

    Every type has an embedding, and in each layer at least one matrix of the feed-forward part, one
    of all heads and one of the keys' heads.
    """
    heads = sizes.get("num_attention_heads", 1) + sizes.get("num_key_value_heads", 0)
    columns = heads * sizes.get("head_dim", 1) + sizes.get("intermediate_size", 0)
    rows = sizes.get("vocab_size", 1) + sizes.get("num_hidden_layers", 1) * columns
    return rows * sizes.get("hidden_size", 1)


def _machine_bytes() -> int:
    """Return the memory of this machine and of all of its GPUs, among which weights may spread."""
    gpus = range(torch.cuda.device_count())
    devices = [torch.device("cpu"), *(torch.device("cuda", index) for index in gpus)]
    return sum(total_bytes(device) for device in devices)


def _values(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the values of the declared keys that the configuration of a decoder has."""
    text = config.get_text_config(decoder=True)
    described = text.to_dict()
    # Some types have names of their own for them, such as n_embd.
    names = {key: text.attribute_map.get(key, key) for key in DecoderConfig.__annotations__}
    return {key: described[name] for key, name in names.items() if name in described}
