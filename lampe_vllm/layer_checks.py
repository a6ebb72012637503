"""Checks of an engine and its layers: attention that the plug-in does not compute is refused.

They run while vLLM makes the model, before it loads weights.
"""

import dataclasses
from typing import Any

import torch

from lampe.errors import UnsupportedModel
from lampe.geometry import Geometry
from lampe_vllm import model_checks
from lampe_vllm.rotary import LIVE, modules_of
from lampe_vllm.served_method import ServedMethod

TOLERANCE = 1e-3
"""Difference of cos and sin: a table in bfloat16 is read after it was rounded, ours before."""


def check_engine(vllm_config: Any, served: ServedMethod) -> None:
    """Refuse a method, a model or options of vLLM that cannot be served.

    Raises:
        LampeError: with one line that says what to do.
    """
    model = vllm_config.model_config
    model_checks.check_model(model.hf_config, served, model.max_model_len)
    model_checks.check_options(
        served,
        model.hf_config,
        model.max_model_len,
        prefix_caching=vllm_config.cache_config.enable_prefix_caching,
        cache_dtype=vllm_config.cache_config.cache_dtype,
        salted=is_salted(vllm_config.scheduler_config.scheduler_cls),
    )
    speculation = vllm_config.speculative_config
    if speculation is not None and speculation.method != "ngram":
        raise UnsupportedModel(
            f"--speculative-config: {speculation.method!r} was not tried; use the method 'ngram'"
        )
    if model.rswa_window is None:
        raise UnsupportedModel(
            "vLLM does not hand over the length of each prompt; add rswa_window=1 to --hf-overrides"
        )


def is_salted(scheduler: Any) -> bool:
    """Return whether a scheduler, a class or its name, salts the cache."""
    name = scheduler if isinstance(scheduler, str) else getattr(scheduler, "__module__", "")
    return name.startswith("lampe_vllm.")


def check_layer(layer: Any) -> None:
    """Refuse a layer whose attention does something that the plug-in does not compute.

    Args:
        layer: vLLM's implementation of attention.

    Raises:
        UnsupportedModel: for such a layer.
    """
    faults = {
        "biases logits by distance (ALiBi)": layer.alibi_slopes is not None,
        "shares the keys of another layer": layer.kv_sharing_target_layer_name is not None,
        "is no attention of a decoder": layer.attn_type != "decoder",
        "has a KV cache of other numbers than the model": layer.is_fp8_kv_cache,
    }
    for fault, applies in faults.items():
        if applies:
            raise UnsupportedModel(f"cannot serve this model: a layer {fault}")


def rope_of_model(model_config: Any, geometry: Geometry) -> Geometry:
    """Return a model's geometry with the pairs of dimensions that vLLM rotates.

    Args:
        model_config: vLLM's description of the model.
        geometry: what the model's configuration describes.

    Raises:
        UnsupportedModel: unless the model has one rope, which the configuration describes.
    """
    modules = modules_of(model_config)
    other = [type(module).__name__ for module in modules if module not in LIVE]
    if other:
        raise UnsupportedModel(
            f"cannot serve this model: it rotates by vLLM's {other[0]}, or another engine of this "
            "process does; give each engine a process of its own"
        )
    kinds = {(module.rotary_dim, module.is_neox_style, module.head_size) for module in modules}
    tables = [module.trained_table()[:2].float() for module in modules]
    if not modules or len(kinds) > 1 or any(not torch.equal(t, tables[0]) for t in tables):
        raise UnsupportedModel(
            f"cannot serve this model: it has {len(modules)} ropes in vLLM; it must have one"
        )
    ((rotary_dim, is_neox, _),) = kinds
    geometry = dataclasses.replace(
        geometry,
        head_dim=model_config.get_head_size(),
        rotary_dim=rotary_dim,
        layout="half" if is_neox else "interleaved",
    )
    rope = geometry.rope(1)
    angle = torch.tensor(rope.inv_freq)
    expected = torch.cat((angle.cos(), angle.sin())) * rope.scaling
    if expected.shape != tables[0][1].shape or (expected - tables[0][1]).abs().max() > TOLERANCE:
        raise UnsupportedModel(
            "cannot serve this model: vLLM rotates by other frequencies than its configuration "
            "describes"
        )
    return geometry
