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
        # Masks are made for a configuration, by which the patch finds its model and the prompt.
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
        # Before keys are sliced: the cache's layer is recognised by the very tensor.
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
