"""Rotated-key cache: rotated copies of the keys in transformers' KV caches, while they are valid.

A KV cache of transformers has to hold unrotated keys, so rotated keys are a second copy. A copy is
valid as long as nothing has happened to the cache's own keys: no beam reordered, nothing cropped,
reset, written or replaced. PyTorch counts the writes to a tensor, and each of those operations
either writes to the keys or puts another tensor in their place. So a copy is valid where the layer
still holds the very tensor, at the same version, that attention received in the last forward call.

A ``GrowingLayer`` needs no copy: its own keys are rotated in place.
"""

import threading
import weakref
from collections.abc import Callable, Iterable
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
class _RotatedLayer:
    """Rotated keys of one layer of a KV cache, and the unrotated keys that they belong to.

    Attributes:
        rows: the rotated keys.
        keys: the layer's own keys when attention received them last.
        version: PyTorch's count of writes to those keys at that time.
    """

    rows: RotatedKeyRows
    keys: weakref.ref[Tensor]
    version: int

    def is_valid_for(self, keys: Tensor | None) -> bool:
        """Return whether the layer still holds the same keys, unwritten."""
        # By identity and count of writes; comparing contents would read the whole cache.
        return keys is not None and self.keys() is keys and self.version == keys._version


def _no_object() -> None:
    """Return None, as a weak reference to an object that is gone does."""


class _CurrentModule(threading.local):
    """KV cache and layer of the attention module that the calling thread is running.

    Attributes:
        cache: its KV cache, by weak reference, until its attention has run.
        layer: its layer of the cache, likewise.
        latest_cache: KV cache of this module, or of the latest one that was called with any: some
            models hand the keys of one layer to later layers as well.
    """

    def __init__(self) -> None:
        self.cache: Callable[[], Cache | None] = _no_object
        self.layer: Callable[[], Any] = _no_object
        self.latest_cache: Callable[[], Cache | None] = _no_object


class RotatedKeyCache:
    """Rotated keys of all KV caches of a patched model, freed together with their cache."""

    def __init__(self) -> None:
        # Weak keys: a cache that its caller drops must take its rotated keys with it.
        self._steps: WeakKeyDictionary[Cache, DecodeSteps] = WeakKeyDictionary()
        self._layers: WeakKeyDictionary[Any, _RotatedLayer] = WeakKeyDictionary()
        self._current = _CurrentModule()

    def watch(self, modules: Iterable[nn.Module]) -> list[RemovableHandle]:
        """Register hooks that tell which cache each attention module is called with.

        The attention function itself receives keys and values only.
        """

        # A closure, not a method: copy.deepcopy of a model copies the owners of bound methods,
        # and thread-local state cannot be copied.
        @torch.compiler.disable  # type: ignore[untyped-decorator]
        def before_forward(
            module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
        ) -> None:
            self._enter(module, chain(options.values(), inputs))

        return [
            module.register_forward_pre_hook(before_forward, with_kwargs=True) for module in modules
        ]

    def _enter(self, module: nn.Module, arguments: Iterable[Any]) -> None:
        """Find the cache layer of a module, before the layer takes in the new tokens."""
        # Threads run different modules at the same time, so this state is the thread's.
        current = self._current
        current.cache = current.layer = _no_object
        cache = next((value for value in arguments if isinstance(value, Cache)), None)
        if cache is None:
            return
        current.cache = weakref.ref(cache)
        if not hasattr(cache, "layers"):
            return  # An encoder-decoder cache has no layers, but two caches with layers.
        current.latest_cache = current.cache
        index = getattr(module, "layer_idx", None)
        if index is None or index >= len(cache.layers):
            # The first call over a dynamic cache creates its layers later, in ``update``.
            return
        layer = cache.layers[index]
        current.layer = weakref.ref(layer)
        if isinstance(layer, GrowingLayer):
            layer.accept_rotated()
            return
        # Checked here, because afterwards the layer holds another tensor in any case.
        rotated = self._layers.get(layer)
        if rotated is not None and not rotated.is_valid_for(getattr(layer, "keys", None)):
            rotated.rows.invalidate()

    def current_cache(self) -> Cache | None:
        """Return the KV cache that the running attention module was called with, if any."""
        return self._current.cache()

    def release(self) -> None:
        """Free the rotated keys of all caches."""
        self._steps.clear()
        self._layers.clear()

    def rows_of(self, keys: Tensor) -> RotatedKeyRows | None:
        """Return the rotated keys that belong to ``keys``.

        Args:
            keys: keys ``[B, G, K, D]`` that the attention of the running module received.

        Returns:
            None where they are not the keys of a KV cache.
        """
        current = self._current
        layer, cache = current.layer(), current.latest_cache()
        # The layer was checked for this one call of its module; a call without the hook has none.
        current.cache = current.layer = _no_object
        if cache is None:
            return None
        holder = layer if _holds(layer, keys) else _growing_layer_with(keys, cache.layers)
        if holder is None:
            return None
        if isinstance(holder, GrowingLayer):
            return holder.rotated_rows()
        return self._rows_beside(cache, holder, keys)

    def _rows_beside(self, cache: Cache, layer: Any, keys: Tensor) -> RotatedKeyRows | None:
        """Return the rotated copy of ``keys``, which a layer of transformers' own holds."""
        if keys.is_inference():
            return None  # PyTorch does not count the writes to a tensor of inference mode.
        rotated = self._layers.get(layer)
        if rotated is None:
            # Layers of one cache share each decode step's tables; caches do not, because two
            # threads may decode with two caches at once.
            steps = self._steps.setdefault(cache, DecodeSteps())
            rotated = _RotatedLayer(RotatedKeyRows(steps), weakref.ref(keys), keys._version)
            self._layers[layer] = rotated
        rotated.keys = weakref.ref(keys)
        rotated.version = keys._version
        return rotated.rows


def _holds(layer: Any, keys: Tensor) -> bool:
    """Return whether ``keys`` are those that a layer of a cache holds; None is no layer."""
    if isinstance(layer, GrowingLayer):
        return layer.holds(keys)  # Reading its ``keys`` would undo their rotation.
    return getattr(layer, "keys", None) is keys


def _growing_layer_with(keys: Tensor, layers: Iterable[Any]) -> GrowingLayer | None:
    """Return the first growing layer that holds ``keys``; None where there is none."""
    # Any layer may hold them: some models hand the keys of one layer to later layers as well.
    for layer in layers:
        if isinstance(layer, GrowingLayer) and layer.holds(keys):
            return layer
    return None
