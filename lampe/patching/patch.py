"""Patching a live transformers model: a position method in, and out again.

transformers looks attention up by name and asks a rotary module for cos and sin. A patch therefore has two parts:
forward hooks make every rotary module answer with the identity (cos 1, sin 0), and the registered attention rotates by
the plan instead, each layer as the probe found it to (``lampe.patching.layer_probe``). No model code is copied, the cache holds
unrotated keys in transformers' own classes, and taking the patch off restores the model exactly.

A method changes layers that see further than the window. A layer with a sliding window, or chunks, no larger than that
meets no distance it was not trained on, so it goes on as it was: true distances, its own rope, its own limit. A layer
that does not turn queries and keys has no positions to change.
"""

import dataclasses
import warnings
from typing import Any

import torch
from transformers import PreTrainedModel

from lampe.attention import AUTO, BackendDispatcher
from lampe.errors import BadSetting, PositionWarning, UnsupportedModel
from lampe.geometry import geometry_of
from lampe.methods import Method, method_of
from lampe.patching.handle import Handle, outermost_handle
from lampe.patching.layer_probe import probe_layers
from lampe.patching.patch_checks import check_causal, check_exact, check_geometry


def patch(
    model: PreTrainedModel,
    method: str | Method = "lampe",
    *,
    window: int | None = None,
    attention: str = AUTO,
    check: bool = True,
    **settings: Any,
) -> Handle:
    """Gives a model's attention the positions of a method, in place.

    A handle follows one sequence of calls at a time: a call of ``generate``, on an empty cache, or over several new
    tokens begins a prompt, and its length holds for the single tokens that follow. So finish one answer before you
    begin the next, and where you feed a prompt in pieces yourself state its length with ``handle.prompt``.
    transformers refuses ``generate_batch`` of a patched model: its paged cache goes with attention of its own.

    Args:
        model: a causal decoder with rotary positions, loaded by transformers.
        method: a method or its name.
        window: tokens the model was pretrained on; read from its configuration where not given.
        attention: the backend, one of ``lampe.BACKENDS``; "auto" is the fastest that can take a call.
        check: whether to prove on a few tokens that the patch is exact and causal (see ``lampe.patching.patch_checks``).
        settings: hyper-parameters of a method given by name.

    Returns:
        The handle; ``handle.unpatch()`` or ``lampe.unpatch(model)`` takes the patch off.

    Raises:
        UnknownName: for a method, setting or backend that does not exist.
        BadSetting: for a hyper-parameter the method cannot take.
        UnsupportedModel: for a model that cannot be patched exactly.
    Warns:
        PositionWarning: where the method changes nothing, for no layer sees further than the window.
    """
    chooser = BackendDispatcher(attention)
    if isinstance(method, str):
        method = method_of(method, **settings)
    elif settings:
        raise BadSetting(
            f"settings ({', '.join(settings)}) go with a method's name; this method has its own already"
        )
    below = outermost_handle(model)
    geometry = geometry_of(model.config, window)
    layers = below.layers if below else probe_layers(model, geometry)
    if check and not below:
        original = method_of("original")
        check_exact(
            model, layers.of, lambda: Handle(model, original, layers, geometry.window, chooser)
        )
    if check:
        main = dataclasses.replace(
            layers.geometries[layers.main_geometry(geometry.window)], window=geometry.window
        )
        small, tokens = check_geometry(method, main)
        check_causal(
            model, layers.of, lambda: Handle(model, method, layers, small.window, chooser), tokens
        )
    handle = Handle(model, method, layers, geometry.window, chooser)
    if not layers.extendable(geometry.window):
        warnings.warn(
            f"{type(model).__name__}: no layer with rotary positions sees further than the window of "
            f"{geometry.window}, so {method.label} changes nothing; load the model without its sliding window if it "
            "is to be extended",
            PositionWarning,
            stacklevel=2,
        )
    return handle


@torch.no_grad()
def explain(model: PreTrainedModel) -> str:
    """Which backend attends in a patched model, and why the faster ones do not, found out on a few tokens.

    Raises:
        UnsupportedModel: where the model is not patched.
    """
    handle = _patch_of(model)
    attention = BackendDispatcher(handle.attention)
    with (
        Handle(model, handle.method, handle.layers, handle.geometry.window, attention),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", PositionWarning)
        ids = torch.zeros(1, 3, dtype=torch.long, device=model.device)
        cache = model(ids[:, :2], use_cache=True).past_key_values
        model(ids[:, 2:], past_key_values=cache, use_cache=True)
    return "\n".join(str(choice) for choice in attention.made)


def unpatch(model: PreTrainedModel) -> None:
    """Takes the outermost patch off a model.

    Raises:
        UnsupportedModel: where the model is not patched.
    """
    _patch_of(model).unpatch()


def _patch_of(model: PreTrainedModel) -> Handle:
    handle = outermost_handle(model)
    if handle is None:
        raise UnsupportedModel(f"this {type(model).__name__} is not patched")
    return handle
