"""Patch of a live transformers model: put a position method on, and take it off again.

transformers looks attention up by name, and asks a rotary module for cos and sin. A patch therefore
has two parts. Forward hooks make every rotary module return cos = 1 and sin = 0. The registered
attention rotates by the method's plan instead, in each layer as the probe found it to rotate
(``lampe.patching.layer_probe``). No model code is copied, the KV cache holds unrotated keys in
transformers' own classes, and taking the patch off restores the model exactly.

A method changes the layers that attend beyond the window. A layer with a sliding window, or chunks,
no larger than the window meets no distance that it was not trained on, so it keeps its true
distances, its own rope and its own limit. A layer that does not rotate queries and keys has no
positions to change.
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
from lampe.patching.layer_probe import ProbedLayers, probe_layers
from lampe.patching.patch_checks import check_causal, check_exact, check_method


def patch(
    model: PreTrainedModel,
    method: str | Method = "lampe",
    *,
    window: int | None = None,
    attention: str = AUTO,
    check: bool = True,
    stack: bool = False,
    **settings: Any,
) -> Handle:
    """Give a model's attention the positions of a method, in place.

    In each thread, a handle follows one sequence of calls at a time. A call of ``generate``, one
    over an empty KV cache, or one over several new tokens is a prompt, and its length holds for the
    single tokens that follow. So finish one answer before you begin the next, and where you feed a
    prompt in chunks yourself, state its length with ``handle.prompt``. Several threads may call the
    model at the same time. transformers refuses ``generate_batch`` of a patched model: its paged KV
    cache needs an attention function of its own.

    Args:
        model: a causal decoder with rotary positions, loaded by transformers.
        method: a method or its name.
        window: tokens that the model was pretrained on; read from its configuration by default.
        attention: the backend, one of ``lampe.BACKENDS``; "auto" takes the fastest that can run.
        check: whether to prove on a few tokens that the patch is exact and causal.
        stack: whether to patch a patched model; taking the new patch off restores the earlier one.
        settings: hyper-parameters of a method given by name.

    Returns:
        The handle; ``handle.unpatch()`` or ``lampe.unpatch(model)`` takes the patch off.

    Raises:
        UnknownName: for a method, setting or backend that does not exist.
        BadSetting: for a hyper-parameter that the method cannot take.
        UnsupportedModel: for a model that cannot be patched exactly, or one that is patched already
            where ``stack`` is not set.

    Warns:
        PositionWarning: where the method changes nothing, because no layer attends beyond the
            window, and where the configuration leaves the window open.
    """
    dispatcher = BackendDispatcher(attention)
    method = _method_from(method, settings)
    below = outermost_handle(model)
    if below and not stack:
        raise _already_patched(model, method, below)
    geometry = geometry_of(model.config, window)
    if geometry.window_note:
        warnings.warn(geometry.window_note, PositionWarning, stacklevel=2)
    layers = below.layers if below else probe_layers(model, geometry)
    if check:
        _check(model, method, layers, geometry.window, dispatcher, already_patched=bool(below))
    if not layers.extendable(geometry.window):
        warnings.warn(
            f"{type(model).__name__}: no layer with rotary positions sees further than the window "
            f"of {geometry.window}, so {method.label} changes nothing; load the model without its "
            "sliding window if it is to be extended",
            PositionWarning,
            stacklevel=2,
        )
    return Handle(model, method, layers, geometry.window, dispatcher)


def _method_from(method: str | Method, settings: dict[str, Any]) -> Method:
    """Return the method that is meant by a name with settings, or by itself."""
    if isinstance(method, str):
        return method_of(method, **settings)
    if settings:
        raise BadSetting(
            f"settings ({', '.join(settings)}) go with a method's name; this method has its own "
            "already"
        )
    return method


def _already_patched(model: PreTrainedModel, method: Method, below: Handle) -> UnsupportedModel:
    return UnsupportedModel(
        f"cannot patch {type(model).__name__} with {method.label}: it is patched with "
        f"{below.method.label} already; call lampe.unpatch(model) first, or give stack=True to "
        "come back to that patch afterwards"
    )


def _check(
    model: PreTrainedModel,
    method: Method,
    layers: ProbedLayers,
    window: int,
    dispatcher: BackendDispatcher,
    *,
    already_patched: bool,
) -> None:
    """Prove that a patch is causal, and exact where the model can still be run unpatched."""
    if not already_patched:
        original = method_of("original")
        check_exact(
            model, layers.by_module, lambda: Handle(model, original, layers, window, dispatcher)
        )
    geometry = dataclasses.replace(layers.geometries[layers.main_geometry(window)], window=window)
    narrowed, tokens = check_method(method, geometry)
    check_causal(
        model,
        layers.by_module,
        lambda: Handle(model, narrowed, layers, window, dispatcher),
        tokens,
    )


@torch.no_grad()
def explain(model: PreTrainedModel) -> str:
    """Return which backend runs in a patched model, and why the faster ones cannot.

    The answer is measured on a few tokens: one line per backend, for the prompt and for a step.

    Raises:
        UnsupportedModel: where the model is not patched.
    """
    handle = _patch_of(model)
    dispatcher = BackendDispatcher(handle.attention)
    with (
        Handle(model, handle.method, handle.layers, handle.geometry.window, dispatcher),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", PositionWarning)
        ids = torch.zeros(1, 3, dtype=torch.long, device=model.device)
        cache = model(ids[:, :2], use_cache=True).past_key_values
        model(ids[:, 2:], past_key_values=cache, use_cache=True)
    return "\n".join(str(choice) for choice in dispatcher.choices)


def unpatch(model: PreTrainedModel) -> None:
    """Take the outermost patch off a model.

    Raises:
        UnsupportedModel: where the model is not patched.
    """
    _patch_of(model).unpatch()


def _patch_of(model: PreTrainedModel) -> Handle:
    handle = outermost_handle(model)
    if handle is None:
        raise UnsupportedModel(f"this {type(model).__name__} is not patched")
    return handle
