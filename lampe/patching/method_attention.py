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
from lampe.patching.prompt_boundary import PromptTracker


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

    def prompt_end(self, layout: ForwardLayout) -> int:
        """Return the prompt's end as the call tells it; 0 where its KV cache has to tell."""
        return self.prompts.end_without_cache(layout)

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
        cache = self.rotated_keys.current_cache()
        prompt_end = self.prompts.end_with_cache(layout, cache)
        layout = dataclasses.replace(layout, prompt_end=prompt_end)
        layer = dataclasses.replace(self._layers.by_module[call.module], local=layout.local)
        rows = batch_rows(layout)
        encodings = self.encodings.for_layer(
            layer, [row.prompt_length for row in rows], layout.stop - prompt_end
        )
        rotated = self.rotated_keys.rows_of(call.key)
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


def _keys_of_row(rotated: RotatedKeyRows, key: Tensor, row: BatchRow) -> RotatedKeys:
    """Return the rotated keys of a row, or of all rows together."""
    if row.index is None:
        return rotated.all_rows(key)
    return rotated.single_row(key, row.index, row.key_columns.start)
