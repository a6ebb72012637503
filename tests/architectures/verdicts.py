"""Verdicts: whether a model type can be patched, and if not why, tried on a tiny model of it."""

import functools
import warnings
from dataclasses import dataclass

from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.utils import logging

import lampe
from lampe.patching.layer_probe import LayerPositions, ProbedLayers
from tests.architectures.shrink import WINDOW, tiny_model

SUPPORTED, REFUSED, UNTRIED = "supported", "refused", "not tried"

NOT_REPRODUCIBLE = frozenset({"moshi"})
"""Types whose unpatched answers through a KV cache differ from those of recomputation."""


@dataclass(frozen=True)
class Verdict:
    """Verdict on a model type.

    Attributes:
        state: ``SUPPORTED``, ``REFUSED`` or ``UNTRIED``.
        reason: what the type's layers do, or why it cannot be patched or tried.
    """

    state: str
    reason: str


@functools.cache
def verdict(name: str) -> Verdict:
    """Return the verdict on a type of the installed transformers."""
    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            lampe.geometry_of(CONFIG_MAPPING[name](), WINDOW)
            model = tiny_model(name)
        except lampe.UnsupportedModel as error:
            return Verdict(REFUSED, str(error))
        except Exception as error:
            return Verdict(UNTRIED, f"no tiny model: {_one_line(error)}")
        return _patched(model)


def _patched(model: PreTrainedModel) -> Verdict:
    try:
        with lampe.patch(model, "lampe", window=WINDOW) as handle:
            return Verdict(SUPPORTED, _layer_kinds(handle.layers))
    except lampe.UnsupportedModel as error:
        return Verdict(REFUSED, str(error))


def _layer_kinds(layers: ProbedLayers) -> str:
    """Return the kinds of layers, in the order in which they come."""
    kinds = [_layer_kind(layers, layer) for layer in layers.by_module.values()]
    return "; ".join(dict.fromkeys(kinds))


def _layer_kind(layers: ProbedLayers, layer: LayerPositions) -> str:
    if layer.rope is None:
        rotation = "not rotated"
    else:
        geometry = layers.geometries[layer.rope]
        number = f" {layer.rope + 1}" if len(layers.geometries) > 1 else ""
        rotation = f"rope{number} {geometry.layout}"
        if geometry.dim != geometry.head_dim:
            rotation += f", {geometry.dim} of {geometry.head_dim} dimensions"
        if geometry.begin:
            rotation += " from the end"
    if layer.local is None:
        return rotation
    return rotation + (" in chunks" if layer.local.chunked else " in a sliding window")


def _one_line(error: Exception) -> str:
    """Return an error as one line of a table, at most 160 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines or [type(error).__name__])[:160].replace("|", "/")
