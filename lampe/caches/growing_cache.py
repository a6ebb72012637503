"""Growing KV cache: keys and values in buffers that grow by chunks, with keys rotated in place.

transformers' dynamic cache copies all that it holds for each new token, and a patched model keeps
rotated keys beside it as a second copy (``lampe.caches.rotated_key_cache``). This cache is copied
once a chunk, and lets a patched model rotate its keys in place. Code that reads ``keys`` gets them
unrotated, to the rounding of their data type.

Under a sparse plan it drops the keys and values of tokens that no later query sees, between the
first tokens and the latest ones, so that an answer takes the memory of what it sees.

Rotating a key forth and back rounds it. A cache that is cropped after each of several answers is
made with ``rotate_in_place=False``: its keys stay exactly as they came.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from lampe.attention.rotated_keys import NO_GAP, DecodeSteps, RotatedKeyRows
from lampe.errors import UnsupportedModel

# An answer at 4096 tokens held 1.03 times the bytes of plain attention's cache, 1.06 with 256.
GROWTH_TOKENS = 128
"""Tokens by which a buffer grows, and the fewest that are dropped together."""
CROPPED_TOKENS = 128
"""Latest tokens that may be cropped from a cache that drops keys: so many more stay in it."""


def growing_cache(model: PreTrainedModel, *, rotate_in_place: bool = True) -> DynamicCache | None:
    """Return an empty cache for ``past_key_values`` of a model, patched or not.

    Every cache belongs to the patch under which it was filled; this one too. It supports no
    gradients. Layers that attend to all tokens are ``GrowingLayer``; layers with a sliding window,
    or without keys, are transformers' own.

    Args:
        model: the model.
        rotate_in_place: whether an answer rotates the cache's own keys; otherwise it rotates a copy
            beside them, half as large as the cache, and a crop gives back exactly the keys of
            before.

    Returns:
        The cache, or None for a model that needs a cache class of its own.

    Raises:
        UnsupportedModel: for an object that is not a transformers model.
    """
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModel(
            f"a {type(model).__name__} is no model of transformers: no cache fits it"
        )
    if not model._supports_default_dynamic_cache():  # type: ignore[operator]
        return None
    cache = DynamicCache(config=model.config)
    steps = DecodeSteps()
    cache.layers = [
        # Exactly this type: its subclasses hold a sliding window, or no keys.
        GrowingLayer(steps, rotate_in_place) if type(layer) is DynamicLayer else layer
        for layer in cache.layers
    ]
    return cache


class GrowingLayer(DynamicLayer):
    """Layer of a growing cache: keys and values ``[B, G, K, D]``, with a dynamic layer's interface.

    Args:
        steps: decode steps that the layers of the cache share.
        rotate_in_place: see ``growing_cache``.
        options: arguments of transformers' ``DynamicLayer``.
    """

    def __init__(self, steps: DecodeSteps, rotate_in_place: bool = True, **options: Any) -> None:
        self._keys: Tensor | None = None
        self._key_buffer = _GrowingBuffer()
        self._value_buffer = _GrowingBuffer()
        self._accepts_rotated = False
        self._steps = steps
        self._rotate_in_place = rotate_in_place
        self._rotated: RotatedKeyRows | None = None
        # Last, because it sets ``keys``, whose setter needs the attributes above.
        super().__init__(**options)  # type: ignore[no-untyped-call]

    @property
    def keys(self) -> Tensor | None:
        """Return unrotated keys, which stay valid: later tokens are written to another buffer.

        Keys that were dropped are not among them.
        """
        if self._rotated is not None and self._keys is not None:
            self._keys = _writable(self._keys)
            self._rotated.restore(self._keys)
        # The caller may hold on to this view, so the buffer must not be written any more.
        self._key_buffer.free()
        return self._keys

    @keys.setter
    def keys(self, keys: Tensor | None) -> None:
        self._keys = keys
        if self._rotated is not None:
            self._rotated.invalidate()

    def rotated_rows(self) -> RotatedKeyRows:
        """Return which of the layer's keys are rotated, and to which positions."""
        if self._rotated is None:
            self._rotated = RotatedKeyRows(self._steps, self._rotate_in_place)
        return self._rotated

    def accept_rotated(self) -> None:
        """Let the next ``update`` return rotated keys, because a patched attention will read them.

        Any other reader gets keys unrotated, so a model that is not patched may use the cache.
        """
        self._accepts_rotated = True

    def holds(self, keys: Tensor) -> bool:
        """Return whether ``keys`` is the very tensor that ``update`` returned last."""
        return self._keys is keys

    def update(
        self, key_states: Tensor, value_states: Tensor, *inputs: Any, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values ``[B, G, n, D]``, and return all of them ``[B, G, K, D]``.

        Keys are unrotated, except for a single new token after ``accept_rotated``.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self._rotated is not None and self._rotated.gap and not self._accepts_rotated:
            raise UnsupportedModel(f"attention without a patch reads a {_dropped(self._rotated)}")
        self._drop_unseen()
        held = None if self._keys is None else _writable(self._keys)
        # Only a decode step, with its one query, reads keys in the rotations of the step before.
        accepts_rotated = self._accepts_rotated and key_states.shape[2] == 1
        # The permission is for one call, as the next reader may be another model.
        self._accepts_rotated = False
        if self._rotated is not None and held is not None and not accepts_rotated:
            self._rotated.restore(held)
        self._keys = self._key_buffer.append(held, key_states)
        self.values = self._value_buffer.append(self.values, value_states)
        return self._keys, self.values

    def get_seq_length(self) -> int:
        """Return the number of tokens in the layer, those included whose keys were dropped."""
        # Not through ``keys``: reading that property rotates all keys back.
        if self._keys is None or not self._keys.numel():
            return 0
        return self._keys.shape[2] + (0 if self._rotated is None else len(self._rotated.gap))

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the latest tokens.

        Args:
            tokens_to_remove: their number, negative as transformers has it.

        Raises:
            UnsupportedModel: where a token would become the latest one whose key was dropped.
        """
        rows, stop = self._rotated, self.get_seq_length() - abs(tokens_to_remove)
        if rows is None or stop > rows.gap.stop:
            self._crop_columns(tokens_to_remove)
            return
        if stop > rows.gap.start:
            raise UnsupportedModel(f"cannot crop to {stop} tokens a {_dropped(rows)}")
        # What is left are tokens before the gap, and no columns are missing any more.
        self._crop_columns(tokens_to_remove + len(rows.gap))
        rows.drop(NO_GAP)

    def _crop_columns(self, columns_to_remove: int) -> None:
        """Remove the latest columns; their number is negative, as transformers has it."""
        # transformers reads ``keys``, but holds no view of them: the buffer may still be written,
        # and the next tokens need no copy of what is left.
        buffer, self._key_buffer = self._key_buffer, _GrowingBuffer()
        super().crop(columns_to_remove)
        self._key_buffer = buffer

    def reset(self) -> None:
        """Remove all tokens."""
        super().reset()
        self._rotated = None

    def _drop_unseen(self) -> None:
        """Drop the keys and values that no query sees from the next token on, if they are many."""
        rows, keys, values = self._rotated, self._keys, self.values
        if rows is None or rows.visible is None or keys is None or values is None:
            return
        start = rows.gap.start if rows.gap else rows.visible.first
        stop = self.get_seq_length() - rows.visible.last - CROPPED_TOKENS
        if stop - max(start, rows.gap.stop) < GROWTH_TOKENS:
            return
        # Copies, so that the memory of the whole prompt is freed.
        after = stop - len(rows.gap)
        self._keys = torch.cat((keys[:, :, :start], keys[:, :, after:]), dim=2)
        self.values = torch.cat((values[:, :, :start], values[:, :, after:]), dim=2)
        self._key_buffer.free()
        self._value_buffer.free()
        rows.drop(range(start, stop))


class _GrowingBuffer:
    """Buffer of one tensor ``[B, G, L, D]``, replaced by a larger one only when it is full."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def append(self, held: Tensor | None, new: Tensor) -> Tensor:
        """Return ``held`` followed by ``new``, as a view of the buffer."""
        start = held.shape[2] if held is not None and held.numel() else 0
        stop = start + new.shape[2]
        buffer = self._buffer
        if buffer is None or stop > buffer.shape[2] or not self._contains(held):
            # Spare columns make the next steps write in place instead of copying all tokens.
            buffer = new.new_empty(*new.shape[:2], stop + GROWTH_TOKENS, new.shape[3])
            if held is not None and start:
                buffer[:, :, :start] = held
            self._buffer = buffer
        buffer[:, :, start:stop] = new
        return buffer[:, :, :stop]

    def free(self) -> None:
        """Free this buffer; views of it stay valid."""
        self._buffer = None

    def _contains(self, held: Tensor | None) -> bool:
        """Return whether ``held`` is a view of the buffer's beginning that may be written."""
        buffer = self._buffer
        # A beam search may have selected other rows, or a caller may have set other keys.
        if buffer is None or held is None or held.data_ptr() != buffer.data_ptr():
            return False
        same_rows = held.shape[:2] == buffer.shape[:2] and held.stride() == buffer.stride()
        return same_rows and _writable(buffer) is buffer


def _dropped(rows: RotatedKeyRows) -> str:
    """Return in words which tokens of a cache have no keys any more."""
    return (
        f"KV cache that has dropped tokens {rows.gap.start} to {rows.gap.stop - 1}, which a method "
        "no longer saw; read the prompt again into a new cache"
    )


def _writable(x: Tensor) -> Tensor:
    """Return ``x``, or a copy where PyTorch forbids writing to it.

    A tensor made in inference mode must not be changed in place outside of it.
    """
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x
