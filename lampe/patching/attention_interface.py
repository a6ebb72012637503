"""Attention interface: the functions registered with transformers, and the handlers they call.

transformers looks up attention and masks by the name in a configuration. While a patch or a probe
is on, the configurations of a model name our functions, and a handler attached to the model answers
them. Of several patches the outermost one answers.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from lampe.attention.logit_options import LogitOptions
from lampe.errors import UnsupportedModel
from lampe.patching.forward_layout import FOREIGN_CONFIGURATION, ForwardLayout, read_layout

ATTENTION_NAME = "lampe"
UNSUPPORTED_OPTIONS = {
    "attention_bias": "adds a bias to its logits",
    "block_indices": "attends to chosen blocks of keys only",
    "head_mask": "masks heads",
    "indices": "attends to chosen keys only (an indexer picks them, by positions of its own)",
    "position_bias": "adds a bias by position",
    "sinks": "has attention sinks in an argument that lampe does not know",
}
"""Options of transformers' attention functions that change attention beyond ``LogitOptions``."""


@dataclass(frozen=True, eq=False)
class LayerCall:
    """Call of the attention function by one layer.

    Shapes: B batch, H query heads, G key heads, Q queries, K keys, D head dimensions.

    Attributes:
        module: the attention module.
        query: ``[B, H, Q, D]``, not rotated.
        key: ``[B, G, K, D]``, as the KV cache returned it.
        value: ``[B, G, K, D]``; its head dimension may differ from that of the keys.
        mask: the layout that our mask function made, or what took its place.
        scale: factor on the logits before the softmax.
        logits: soft cap and sinks of the layer.
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scale: float
    logits: LogitOptions


class AttentionHandler(Protocol):
    """Object that answers the mask and attention calls of a model."""

    def complete_layout(self, layout: ForwardLayout, unmasked_rows: int) -> ForwardLayout:
        """Return a layout with the prompt's end, and with rows that no mask describes.

        Both are filled in as far as they are known before the layers run.

        Args:
            layout: layout without a fault.
            unmasked_rows: rows of a batch without a mask; 0 where there is one.
        """
        ...

    def attend(self, call: LayerCall) -> Tensor:
        """Return the attention of one layer, ``[B, H, Q, D]``."""
        ...


_HANDLERS: WeakKeyDictionary[nn.Module, AttentionHandler] = WeakKeyDictionary()
"""Handler of each module of an attached model."""

AttentionNames = list[tuple[PreTrainedConfig, str | None]]
"""Configurations, and the attention that each names."""

_ORIGINAL_NAMES: WeakKeyDictionary[nn.Module, AttentionNames] = WeakKeyDictionary()
"""Attention that the configurations of each attached model named before."""

_MODEL_OF_CONFIG: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
"""Attached model that a configuration belongs to, by the configuration's ``id``.

The names above keep the configuration alive as long as its model, so that no other object can get
its ``id``. The lookup needs no iteration, which another thread's patch would disturb.
"""


def handler_of(module: nn.Module) -> AttentionHandler | None:
    """Return the handler attached to a module; None where there is none."""
    return _HANDLERS.get(module)


def attach(
    model: PreTrainedModel, handler: AttentionHandler, layers: Iterable[nn.Module] | None = None
) -> None:
    """Attach a handler to every module of a model.

    Args:
        model: the model.
        handler: object that answers from now on.
        layers: attention modules that are to call it, all by default. Those with a configuration
            of another part, such as a vision tower's, keep their own attention.

    Raises:
        UnsupportedModel: for a model that does not look its attention up by name, or a copy of a
            patched one.
    """
    # A second patch of the same model finds our name in its configurations already.
    if model not in _ORIGINAL_NAMES:
        _ORIGINAL_NAMES[model] = _name_our_attention(model)
        if layers is not None:
            _restore_names(_ORIGINAL_NAMES[model], but=_configs_around(model, layers))
        for config, _ in _ORIGINAL_NAMES[model]:
            _MODEL_OF_CONFIG.setdefault(id(config), model)
    for module in model.modules():
        _HANDLERS[module] = handler


def detach(model: PreTrainedModel, below: AttentionHandler | None = None) -> None:
    """Detach a model's handler.

    Args:
        model: the model.
        below: handler that answers again; None gives the model its own attention back.
    """
    if below is not None:
        for module in model.modules():
            _HANDLERS[module] = below
        return
    for module in model.modules():
        _HANDLERS.pop(module, None)
    names = _ORIGINAL_NAMES.pop(model)
    _restore_names(names)
    for config, _ in names:
        if _MODEL_OF_CONFIG.get(id(config)) is model:
            del _MODEL_OF_CONFIG[id(config)]


@contextmanager
def attached_to(model: PreTrainedModel, handler: AttentionHandler) -> Iterator[None]:
    """Attach a handler to a model for the duration of a block."""
    attach(model, handler)
    try:
        yield
    finally:
        detach(model)


def refuse_other_attention(
    rotary_modules: Iterable[nn.Module], layers: Iterable[nn.Module]
) -> list[RemovableHandle]:
    """Make rotary modules refuse a call after which attention would not be ours.

    Without it tokens would have no positions: the rotary modules of a patched model do not rotate.

    Args:
        rotary_modules: rotary modules of the patched model.
        layers: its attention modules.
    """
    modules = list(rotary_modules)
    own = {id(module) for module in modules}
    configs = list({id(config): config for config in _configs_of(layers)}.values())

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def check_names(module: nn.Module, inputs: Any) -> None:
        # A copy of the model has the hook, but not these configurations; its attention refuses.
        if id(module) not in own:
            return
        for config in configs:
            name = config._attn_implementation
            if name != ATTENTION_NAME:
                raise UnsupportedModel(
                    f"the attention of this patched model was changed to {name!r}, which knows no "
                    "positions of the patch: take the patch off first, or change it back to "
                    f"{ATTENTION_NAME!r}"
                )

    return [module.register_forward_pre_hook(check_names) for module in modules]


def _name_our_attention(model: PreTrainedModel) -> AttentionNames:
    """Make every part of a model call our functions, and return what the parts named before."""
    before = [(config, config._attn_implementation) for config in _configs(model)]
    if any(name == ATTENTION_NAME for _, name in before):
        raise _no_handler(model)
    try:
        model.set_attn_implementation(ATTENTION_NAME)
    except ValueError as error:
        _restore_names(before)
        raise _not_by_name(model) from error
    # Not every model that keeps its own attention raises.
    if model.config._attn_implementation != ATTENTION_NAME:
        _restore_names(before)
        raise _not_by_name(model)
    return before


def _restore_names(names: AttentionNames, but: Iterable[PreTrainedConfig] = ()) -> None:
    """Restore the attention that configurations named, except for those in ``but``."""
    excepted = {id(config) for config in but}
    for config, name in names:
        if id(config) not in excepted:
            # A mapping sets this configuration alone; a string would set its parts as well.
            config._attn_implementation = {"": name}


def _configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """Return the configurations of a model and its parts, each once."""
    # By identity: configurations compare by value, and two parts may have equal ones.
    known: dict[int, PreTrainedConfig] = {}
    waiting = _configs_of(model.modules())
    while waiting:
        config = waiting.pop()
        if id(config) not in known:
            known[id(config)] = config
            parts = [getattr(config, name, None) for name in config.sub_configs]
            waiting += [part for part in parts if part is not None]
    return list(known.values())


def _configs_around(model: PreTrainedModel, layers: Iterable[nn.Module]) -> list[PreTrainedConfig]:
    """Return the configurations of attention modules and of the modules they are in."""
    attention_modules = set(layers)
    modules = dict(model.named_modules())
    # The modules around an attention module make its mask, so they must name our functions too.
    names: set[str] = set()
    for name, module in modules.items():
        if module in attention_modules:
            path = name.split(".")
            names.update(".".join(path[:depth]) for depth in range(len(path) + 1))
    return _configs_of(modules[name] for name in names)


def _configs_of(modules: Iterable[nn.Module]) -> list[PreTrainedConfig]:
    """Return the configurations that modules have."""
    configs = [getattr(module, "config", None) for module in modules]
    return [config for config in configs if isinstance(config, PreTrainedConfig)]


def _no_handler(module: nn.Module) -> UnsupportedModel:
    """Return the error for a module whose configuration names our function without a patch."""
    config = getattr(module, "config", None)
    if _model_with(config) is not None:
        return UnsupportedModel(
            "this model is not patched, but shares its configuration object with one that is"
        )
    return UnsupportedModel(
        "this model, or its configuration, is a copy of a patched one: copy before you patch"
    )


def _model_with(config: PreTrainedConfig | None) -> nn.Module | None:
    """Return the attached model that a configuration belongs to; None where there is none."""
    return _MODEL_OF_CONFIG.get(id(config))


def _not_by_name(model: PreTrainedModel) -> UnsupportedModel:
    return UnsupportedModel(
        f"{type(model).__name__} does not look its attention up by name (AttentionInterface)"
    )


# A compiled model is compiled around attention: plans depend on the prompt's length, so compiled
# code would be valid for one length only.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Run attention of a layer: takes ``[B, H, Q, D]``, returns ``[B, Q, H, D]`` and no weights."""
    unsupported = [
        effect for option, effect in UNSUPPORTED_OPTIONS.items() if options.get(option) is not None
    ]
    if is_causal is False:
        unsupported.append("attends to later tokens")
    if unsupported:
        raise UnsupportedModel(f"{type(module).__name__} {unsupported[0]}")
    handler = handler_of(module)
    if handler is None:
        raise _no_handler(module)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    logits = LogitOptions(softcap, s_aux)
    out = handler.attend(LayerCall(module, query, key, value, attention_mask, scale, logits))
    return out.transpose(1, 2).contiguous(), None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _mask(*arguments: Any, config: PreTrainedConfig | None = None, **options: Any) -> Tensor:
    """Return the layout of a forward call for one kind of layer, in place of its mask.

    What the caller states of its prompt is read here, not in the layers: this is the one place that
    runs in the caller's thread, once per forward call and kind of layer. The model is found by its
    configuration, because transformers passes nothing else that tells models apart. ``generate``
    with a static KV cache makes masks before the forward call, so a hook on it would come too late.
    """
    layout = read_layout(*arguments, **options)
    model = _model_with(config)
    handler = None if model is None else handler_of(model)
    if handler is None:
        layout = replace(layout, fault=layout.fault or FOREIGN_CONFIGURATION)
    elif not layout.fault:
        batch_size = arguments[0] if arguments else options["batch_size"]
        is_masked = options.get("attention_mask") is not None
        layout = handler.complete_layout(layout, 0 if is_masked else batch_size)
    return layout.to_mask()


# Both are needed: for a name without a mask function the mask silently becomes None.
AttentionInterface.register(ATTENTION_NAME, _attention)
AttentionMaskInterface.register(ATTENTION_NAME, _mask)
