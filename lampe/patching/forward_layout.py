"""What the layers of one forward call must know of it, in place of an attention mask.

transformers calls a registered mask function once per forward call and kind of layer, and hands what it returns to the
layers of that kind. Ours returns no mask: causality is in the plan. It returns a frame: which tokens are new, which
columns of a padded batch are real, and how far a layer of this kind sees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function

from lampe.errors import UnsupportedModel
from lampe.positions import LocalWindow

FIELDS = 8
FAULTS = (
    "",
    "the attention mask has holes: pad a row on one side only",
    "attention is not plainly causal here (packed sequences, or a mask of the model's own)",
)


@dataclass(frozen=True)
class ForwardLayout:
    """What the layers of one kind share in one forward call.

    It travels in place of the attention mask, as a small tensor of four dimensions, which transformers hands on
    untouched. The numbers lie along the second dimension, so that a model which cuts the last to its keys cuts nothing.

    Args:
        start: tokens already in the cache.
        stop: tokens in the cache at the end of the call.
        rows: the real tokens of each row as a range of token indices; one range for all where no row is padded.
        offset: token index of the first key that a layer of this kind is handed; a sliding window's cache forgets.
        local: how far layers of this kind see; None for as far as there is.
        fault: which of ``FAULTS`` the mask has, if any; a model may make masks that no layer uses.
    """

    start: int
    stop: int
    rows: tuple[range, ...]
    offset: int = 0
    local: LocalWindow | None = None
    fault: int = 0

    def to_mask(self) -> Tensor:
        """``[rows, FIELDS, 1, 1]`` int64, on the CPU so that reading it never waits for a device."""
        local = (self.local.size, int(self.local.chunked)) if self.local else (0, 0)
        shared = (self.start, self.stop, self.offset, self.fault, *local)
        return torch.tensor([[*shared, row.start, row.stop] for row in self.rows])[:, :, None, None]

    @classmethod
    def from_mask(cls, mask: Tensor | None) -> Self:
        """The frame that a mask carries.

        Raises:
            UnsupportedModel: for a mask that did not come from here, or one with a fault.
        """
        if mask is None or mask.dtype != torch.int64 or mask.shape[1:] != (FIELDS, 1, 1):
            raise UnsupportedModel(
                "lampe needs a 2D attention mask, or none: a custom 4D mask, or one that the model changes on its way "
                "to a layer, is not supported"
            )
        rows = mask[:, :, 0, 0].tolist()
        start, stop, offset, fault, size, chunked, _, _ = rows[0]
        if fault:
            raise UnsupportedModel(FAULTS[fault])
        local = LocalWindow(size, bool(chunked)) if size else None
        return cls(
            start, stop, tuple(range(first, last) for *_, first, last in rows), offset, local
        )


def layout_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    **options: Any,
) -> Tensor:
    """The function that transformers calls once per forward call and kind of layer; its answer reaches those layers.

    A layer refuses a mask of anything but causal attention, all of it or a local part, over rows padded on one side. A
    mask function that is not transformers' causal one is judged by asking it about pairs: every query with its
    neighbours, at distances of powers of two, and at the edges of a local part.
    """
    start, stop = int(q_offset), int(q_offset) + q_length
    rows = _rows(attention_mask, stop)
    if rows is None:
        return ForwardLayout(start, stop, (range(stop),), fault=1).to_mask()
    if mask_function is causal_mask_function:
        return ForwardLayout(start, stop, rows, int(kv_offset)).to_mask()
    places = rows * batch_size if len(rows) < batch_size else rows
    asked = _SampledMask(mask_function, places, start, stop, local_size or 0, options.get("device"))
    choices = (
        (LocalWindow(local_size), LocalWindow(local_size, chunked=True)) if local_size else (None,)
    )
    fits = [local for local in choices if asked.agrees(local)]
    return ForwardLayout(
        start, stop, rows, int(kv_offset), fits[0] if fits else None, fault=0 if fits else 2
    ).to_mask()


def _rows(attention_mask: Tensor | None, stop: int) -> tuple[range, ...] | None:
    """The real tokens of each row, one range for all where no row is padded; None where a row has holes."""
    real = None if attention_mask is None else attention_mask[:, :stop].bool()
    if real is None or bool(real.all()):
        return (range(stop),)
    counts = real.sum(-1)
    firsts = real.int().argmax(-1)
    rows = tuple(
        range(first, first + count)
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)
    )
    if any(
        not bool(real[row, tokens.start : tokens.stop].all()) for row, tokens in enumerate(rows)
    ):
        return None
    return rows


class _SampledMask:
    """What a mask function says of the queries ``start..stop`` of every row, about keys at telling distances."""

    def __init__(
        self,
        function: Callable[..., Any],
        rows: tuple[range, ...],
        start: int,
        stop: int,
        size: int,
        device: Any,
    ) -> None:
        row = torch.arange(len(rows), device=device)[:, None, None]
        first = torch.tensor([tokens.start for tokens in rows], device=device)[:, None, None]
        last = torch.tensor([tokens.stop for tokens in rows], device=device)[:, None, None]
        query = torch.arange(start, stop, device=device)[None, :, None]
        powers = [1 << power for power in range(stop.bit_length())]
        key = query - torch.tensor([-1, 0, *powers, size - 1, size, size + 1], device=device)
        self.real = (first <= query) & (query < last) & (first <= key) & (key < last)
        self.query, self.key = query - first, key - first
        self.seen = function(
            row, 0, query.expand(self.real.shape), key.clamp(0, stop - 1).expand(self.real.shape)
        )

    def agrees(self, local: LocalWindow | None) -> bool:
        """Whether it is causal attention, all of it or a local part."""
        expected = self.key <= self.query
        if local is not None:
            expected = expected & (local.first(self.query) <= self.key)
        return bool(((self.seen == expected) | ~self.real).all())
