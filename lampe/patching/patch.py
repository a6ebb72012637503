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

from transformers import PreTrainedModel

from lampe.attention import AUTO, BackendDispatcher
from lampe.errors import BadSetting, PositionWarning, UnsupportedModel
from lampe.geometry import geometry_of
from lampe.methods import Method, method_of
from lampe.patching.exclusive_access import exclusive_access
from lampe.patching.handle import Handle, outermost_handle
from lampe.patching.layer_probe import ProbedLayers, probe_layers
from lampe.patching.patch_checks import check_causal, check_exact, check_method

EXPORT_RECORD = "lampe_export"
"""Key of an exported configuration, with method, settings, window and source of the export."""


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

    A call of ``generate``, one over an empty KV cache, or one over several new tokens is a prompt,
    and its length holds for the single tokens that follow with the same KV cache, or a copy of it,
    in any thread. Where you feed a prompt in chunks yourself, state its length with
    ``handle.prompt``. ``generate_batch`` of a patched model is refused: its paged KV cache needs an
    attention function of its own.

    Several threads may call the model at the same time. While it is being patched, calls that other
    threads begin wait. An answer that began before the patch does not go on under it.

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
        UnsupportedModel: for a model that cannot be patched exactly, one that is patched already
            where ``stack`` is not set, or one that another thread is running.

    Warns:
        PositionWarning: where the method changes nothing, because no layer attends beyond the
            window, and where the configuration leaves the window open.
    """
    dispatcher = BackendDispatcher(attention)
    method = method_from(method, settings)
    with exclusive_access(model):
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
            _warn_without_effect(model, method, geometry.window)
        exported = getattr(model.config, EXPORT_RECORD, None)
        if exported and method.name != "original":
            warnings.warn(
                f"{type(model).__name__}: its configuration was exported with {exported['method']} "
                f"already, and {method.label} comes on top of it; patch {exported['source']} "
                "instead, from which it was exported",
                PositionWarning,
                stacklevel=2,
            )
        return Handle(model, method, layers, geometry.window, dispatcher)


def _warn_without_effect(model: PreTrainedModel, method: Method, window: int) -> None:
    """Warn the caller of ``patch`` that the method changes no layer."""
    warnings.warn(
        f"{type(model).__name__}: no layer with rotary positions sees further than the window of "
        f"{window}, so {method.label} changes nothing; load the model without its sliding window "
        "if it is to be extended",
        PositionWarning,
        stacklevel=3,
    )


def method_from(method: str | Method, settings: dict[str, Any]) -> Method:
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
    # The model's own logits can be had only while no patch is on.
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


def explain(model: PreTrainedModel) -> str:
    """Return which backend runs in a patched model, and why the faster ones cannot.

    The answer is measured on a few tokens: one line per backend, for the prompt and for a step.
    Other threads may call the model meanwhile.

    Raises:
        UnsupportedModel: where the model is not patched.
    """
    return "\n".join(str(choice) for choice in _patch_of(model).measure_backends())


def unpatch(model: PreTrainedModel) -> None:
    """Take the outermost patch off a model; calls that other threads begin meanwhile wait.

    Raises:
        UnsupportedModel: where the model is not patched, or another thread is running it.
    """
    _patch_of(model).unpatch()


def _patch_of(model: PreTrainedModel) -> Handle:
    handle = outermost_handle(model)
    if handle is None:
        raise UnsupportedModel(f"this {type(model).__name__} is not patched")
    return handle
