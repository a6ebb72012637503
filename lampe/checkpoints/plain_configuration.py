"""Plain configurations: rope parameters by which transformers itself does what a method does."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lampe.errors import PositionWarning
from lampe.geometry import Geometry
from lampe.methods import Method
from lampe.patching.handle import Handle
from lampe.patching.layer_probe import random_ids, relative_error, tolerance_of

TOKENS = 48
"""Tokens on which a configuration is compared with the patched model."""
EXTENDED_TYPES = ("default", "llama3", "yarn")
"""Types of ropes for which ``max_position_embeddings`` is the extended length.

By the convention of transformers, "linear" and "dynamic" scale the length that it names.
"""


def plain_configuration(
    model: PreTrainedModel, handle: Handle, max_length: int | None
) -> dict[str, Any] | None:
    """Return what a configuration needs to do what a patch does; None where none does the same.

    Args:
        model: the patched model.
        handle: its patch.
        max_length: tokens of the longest prompt; None where it is not stated.
    """
    config = model.config
    # A part's configuration would have to be changed inside of the whole; quantized weights cannot
    # be loaded from memory for the comparison.
    if config.get_text_config(decoder=True) is not config or hasattr(config, "quantization_config"):
        return None
    layers, window = handle.layers, handle.geometry.window
    rotated = [layer for layer in layers.by_module.values() if layer.rope is not None]
    # A configuration has one rope for all layers, and a patch leaves short-sighted ones alone.
    if len(layers.geometries) != 1 or len(layers.extendable(window)) != len(rotated):
        return None
    length = max_length or 2 * window
    parameters = _rope_parameters(handle.method, handle.geometry, length)
    follows_length = parameters != _rope_parameters(handle.method, handle.geometry, 2 * length)
    if parameters is None or (follows_length and max_length is None):
        return None
    changes: dict[str, Any] = {"rope_parameters": parameters}
    factor = getattr(handle.method.resolved(handle.geometry, length), "factor", 1)
    kind = parameters.get("rope_type", "default")
    if kind in EXTENDED_TYPES and factor > 1:
        changes["max_position_embeddings"] = round(factor * window)
    if kind == "dynamic":
        # The length from which it grows.
        changes["max_position_embeddings"] = window
    same = _computes_the_same(model, handle, changes, length if follows_length else TOKENS)
    return changes if same else None


def _rope_parameters(method: Method, geometry: Geometry, length: int) -> dict[str, Any] | None:
    parameters: Mapping[str, Any] | None = method.resolved(geometry, length).rope_parameters(
        geometry, length
    )
    if parameters is None:
        return None
    return {name: value for name, value in parameters.items() if value is not None}


@torch.no_grad()
def _computes_the_same(
    model: PreTrainedModel, handle: Handle, changes: Mapping[str, Any], length: int
) -> bool:
    """Return whether an unpatched model with the changed configuration has the same logits."""
    config = copy.deepcopy(model.config)
    for name, value in changes.items():
        setattr(config, name, copy.deepcopy(value))
    config._attn_implementation = "eager"
    # Tensors of the state are taken as they are, so the weights are in memory once.
    try:
        configured = type(model).from_pretrained(
            None, config=config, state_dict=model.state_dict(), dtype=model.dtype
        )
    # Some types cannot be built with some ropes, for reasons that have no common class.
    except Exception:
        return False
    ids = random_ids(model, TOKENS, seed=0)
    with handle.prompt(length), warnings.catch_warnings():
        warnings.simplefilter("ignore", PositionWarning)
        expected: Tensor = model(ids, use_cache=False).logits.float()
    actual: Tensor = configured(ids.to(configured.device), use_cache=False).logits.float()
    return relative_error(expected, actual.to(expected.device)) < tolerance_of(model.dtype)
