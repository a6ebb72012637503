"""Attention of a model's layers under a method: from a layer's inputs to a backend and back."""

import dataclasses

from torch import Tensor, nn

from lampe.attention import AttentionInputs, BackendDispatcher, LogitOptions
from lampe.attention.rotated_keys import RotatedKeys
from lampe.caches.rotated_key_cache import RotatedKeyCache
from lampe.errors import UnsupportedModel
from lampe.patching.batch_rows import BatchRow, batch_rows
from lampe.patching.forward_layout import ForwardLayout
from lampe.patching.layer_encodings import LayerEncoding, LayerEncodings
from lampe.patching.layer_probe import ProbedLayers
from lampe.patching.prompt_boundary import PromptTracker
from lampe.patching.unmasked_batch import RowEnd, row_ends, sampled_lengths


class MethodAttention:
    """Attention handler of a patched model.

    A call depends on its inputs alone: the layout says which tokens and which prompt they belong
    to. So a layer may be run again during backward, as gradient checkpointing does, from any
    thread and after the prompt's statement has ended.

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
        self.prompts = PromptTracker()
        self.encodings = encodings
        self.rotated_keys = RotatedKeyCache()
        self.dispatcher = dispatcher

    def complete_layout(self, layout: ForwardLayout, unmasked_rows: int) -> ForwardLayout:
        """Return a layout with the prompt's end, and with rows that no mask describes.

        Raises:
            UnsupportedModel: where a row's plan depends on its length, and that cannot be told.
        """
        prompts = self.prompts
        layout = dataclasses.replace(layout, prompt_end=prompts.prompt_end(layout))
        tokens = layout.stop - layout.start
        inputs = prompts.inputs
        is_masked = not unmasked_rows or (inputs is not None and inputs.masked)
        if layout.start == 0:
            prompts.has_ended_rows = False
        # A row alone has no padding, and one new token is no prompt that could be padded.
        if is_masked or unmasked_rows == 1 or prompts.stated_length is not None:
            return layout
        if tokens == 1 and not prompts.has_ended_rows:
            return layout
        rows = None
        if not prompts.has_ended_rows:
            rows = self._unmasked_rows(layout, row_ends(inputs, unmasked_rows, tokens))
        if layout.start and rows != layout.rows:
            raise UnsupportedModel(
                "a row of this batch ends before others, and there is no attention mask: to go on "
                "after such a prompt, pad rows on the left and give a mask"
            )
        if rows is None or rows == layout.rows:
            return layout
        prompts.has_ended_rows = True
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
        """Return the attention of one layer, ``[B, H, Q, D]``; padded rows are run one by one.

        Raises:
            UnsupportedModel: for attention that the probe did not see, or a mask that is no layout.
        """
        if module not in self._layers.by_module:
            raise UnsupportedModel(
                f"{type(module).__name__} attends to more than the tokens of a text"
            )
        layout = ForwardLayout.from_mask(mask)
        if not layout.prompt_end:
            raise UnsupportedModel(
                f"cannot tell which prompt {type(module).__name__} attends to: its mask was made "
                "with another configuration than that of the patched model"
            )
        layer = dataclasses.replace(self._layers.by_module[module], local=layout.local)
        rows = batch_rows(layout)
        encodings = self.encodings.for_layer(
            layer, [row.prompt_length for row in rows], layout.stop - layout.prompt_end
        )
        rotated = self.rotated_keys.rows_of(key)
        if not layout.padded:
            keys = None if rotated is None else rotated.all_rows(key)
            return self._attend_row(rows[0], encodings[0], query, key, value, scale, logits, keys)
        # Columns of padding stay 0. Each row needs a plan and positions of its own, so padded rows
        # cannot share one backend call.
        out = query.new_zeros(*query.shape[:3], value.shape[-1])
        for row, encoding in zip(rows, encodings, strict=True):
            columns = row.query_columns
            if row.index is None or columns.start == columns.stop:
                continue
            first_column = row.key_columns.start
            keys = None if rotated is None else rotated.single_row(key, row.index, first_column)
            out[row.batch, :, columns] = self._attend_row(
                row,
                encoding,
                query[row.batch, :, columns],
                key[row.batch],
                value[row.batch],
                scale,
                logits,
                keys,
            )
        return out

    def _attend_row(
        self,
        row: BatchRow,
        encoding: LayerEncoding,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        logits: LogitOptions,
        rotated_keys: RotatedKeys | None,
    ) -> Tensor:
        columns = row.key_columns
        inputs = AttentionInputs(
            query,
            key[:, :, columns],
            value[:, :, columns],
            encoding.encoding,
            scale=scale,
            start=row.first_query,
            first=row.first_key,
            logits=logits,
            tables=encoding.tables,
            rotated_keys=rotated_keys,
        )
        return self.dispatcher.attend(inputs)
