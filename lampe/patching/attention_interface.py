"""What transformers calls: an attention function registered by name, and who answers behind it.

A patch or a probe *stands behind* every module of a model while it is on; the outermost one answers.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from lampe.attention.logit_options import LogitOptions
from lampe.errors import UnsupportedModel
from lampe.patching.forward_layout import layout_mask

ATTENTION_NAME = "lampe"
UNSUPPORTED_OPTIONS = {
    "attention_bias": "adds a bias to its logits",
    "block_indices": "attends to chosen blocks of keys only",
    "head_mask": "masks heads",
    "indices": "attends to chosen keys only (an indexer picks them, by positions of its own)",
    "position_bias": "adds a bias by position",
    "sinks": "has sinks that are handed on in a way of its own",
}
"""Options of transformers' attention functions that say what a layer does beside what ``Logits`` holds."""


class AttentionHandler(Protocol):
    """What stands behind a model's modules."""

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        *,
        scale: float,
        logits: LogitOptions,
    ) -> Tensor:
        """Attention of the layer ``module``: ``[B, H, Q, D]``."""
        ...


_HANDLERS: WeakKeyDictionary[nn.Module, AttentionHandler] = WeakKeyDictionary()


def handler_of(module: nn.Module) -> AttentionHandler | None:
    """What stands behind a module."""
    return _HANDLERS.get(module)


def attach(
    model: PreTrainedModel, attention: AttentionHandler, layers: Iterable[nn.Module] | None = None
) -> None:
    """Puts ``attention`` behind every module of a model.

    Args:
        layers: the attention modules that are to call it, all by default. Those with a configuration of another part,
            such as a vision tower's, keep their own attention.

    Raises:
        UnsupportedModel: for a model that does not look its attention up by name, or a copy of a patched one.
    """
    if model not in _ORIGINAL_NAMES:
        _ORIGINAL_NAMES[model] = _by_name(model)
        if layers is not None:
            _restore(_ORIGINAL_NAMES[model], but=_around(model, layers))
    for module in model.modules():
        _HANDLERS[module] = attention


def detach(model: PreTrainedModel, below: AttentionHandler | None = None) -> None:
    """Takes what stands behind a model away; what was ``below`` answers again, or the model's own attention."""
    if below is not None:
        for module in model.modules():
            _HANDLERS[module] = below
        return
    for module in model.modules():
        _HANDLERS.pop(module, None)
    _restore(_ORIGINAL_NAMES.pop(model))


@contextmanager
def attached_to(model: PreTrainedModel, attention: AttentionHandler) -> Iterator[None]:
    """Puts ``attention`` behind a model for a while."""
    attach(model, attention)
    try:
        yield
    finally:
        detach(model)


Named = list[tuple[PreTrainedConfig, str | None]]
"""Configurations, and the attention that each names."""

_ORIGINAL_NAMES: WeakKeyDictionary[nn.Module, Named] = WeakKeyDictionary()
"""What the configurations of a model and its parts named."""


def _by_name(model: PreTrainedModel) -> Named:
    """Has every part of a model call our function, and says what they called before."""
    before = [(config, config._attn_implementation) for config in _configs(model)]
    if any(name == ATTENTION_NAME for _, name in before):
        raise _unpatched(model)
    try:
        model.set_attn_implementation(ATTENTION_NAME)
    except ValueError as error:
        _restore(before)
        raise _not_by_name(model) from error
    if model.config._attn_implementation != ATTENTION_NAME:
        _restore(before)
        raise _not_by_name(model)
    return before


def _restore(before: Named, but: Iterable[PreTrainedConfig] = ()) -> None:
    """Lets configurations name what they did; each for itself, without those of its parts."""
    kept = {id(config) for config in but}
    for config, name in before:
        if id(config) not in kept:
            config._attn_implementation = {"": name}


def _configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """The configurations of a model and its parts, each once."""
    found: dict[int, PreTrainedConfig] = {}
    waiting = [config for module in model.modules() if (config := _config(module)) is not None]
    while waiting:
        config = waiting.pop()
        if id(config) not in found:
            found[id(config)] = config
            parts = (getattr(config, name, None) for name in config.sub_configs)
            waiting += [part for part in parts if part is not None]
    return list(found.values())


def _around(model: PreTrainedModel, layers: Iterable[nn.Module]) -> list[PreTrainedConfig]:
    """The configurations of attention modules, and of the modules that they are in, which make their masks."""
    wanted, modules = set(layers), dict(model.named_modules())
    paths = [name.split(".") for name, module in modules.items() if module in wanted]
    names = {".".join(path[:depth]) for path in paths for depth in range(len(path) + 1)}
    return [config for name in names if (config := _config(modules[name])) is not None]


def _config(module: nn.Module) -> PreTrainedConfig | None:
    config = getattr(module, "config", None)
    return config if isinstance(config, PreTrainedConfig) else None


def _unpatched(module: nn.Module) -> UnsupportedModel:
    """Of a module whose configuration names our function, but behind which nothing stands."""
    named = [config for before in _ORIGINAL_NAMES.values() for config, _ in before]
    if any(config is _config(module) for config in named):
        return UnsupportedModel(
            "this model is not patched, but shares its configuration object with one that is"
        )
    return UnsupportedModel(
        "this model, or its configuration, is a copy of a patched one: copy before you patch"
    )


def _not_by_name(model: PreTrainedModel) -> UnsupportedModel:
    return UnsupportedModel(
        f"{type(model).__name__} does not look its attention up by name (AttentionInterface)"
    )


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
    """The function that transformers calls in every layer; takes ``[B, H, Q, D]``, returns ``[B, Q, H, D]``.

    A compiled model is compiled around it: plans follow the prompt's length, so there is nothing fixed to compile.
    """
    strange = [
        does for option, does in UNSUPPORTED_OPTIONS.items() if options.get(option) is not None
    ]
    if strange or is_causal is False:
        raise UnsupportedModel(
            f"{type(module).__name__} {strange[0] if strange else 'attends to later tokens'}"
        )
    attention = handler_of(module)
    if attention is None:
        raise _unpatched(module)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = attention.attend(
        module, query, key, value, attention_mask, scale=scale, logits=LogitOptions(softcap, s_aux)
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION_NAME, _attention)
AttentionMaskInterface.register(ATTENTION_NAME, layout_mask)
