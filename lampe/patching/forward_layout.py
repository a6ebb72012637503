"""Layout of a forward call: what its attention layers must know of the batch.

transformers calls a registered mask function once per forward call and kind of layer, and hands the
result to the layers of that kind. Ours does not make a mask, because causality is part of the
position plan. It makes a layout: which tokens are new, where the prompt ends, which columns of a
padded batch hold tokens, and how far a layer of this kind attends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function

from lampe.errors import UnsupportedModel
from lampe.positions import LocalWindow

# Numbers per row of the tensor: nine that all rows share, and the row's own two columns.
FIELDS = 11
HOLES = 1
NOT_CAUSAL = 2
FOREIGN_CONFIGURATION = 3
FAULTS = {
    HOLES: "the attention mask has holes: pad a row on one side only",
    NOT_CAUSAL: (
        "attention is not plainly causal here (packed sequences, or a mask of the model's own)"
    ),
    FOREIGN_CONFIGURATION: (
        "cannot tell which prompt this call belongs to: its mask was made with another "
        "configuration than that of the patched model"
    ),
}


@dataclass(frozen=True)
class ForwardLayout:
    """Batch layout that the layers of one kind share in one forward call.

    It travels in place of the attention mask, as a small tensor of four dimensions, because that
    is the only value that transformers passes on from the mask function to every layer. The numbers
    lie along the second dimension: some models cut the last one to the number of their keys.

    Attributes:
        start: tokens that the KV cache held before the call.
        stop: tokens that the KV cache holds after the call.
        rows: columns that hold the tokens of each row, counted from the start of the KV cache; one
            range for all rows where none is padded.
        offset: column of the first key that a layer of this kind receives. It is not 0 where the
            cache of a sliding window has dropped tokens.
        local: tokens that a layer of this kind attends to; None for all.
        fault: key of ``FAULTS``, or 0. It is raised by the layer that reads the layout, because a
            model may make masks that no layer uses.
        prompt_end: column after the last token of the prompt; 0 for a call that continues the
            answer of its KV cache, which knows its prompt.
        reserved_tokens: tokens after the prompt's end for which its plan is made as well.
        unmasked: True for several rows without a mask and without a stated length. Such rows of a
            prompt may end before others, which later calls must not go on from.
    """

    start: int
    stop: int
    rows: tuple[range, ...]
    offset: int = 0
    local: LocalWindow | None = None
    fault: int = 0
    prompt_end: int = 0
    reserved_tokens: int = 0
    unmasked: bool = False

    @property
    def padded(self) -> bool:
        """Return True where any row is padded."""
        return self.rows != (range(self.stop),)

    def to_mask(self) -> Tensor:
        """Return the layout as a tensor ``[rows, FIELDS, 1, 1]`` int64."""
        local = (self.local.size, int(self.local.chunked)) if self.local else (0, 0)
        shared = (self.start, self.stop, self.prompt_end, self.offset, self.fault, *local)
        prompt = self.reserved_tokens, int(self.unmasked)
        fields = [[*shared, *prompt, row.start, row.stop] for row in self.rows]
        # On the CPU, so that reading it never waits for a device.
        return torch.tensor(fields)[:, :, None, None]

    @classmethod
    def from_mask(cls, mask: Tensor | None) -> Self:
        """Return the layout that a mask carries.

        Raises:
            UnsupportedModel: for a mask that is not a layout, or a layout with a fault.
        """
        if mask is None or mask.dtype != torch.int64 or mask.shape[1:] != (FIELDS, 1, 1):
            raise UnsupportedModel(
                "lampe needs a 2D attention mask, or none: a custom 4D mask, or one that the model "
                "changes on its way to a layer, is not supported"
            )
        # One flat list: this runs in every layer, and slicing a tensor costs more than reading it.
        fields = mask.flatten().tolist()
        shared = fields[: FIELDS - 2]
        start, stop, prompt_end, offset, fault, size, chunked, reserved, unmasked = shared
        if fault:
            raise UnsupportedModel(FAULTS[fault])
        first_columns = fields[FIELDS - 2 :: FIELDS]
        last_columns = fields[FIELDS - 1 :: FIELDS]
        rows = tuple(map(range, first_columns, last_columns))
        local = LocalWindow(size, bool(chunked)) if size else None
        return cls(start, stop, rows, offset, local, 0, prompt_end, reserved, bool(unmasked))


def read_layout(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    **options: Any,
) -> ForwardLayout:
    """Return the layout that the arguments of a transformers mask function describe.

    Supported is causal attention, to all tokens or to a local window, over rows that are padded on
    one side. Anything else gives a layout with a fault.
    """
    start = int(q_offset)
    stop = start + q_length
    rows = _token_columns(attention_mask, stop)
    if rows is None:
        return ForwardLayout(start, stop, (range(stop),), fault=HOLES)
    if mask_function is causal_mask_function:
        return ForwardLayout(start, stop, rows, int(kv_offset))
    # Any other mask function is an opaque function of pairs of tokens. It is evaluated on sampled
    # pairs, and on every row: it may differ between rows even where none is padded.
    sampled_rows = rows * batch_size if len(rows) < batch_size else rows
    sampled = _SampledMask(
        mask_function, sampled_rows, start, stop, local_size or 0, options.get("device")
    )
    candidates: list[LocalWindow | None] = [None]
    if local_size:
        candidates = [LocalWindow(local_size), LocalWindow(local_size, chunked=True)]
    for local in candidates:
        if sampled.agrees(local):
            return ForwardLayout(start, stop, rows, int(kv_offset), local)
    return ForwardLayout(start, stop, rows, int(kv_offset), fault=NOT_CAUSAL)


def _token_columns(attention_mask: Tensor | None, stop: int) -> tuple[range, ...] | None:
    """Return the columns of each row's tokens; one range where no row is padded, None for holes."""
    real = None if attention_mask is None else attention_mask[:, :stop].bool()
    # This check comes first because a batch without padding must be recognised as such: it is
    # attended to as a whole.
    if real is None or bool(real.all()):
        return (range(stop),)
    counts = real.sum(-1).tolist()
    firsts = real.int().argmax(-1).tolist()
    rows = []
    for index, (first, count) in enumerate(zip(firsts, counts, strict=True)):
        # A row without tokens has first 0 and count 0: an empty range and no hole.
        if not bool(real[index, first : first + count].all()):
            return None
        rows.append(range(first, first + count))
    return tuple(rows)


class _SampledMask:
    """Values of a mask function for the queries ``start..stop`` of every row, at sampled keys."""

    def __init__(
        self,
        function: Callable[..., Any],
        rows: tuple[range, ...],
        start: int,
        stop: int,
        local_size: int,
        device: Any,
    ) -> None:
        row = torch.arange(len(rows), device=device)[:, None, None]
        first = torch.tensor([tokens.start for tokens in rows], device=device)[:, None, None]
        last = torch.tensor([tokens.stop for tokens in rows], device=device)[:, None, None]
        query = torch.arange(start, stop, device=device)[None, :, None]
        # Each query's neighbours, distances of powers of two, and the edges of its local window.
        powers = [1 << power for power in range(stop.bit_length())]
        # The distance -1 is a later token: a mask that shows it is not causal.
        distances = [-1, 0, *powers, local_size - 1, local_size, local_size + 1]
        key = query - torch.tensor(distances, device=device)
        query_is_token = (first <= query) & (query < last)
        self._pair_exists = query_is_token & (first <= key) & (key < last)
        self._query = query - first
        self._key = key - first
        shape = self._pair_exists.shape
        # Keys outside of the call are moved into it, since a mask function may look them up in a
        # tensor; ``_pair_exists`` leaves their values out.
        self._visible = function(row, 0, query.expand(shape), key.clamp(0, stop - 1).expand(shape))

    def agrees(self, local: LocalWindow | None) -> bool:
        """Return whether the values are those of causal attention within ``local``."""
        expected = self._key <= self._query
        if local is not None:
            expected = expected & (local.first(self._query) <= self._key)
        return bool(((self._visible == expected) | ~self._pair_exists).all())
