"""Attention of a model's layers under a method: from a layer's inputs to a backend and back."""

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from lampe.attention import AttentionInputs, BackendDispatcher
from lampe.attention.rotated_keys import RotatedKeyRows, RotatedKeys
from lampe.caches.rotated_key_cache import RotatedKeyCache
from lampe.errors import UnsupportedModel
from lampe.patching.attention_interface import LayerCall
from lampe.patching.batch_rows import BatchRow, batch_rows
from lampe.patching.forward_layout import ForwardLayout
from lampe.patching.layer_encodings import LayerEncoding, LayerEncodings
from lampe.patching.layer_probe import ProbedLayers
from lampe.patching.prompt_boundary import PromptTracker, ended_rows_without_mask
from lampe.patching.unmasked_batch import RowEnd, row_ends, sampled_lengths
from lampe.positions import PositionPlan, VisibleTokens


class _ThreadDispatcher(threading.local):
    """Dispatcher that the calling thread uses instead of the patch's; None for the patch's."""

    def __init__(self) -> None:
        self.dispatcher: BackendDispatcher | None = None


class MethodAttention:
    """Attention handler of a patched model.

    A call depends on its inputs and its KV cache alone: the layout says which tokens they are, and
    it or the cache says which prompt they belong to. So a layer may be run again during backward,
    as gradient checkpointing does, from any thread and after the prompt's statement has ended.

    Attributes:
        prompts: owner of the prompt's end.
        encodings: encodings of the method on the model's layers.
        rotated_keys: rotated keys of the model's KV caches.
        dispatcher: chooser of the backend.
    """

    def __init__(
        self, layers: ProbedLayers, encodings: LayerEncodings, dispatcher: BackendDispatcher
    ) -> None:
        self._layers = layers
        self._thread = _ThreadDispatcher()
        self.prompts = PromptTracker()
        self.encodings = encodings
        self.rotated_keys = RotatedKeyCache()
        self.dispatcher = dispatcher

    def release(self) -> None:
        """Free what was computed for prompts and KV caches, in all threads."""
        self.encodings.release()
        self.rotated_keys.release()

    @contextmanager
    def dispatching(self, dispatcher: BackendDispatcher) -> Iterator[None]:
        """Let another dispatcher choose backends for the calling thread within a block."""
        outer = self._thread.dispatcher
        self._thread.dispatcher = dispatcher
        try:
            yield
        finally:
            self._thread.dispatcher = outer

    def complete_layout(self, layout: ForwardLayout, unmasked_rows: int) -> ForwardLayout:
        """Return a layout with the prompt's end, and with rows that no mask describes.

        Raises:
            UnsupportedModel: where a row's plan depends on its length, and that cannot be told.
        """
        prompt_end = self.prompts.end_without_cache(layout)
        layout = dataclasses.replace(
            layout, prompt_end=prompt_end, reserved_tokens=self.prompts.reserved_tokens
        )
        inputs = self.prompts.inputs
        is_masked = not unmasked_rows or (inputs is not None and inputs.masked)
        # A row alone has no padding.
        if is_masked or unmasked_rows == 1 or self.prompts.stated_length is not None:
            return layout
        layout = dataclasses.replace(layout, unmasked=True)
        tokens = layout.stop - layout.start
        # One new token is no prompt that could be padded.
        if tokens == 1:
            return layout
        rows = self._unmasked_rows(layout, row_ends(inputs, unmasked_rows, tokens))
        if layout.start and rows != layout.rows:
            raise ended_rows_without_mask()
        return dataclasses.replace(layout, rows=rows)

    def _unmasked_rows(self, layout: ForwardLayout, ends: list[RowEnd]) -> tuple[range, ...]:
        """Return the columns of each row's tokens; one range where lengths make no difference."""
        for end in dict.fromkeys(ends):
            lengths = sampled_lengths(layout.start + end.least, layout.start + end.most)
            if self.encodings.depend_on_length(lengths):
                raise UnsupportedModel(
                    f"cannot tell where row {ends.index(end)} of a batch of {len(ends)} ends: "
                    "there is no attention mask, and the row may have "
                    f"{lengths[-1]} to {lengths[0]} tokens, on which positions depend; give an "
                    "attention mask, score one row at a time, or state one length for all rows "
                    "with handle.prompt(length)"
                )
        stops = [layout.start + end.most for end in ends]
        if not self.encodings.depend_on_length([layout.stop, *stops]):
            return layout.rows
        return tuple(range(stop) for stop in stops)

    def attend(self, call: LayerCall) -> Tensor:
        """Return the attention of one layer, ``[B, H, Q, D]``; padded rows are run one by one.

        Raises:
            UnsupportedModel: for attention that the probe did not see, a mask that is no layout, or
                a token that continues no prompt.
        """
        if call.module not in self._layers.by_module:
            raise UnsupportedModel(
                f"{type(call.module).__name__} attends to more than the tokens of a text"
            )
        layout = ForwardLayout.from_mask(call.mask)
        layout = self.prompts.layout_with_end(layout, self.rotated_keys.current_cache())
        layer = dataclasses.replace(self._layers.by_module[call.module], local=layout.local)
        rows = batch_rows(layout)
        # The reserved tokens of the answer are planned with the prompt, so they share its plan.
        reserved = layout.reserved_tokens
        encodings = self.encodings.for_layer(
            layer,
            [row.prompt_length + reserved for row in rows],
            layout.stop - layout.prompt_end - reserved,
            layout.stop - layout.start,
        )
        rotated = self.rotated_keys.rows_of(call.key)
        if rotated is not None:
            plans = [encoding.encoding.plan for encoding in encodings]
            _require_keys(rotated.gap, rows, plans)
            # A row whose tokens are still to come will have first tokens of its own.
            has_all_rows = len(rows) == len(layout.rows)
            rotated.visible = _visible_columns(rows, plans) if has_all_rows else None
        if not layout.padded:
            return self._attend_row(call, rows[0], encodings[0], rotated)
        # Columns of padding stay 0. Each row needs a plan and positions of its own, so padded rows
        # cannot share one backend call.
        out = call.query.new_zeros(*call.query.shape[:3], call.value.shape[-1])
        for row, encoding in zip(rows, encodings, strict=True):
            columns = row.query_columns
            if columns.start < columns.stop:
                out[row.batch, :, columns] = self._attend_row(call, row, encoding, rotated)
        return out

    def _attend_row(
        self,
        call: LayerCall,
        row: BatchRow,
        encoding: LayerEncoding,
        rotated: RotatedKeyRows | None,
    ) -> Tensor:
        """Return the attention of a row, or of all rows together, ``[rows, H, Q, D]``."""
        columns = row.key_columns
        if rotated is not None:
            columns = slice(columns.start, columns.stop - len(rotated.gap))
        inputs = AttentionInputs(
            call.query[row.batch, :, row.query_columns],
            call.key[row.batch, :, columns],
            call.value[row.batch, :, columns],
            encoding.encoding,
            scale=call.scale,
            start=row.first_query,
            first=row.first_key,
            logits=call.logits,
            tables=encoding.tables,
            rotated_keys=None if rotated is None else _keys_of_row(rotated, call.key, row),
        )
        dispatcher = self._thread.dispatcher or self.dispatcher
        return dispatcher.attend(inputs)


def _require_keys(gap: range, rows: list[BatchRow], plans: list[PositionPlan]) -> None:
    """Raise UnsupportedModel where queries see columns that their KV cache has dropped."""
    if not gap:
        return
    for row, plan in zip(rows, plans, strict=True):
        begin, visible = row.tokens.start, plan.visible
        first_query = begin + row.first_query
        if (
            visible is None
            or gap.start < begin + visible.first
            or first_query - visible.last < gap.stop
        ):
            raise UnsupportedModel(
                f"token {first_query} sees tokens {gap.start} to {gap.stop - 1} or some of them, "
                "which its KV cache has dropped, as the method did not see them before; read the "
                "prompt again into a new cache"
            )


def _visible_columns(rows: list[BatchRow], plans: list[PositionPlan]) -> VisibleTokens | None:
    """Return what the rows see from this call on, as columns; None where one may see all."""
    first, last = 0, 0
    for row, plan in zip(rows, plans, strict=True):
        visible = plan.visible
        if visible is None:
            return None
        first = max(first, row.tokens.start + visible.first)
        last = max(last, visible.last)
    return VisibleTokens(first, last)


def _keys_of_row(rotated: RotatedKeyRows, key: Tensor, row: BatchRow) -> RotatedKeys:
    """Return the rotated keys of a row, or of all rows together."""
    if row.index is None:
        return rotated.all_rows(key)
    return rotated.single_row(key, row.index, row.key_columns.start)
