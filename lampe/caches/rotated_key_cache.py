"""Turned keys kept for the caches of a model: beside those of transformers, as long as they are still good.

A cache of transformers has to hold its keys as they came, so the turned ones are a copy. Its layer hands its keys to
attention and holds on to them. Where it holds the very same tensor, unwritten, when the next forward call reaches the
layer, nothing has happened to its keys: no beam reordered, nothing cropped, reset or swapped. Then all that attention
is handed beside the new tokens is what it was, and so are the keys that it turned. A ``GrowingLayer`` looks after its
keys itself, and has no copy.
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache

from lampe.attention.rotated_keys import DecodeSteps, RotatedKeyRows
from lampe.caches.growing_cache import GrowingLayer


@dataclass
class _CachedLayer:
    """What was turned of a cache's layer, and the keys that it held then."""

    turned: RotatedKeyRows
    keys: weakref.ref[Tensor] | None = None
    version: int = 0

    def note(self, keys: Tensor) -> None:
        self.keys, self.version = weakref.ref(keys), keys._version

    def holds(self, keys: Tensor | None) -> bool:
        return (
            keys is not None
            and self.keys is not None
            and self.keys() is keys
            and self.version == keys._version
        )


class RotatedKeyCache:
    """What is kept for the caches of one model under one patch; a cache that is gone takes its own with it."""

    def __init__(self) -> None:
        self._steps = DecodeSteps()
        self._of: WeakKeyDictionary[Any, _CachedLayer] = WeakKeyDictionary()
        self._reached: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()

    def watch(self, modules: Iterable[nn.Module]) -> list[RemovableHandle]:
        """Looks at the caches that these attention modules are called with."""
        return [
            module.register_forward_pre_hook(self._before, with_kwargs=True) for module in modules
        ]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _before(self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Forward hook, before the layer's cache takes in the new tokens."""
        cache = next((x for x in chain(options.values(), inputs) if isinstance(x, Cache)), None)
        index = getattr(module, "layer_idx", None)
        layer = None
        if cache is not None and index is not None and index < len(cache.layers):
            layer = cache.layers[index]
            kept = None if isinstance(layer, GrowingLayer) else self._of.get(layer)
            if kept is not None and not kept.holds(getattr(layer, "keys", None)):
                kept.turned.invalidate()
        self._reached[module] = layer and weakref.ref(layer)

    def of(self, module: nn.Module, keys: Tensor) -> RotatedKeyRows | None:
        """What is kept of the keys that a module's attention is handed; None where they are not a cache's own."""
        if (growing := GrowingLayer.of(keys)) is not None:
            return growing.turned(self._steps)
        reached = self._reached.pop(module, None)
        layer = reached and reached()
        if layer is None or getattr(layer, "keys", None) is not keys or keys.is_inference():
            return None
        kept = self._of.setdefault(layer, _CachedLayer(RotatedKeyRows(self._steps)))
        kept.note(keys)
        return kept.turned
