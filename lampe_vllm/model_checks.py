"""Checks of a model and a method before anything is loaded: each refusal is one line.

They need no vLLM. ``lampe-eval serve`` makes them before it starts vLLM, and the plug-in makes them
again, for whoever starts vLLM himself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lampe.encoding import Encoding
from lampe.errors import BadSetting, UnsupportedModel
from lampe.geometry import Geometry, geometry_of, ropes_of
from lampe.methods import Method
from lampe.patching.layer_encodings import require_coverage
from lampe_vllm.served_method import ServedMethod

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TRIED_ARCHITECTURES = {
    *("CohereForCausalLM", "Gemma2ForCausalLM", "Glm4ForCausalLM", "GptOssForCausalLM"),
    *("GraniteForCausalLM", "LlamaForCausalLM", "MistralForCausalLM"),
    *("Qwen2ForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "StableLmForCausalLM"),
}
"""Architectures that give the same tokens in vLLM as in transformers (``tests/vllm``)."""


UNROTATED_LAYERS = {"cohere2", "exaone4"}
"""Models that do not rotate in some layers, which their configurations do not say."""


def check_model(config: PreTrainedConfig, served: ServedMethod, max_length: int) -> None:
    """Refuse a model or a method that cannot be served.

    Args:
        config: the model's configuration.
        served: the method.
        max_length: tokens of prompt and answer at most.

    Raises:
        LampeError: for a model that vLLM does not compute as its configuration says, or a method
            that cannot read prompts of every length.
    """
    fault = _fault_of_model(config)
    if fault:
        raise UnsupportedModel(f"cannot serve {config.model_type!r}: it {fault}")
    tried = set(getattr(config, "architectures", None) or ()) & TRIED_ARCHITECTURES
    if not tried and not served.force:
        raise UnsupportedModel(
            f"cannot serve {config.model_type!r}: its architecture "
            f"{getattr(config, 'architectures', None)} was not tried; give --force to serve it "
            "all the same, and compare its answers"
        )
    check_method(served.build(), geometry_of(config, served.window), max_length)


def _fault_of_model(config: PreTrainedConfig) -> str | None:
    """Return what a model does that cannot be served, or None."""
    text = config.get_text_config(decoder=True)
    if getattr(config, "is_encoder_decoder", False):
        return "has an encoder"
    if getattr(text, "kv_lora_rank", None):
        return "has latent attention (MLA)"
    if getattr(text, "num_kv_shared_layers", 0):
        return "shares keys between layers"
    ropes = [tuple(sorted(rope.items(), key=str)) for rope in ropes_of(config)]
    if len({str(rope) for rope in ropes}) > 1:
        return f"has {len(ropes)} ropes; it must have one"
    rotated = getattr(text, "no_rope_layers", None)
    if (rotated and not all(rotated)) or text.model_type in UNROTATED_LAYERS:
        return "has layers without a rope"
    return None


def check_method(method: Method, geometry: Geometry, max_length: int) -> None:
    """Refuse a method that fails at some length: a server cannot say so in the middle of an answer.

    Raises:
        BadSetting: with the length at which it fails.
    """
    # A rule of a release may fail at a length that a setting names, and nowhere else.
    lengths = {*sampled_lengths(geometry.window, max_length)}
    for value in method.settings.values():
        if isinstance(value, int):
            lengths |= {value - 1, value, value + 1}
    for length in sorted(length for length in lengths if 1 <= length <= max_length):
        try:
            require_coverage(method, method.encode(geometry, length).plan)
            method.decode_plan(geometry, length, max(length + 1, max_length))
        except BadSetting as error:
            raise BadSetting(
                f"cannot serve {method.label} up to {max_length} tokens: at a prompt of {length} "
                f"tokens: {error}"
            ) from None


def depends_on_length(method: Method, geometry: Geometry, max_length: int) -> bool:
    """Return whether prompts of different lengths differ in rope, plan or attention factor."""
    encodings: Iterator[Encoding] = (
        method.encode(geometry, length) for length in sampled_lengths(geometry.window, max_length)
    )
    first = next(encodings)
    return any(encoding != first for encoding in encodings)


def sampled_lengths(window: int, max_length: int) -> list[int]:
    """Return lengths of prompts that stand for all up to ``max_length``."""
    # Methods change at the window and at their settings, which are shares of it.
    lengths = {1, 2, max_length}
    step = max(1, window // 16)
    for length in range(step, min(max_length, 4 * window) + 1, step):
        lengths |= {length - 1, length, length + 1}
    while length * 2 < max_length:
        length *= 2
        lengths |= {length, length + 1}
    return sorted(length for length in lengths if 1 <= length <= max_length)


def check_options(
    served: ServedMethod,
    config: PreTrainedConfig,
    max_length: int,
    *,
    prefix_caching: bool,
    cache_dtype: Any,
    salted: bool,
) -> None:
    """Refuse options of vLLM under which a method would be wrong.

    Args:
        served: the method.
        config: the model's configuration.
        max_length: tokens of prompt and answer at most.
        prefix_caching: whether requests share the keys of equal beginnings.
        cache_dtype: vLLM's ``--kv-cache-dtype``.
        salted: whether only requests of equal encodings share keys.

    Raises:
        BadSetting: for such an option.
    """
    if cache_dtype != "auto":
        raise BadSetting(
            f"--kv-cache-dtype {cache_dtype}: the cache must have the data type of the model; "
            "leave it out"
        )
    if not prefix_caching:
        return
    method, geometry = served.build(), geometry_of(config, served.window)
    if any(
        method.decode_plan(geometry, length, length + 1) is not None
        for length in sampled_lengths(geometry.window, max_length)
    ):
        raise BadSetting(
            f"prefix caching is wrong under {served.name}, whose answers have plans of their own; "
            "leave it off"
        )
    if not salted and depends_on_length(method, geometry, max_length):
        raise BadSetting(
            f"prefix caching is wrong under {served.name}, whose positions depend on the prompt's "
            "length; give --prefix-caching salted, or off (vLLM: --no-enable-prefix-caching)"
        )
