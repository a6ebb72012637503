"""A cache for answers: keys and values in room that grows by chunks, and keys turned where they lie.

transformers' own dynamic cache copies all that it holds for each token. Beside it, a patched model keeps turned keys as
a copy (``lampe.caches.rotated_key_cache``). This one is copied once a chunk, and gives its keys away to be turned in place; who reads them
(``keys``) finds them as they came, to the rounding of their type.
"""

import weakref
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from lampe.attention.rotated_keys import DecodeSteps, RotatedKeyRows
from lampe.errors import UnsupportedModel

GROWTH_TOKENS = 128
"""Tokens by which room grows."""


def growing_cache(model: PreTrainedModel) -> DynamicCache | None:
    """An empty cache for ``past_key_values`` of a model, patched or not; None where it brings a kind of its own.

    It goes with the patch under which it was filled, as every cache does, and knows no gradients. Layers that see all
    tokens are ``GrowingLayer``; those with a sliding window, or no keys, are transformers' own.

    Raises:
        UnsupportedModel: for what is no model of transformers.
    """
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModel(
            f"a {type(model).__name__} is no model of transformers: no cache fits it"
        )
    if not model._supports_default_dynamic_cache():  # type: ignore[operator]
        return None
    cache = DynamicCache(config=model.config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


class GrowingLayer(DynamicLayer):
    """One layer of keys and values ``[B, G, K, D]``; all that a dynamic layer does, it does."""

    def __init__(self, **options: Any) -> None:
        self._keys: Tensor | None = None
        self._turned: RotatedKeyRows | None = None
        self._rooms = _GrowingBuffer(), _GrowingBuffer()
        super().__init__(**options)  # type: ignore[no-untyped-call]

    @property
    def keys(self) -> Tensor | None:
        """The keys as they came. Who has them may keep them: what comes later is written elsewhere."""
        if self._turned is not None and self._keys is not None:
            self._keys = _writable(self._keys)
            self._turned.restore(self._keys)
        self._rooms[0].leave()
        return self._keys

    @keys.setter
    def keys(self, keys: Tensor | None) -> None:
        self._keys = keys
        if self._turned is not None:
            self._turned.invalidate()

    def turned(self, steps: DecodeSteps) -> RotatedKeyRows:
        """What turns the keys."""
        if self._turned is None:
            self._turned = RotatedKeyRows(steps, in_place=True)
        return self._turned

    @classmethod
    def of(cls, keys: Tensor) -> Self | None:
        """The layer that handed out ``keys``, to whichever attention, and holds them."""
        layer = _HANDED_OUT[keys]() if keys in _HANDED_OUT else None
        return layer if layer is not None and layer._keys is keys else None

    def update(
        self, key_states: Tensor, value_states: Tensor, *inputs: Any, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values with the new ones ``[B, G, n, D]``; as they came where there are several."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = None if self._keys is None else _writable(self._keys)
        if self._turned is not None and held is not None and key_states.shape[2] > 1:
            self._turned.restore(held)
        self._keys = self._rooms[0].joined(held, key_states)
        self.values = self._rooms[1].joined(self.values, value_states)
        _HANDED_OUT[self._keys] = weakref.ref(self)
        return self._keys, self.values

    def get_seq_length(self) -> int:
        """Tokens that are held."""
        return 0 if self._keys is None or not self._keys.numel() else self._keys.shape[2]


_HANDED_OUT: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Keys, and references to the layers that handed them out."""


class _GrowingBuffer:
    """Room for one tensor ``[B, G, L, D]``, which is moved only where it is too small."""

    def __init__(self) -> None:
        self._all: Tensor | None = None

    def joined(self, held: Tensor | None, new: Tensor) -> Tensor:
        """``held`` and ``new`` one after the other, in this room."""
        start = held.shape[2] if held is not None and held.numel() else 0
        stop, room = start + new.shape[2], self._all
        if room is None or stop > room.shape[2] or not self._holds(held):
            room = self._all = new.new_empty(*new.shape[:2], stop + GROWTH_TOKENS, new.shape[3])
            if held is not None and start:
                room[:, :, :start] = held
        room[:, :, start:stop] = new
        return room[:, :, :stop]

    def leave(self) -> None:
        """Leaves the room to who has what is in it."""
        self._all = None

    def _holds(self, held: Tensor | None) -> bool:
        """Whether ``held`` lies at the beginning of this room, and may be written."""
        room = self._all
        return (
            room is not None
            and held is not None
            and held.data_ptr() == room.data_ptr()
            and (held.shape[0], held.shape[1], *held.stride())
            == (room.shape[0], room.shape[1], *room.stride())
            and _writable(room) is room
        )


def _writable(x: Tensor) -> Tensor:
    """``x``, or a copy where it was made in inference mode and this is none."""
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x
