"""What transformers calls: an attention function registered by name, and who answers behind it.

A patch or a probe *stands behind* every module of a model while it is on; the outermost one answers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from lampe.attention.logits import Logits
from lampe.errors import UnsupportedModel
from lampe.frame import mask

NAME = "lampe"
UNKNOWN = {
    "attention_bias": "adds a bias to its logits",
    "block_indices": "attends to chosen blocks of keys only",
    "head_mask": "masks heads",
    "indices": "attends to chosen keys only (an indexer picks them, by positions of its own)",
    "position_bias": "adds a bias by position",
    "sinks": "has sinks that are handed on in a way of its own",
}
"""Options of transformers' attention functions that say what a layer does beside what ``Logits`` holds."""


class Attention(Protocol):
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
        logits: Logits,
    ) -> Tensor:
        """Attention of the layer ``module``: ``[B, H, Q, D]``."""
        ...


_BEHIND: WeakKeyDictionary[nn.Module, Attention] = WeakKeyDictionary()


def behind(module: nn.Module) -> Attention | None:
    """What stands behind a module."""
    return _BEHIND.get(module)


def stand_behind(model: PreTrainedModel, attention: Attention) -> None:
    """Puts ``attention`` behind every module of a model.

    Raises:
        UnsupportedModel: for a model that does not look its attention up by name.
    """
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(NAME)
    except ValueError as error:
        raise _not_by_name(model) from error
    if model.config._attn_implementation != NAME:
        raise _not_by_name(model)
    if before != NAME:
        _BEFORE[model] = before
    for module in model.modules():
        _BEHIND[module] = attention


def stand_aside(model: PreTrainedModel, below: Attention | None = None) -> None:
    """Takes what stands behind a model away; what was ``below`` answers again, or the model's own attention."""
    if below is not None:
        for module in model.modules():
            _BEHIND[module] = below
        return
    for module in model.modules():
        _BEHIND.pop(module, None)
    model.set_attn_implementation(_BEFORE.pop(model))


@contextmanager
def standing_behind(model: PreTrainedModel, attention: Attention) -> Iterator[None]:
    """Puts ``attention`` behind a model for a while."""
    stand_behind(model, attention)
    try:
        yield
    finally:
        stand_aside(model)


_BEFORE: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
"""The attention that a model had."""


def _not_by_name(model: PreTrainedModel) -> UnsupportedModel:
    return UnsupportedModel(f"{type(model).__name__} does not look its attention up by name (AttentionInterface)")


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
    strange = [does for option, does in UNKNOWN.items() if options.get(option) is not None]
    if strange or is_causal is False:
        raise UnsupportedModel(f"{type(module).__name__} {strange[0] if strange else 'attends to later tokens'}")
    attention = behind(module)
    if attention is None:
        raise UnsupportedModel("this model is not patched, but shares its configuration object with one that is")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = attention.attend(module, query, key, value, attention_mask, scale=scale, logits=Logits(softcap, s_aux))
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, mask)
