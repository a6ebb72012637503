"""Whether a type of model can be patched, and if not why: found out on a tiny model of it."""

import functools
import warnings
from dataclasses import dataclass

from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.utils import logging

import lampe
from lampe.patching.layer_probe import LayerPositions, ProbedLayers
from tests.architectures.shrink import WINDOW, tiny_model

SUPPORTED, REFUSED, UNTRIED = "supported", "refused", "not tried"

UNREPEATED = frozenset({"moshi"})
"""Types whose answers through the cache are, unpatched, not those of recomputation."""


@dataclass(frozen=True)
class Verdict:
    """What came of a type; ``said`` is what its layers do, or the reason."""

    state: str
    said: str


@functools.cache
def verdict(name: str) -> Verdict:
    """The verdict on a type of the installed transformers."""
    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            lampe.geometry_of(CONFIG_MAPPING[name](), WINDOW)
            model = tiny_model(name)
        except lampe.UnsupportedModel as error:
            return Verdict(REFUSED, str(error))
        except Exception as error:
            return Verdict(UNTRIED, f"no tiny model: {_line(error)}")
        return _patched(model)


def _patched(model: PreTrainedModel) -> Verdict:
    try:
        with lampe.patch(model, "lampe", window=WINDOW) as handle:
            return Verdict(SUPPORTED, _layers(handle.layers))
    except lampe.UnsupportedModel as error:
        return Verdict(REFUSED, str(error))


def _layers(layers: ProbedLayers) -> str:
    """The kinds of layers, in the order in which they come."""
    return "; ".join(dict.fromkeys(_layer(layers, layer) for layer in layers.by_module.values()))


def _layer(layers: ProbedLayers, layer: LayerPositions) -> str:
    if layer.rope is None:
        turns = "not rotated"
    else:
        geometry = layers.geometries[layer.rope]
        part = (
            ""
            if geometry.dim == geometry.head_dim
            else f", {geometry.dim} of {geometry.head_dim} dimensions"
        )
        several = f" {layer.rope + 1}" if len(layers.geometries) > 1 else ""
        turns = f"rope{several} {geometry.layout}{part}{' from the end' if geometry.begin else ''}"
    sight = {None: "", False: " in a sliding window", True: " in chunks"}[
        layer.local and layer.local.chunked
    ]
    return turns + sight


def _line(error: Exception) -> str:
    """The last line of an error, where those of validators say what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [
        type(error).__name__
    ]
    return " ".join(lines)[:160].replace("|", "/")
