"""Region attention in plain torch, on any device, with memory that is linear in the length.

Each key range of a tile is an ordinary attention over contiguous keys, and the parts are merged by
their log-sum-exp. A decode step reads keys that are stored rotated, if its caller has stored them
(``AttentionInputs.rotated_keys``).

Shapes: B batch, H query heads, G key heads, R query heads per key head, Q queries, K keys,
D head dimensions, S regions.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor

from lampe.attention import cpu_flash, eager
from lampe.attention.backend import Backend
from lampe.attention.inputs import AttentionInputs
from lampe.attention.partial_attention import PartialAttention, merge_partials, sink_attention
from lampe.attention.rotated_keys import DecodeStep, columns_of
from lampe.attention.tiling import KeyRange, QueryTile, TileGroup, tile_groups
from lampe.positions import PositionMap

MapSide = tuple[PositionMap, bool]
"""Map of keys, and whether the keys lie after the gap of a cache that has dropped some."""
MappedKeys = dict[MapSide, tuple[int, Tensor]]
"""By key map: keys ``[B, G, n, D]`` rotated by it, and the token index of the first of them."""


class Blockwise(Backend):
    """Attention per key range in plain torch, merged.

    On the CPU it uses torch's flash kernel where that can run, elsewhere the definition.
    """

    name: ClassVar[str] = "blockwise"
    uses_rotated_keys: ClassVar[bool] = True

    def attend_run(self, inputs: AttentionInputs) -> Tensor:
        step = inputs.decode_step
        if step is not None:
            # A decode step brings its own rows of cos and sin: free those of the prompt.
            inputs.tables.clear()
            return self.merge(self._decode_partials(inputs, step)).flatten(1, 2)
        groups = tile_groups(inputs.encoding.plan, inputs.start, inputs.stop, inputs.first)
        query, keys = inputs.grouped_query(), _rotate_keys_by_map(inputs, groups)
        # Outputs are written in place: joining them by ``cat`` would hold all of them twice.
        # With tiles of 2048 instead of 4096 queries this took the measured peak from 400 MB to 311,
        # where plain attention has 298.
        out = query.new_empty(*query.shape[:-1], inputs.value.shape[-1])
        for group in groups:
            start = group.shared.start
            shared = list(self._tile_partials(inputs, group.shared, query, keys))
            if inputs.logits.sinks is not None:
                rows = query[..., start - inputs.start : group.shared.stop - inputs.start, :]
                shared.append(sink_attention(rows, out.shape[-1], inputs.logits.sinks))
            for tile in group.tiles:
                parts = [part.of_queries(tile.start - start, tile.stop - start) for part in shared]
                parts += self._tile_partials(inputs, tile, query, keys)
                own = slice(tile.start - inputs.start, tile.stop - inputs.start)
                out[..., own, :] = self.merge(parts)
        return out.flatten(1, 2)

    def merge(self, parts: Iterable[PartialAttention]) -> Tensor:
        """Return attention ``[B, G, R, Q, D]`` over the keys of all parts."""
        return merge_partials(parts)

    def partials(
        self, inputs: AttentionInputs, keys: KeyRange, q: Tensor, k: Tensor, v: Tensor
    ) -> list[PartialAttention]:
        """Return attention over one key range as parts to be merged.

        Args:
            inputs: scale and logit options.
            keys: which keys each query owns.
            q: ``[B, G, R, Q, D]``, rotated, all queries of the tile.
            k: ``[B, G, K, D]``, rotated, all keys of the range.
            v: ``[B, G, K, D]``.
        """
        left, right = keys.left_diagonal, keys.right_diagonal
        if inputs.logits.softcap is None and cpu_flash.supports(q, v):
            return cpu_flash.partials(
                q, k, v, left_diagonal=left, right_diagonal=right, scale=inputs.scale
            )
        return eager.partials(
            q, k, v,
            left_diagonal=left, right_diagonal=right, scale=inputs.scale, logits=inputs.logits,
        )  # fmt: skip

    def _decode_partials(
        self, inputs: AttentionInputs, step: DecodeStep
    ) -> Iterator[PartialAttention]:
        """Yield the parts of a decode step, which has one query, over stored rotated keys."""
        assert inputs.rotated_keys is not None
        k = inputs.rotated_keys.update(inputs.key, step)
        query = torch.unflatten(inputs.query, 1, (inputs.key.shape[1], -1))
        if step.query_scale is not None:
            # The scale is float32 and would promote queries of half precision.
            query = (query * step.query_scale).to(query.dtype)
        if inputs.logits.sinks is not None:
            yield sink_attention(query, inputs.value.shape[-1], inputs.logits.sinks)
        # One rotation for the queries of all regions: a step is short enough for each launch to
        # count. The copies are expanded first, for a layer may rotate only part of a head.
        query_SBGRQD = query.expand(len(step.key_ranges), *query.shape)
        for keys, q in zip(step.key_ranges, step.rotation.apply(query_SBGRQD), strict=True):
            run = columns_of(keys.start, keys.stop, step.gap)
            yield from self.partials(inputs, keys, q, k[:, :, run], inputs.value[:, :, run])

    def _tile_partials(
        self, inputs: AttentionInputs, tile: QueryTile, query: Tensor, mapped_keys: MappedKeys
    ) -> Iterator[PartialAttention]:
        """Yield the parts of a tile. ``query[B, G, R, Q, D]`` are all queries, not rotated."""
        query = query[..., tile.start - inputs.start : tile.stop - inputs.start, :]
        for keys in tile.key_ranges:
            positions = keys.region.query
            q = inputs.tables.rotate_queries(query, positions, inputs.encoding, tile.start)
            first_token, rotated = mapped_keys[_map_side(inputs, keys)]
            k = rotated[:, :, keys.start - first_token : keys.stop - first_token]
            v = inputs.value[:, :, inputs.key_columns(keys.start, keys.stop)]
            yield from self.partials(inputs, keys, q, k, v)


def _rotate_keys_by_map(inputs: AttentionInputs, groups: tuple[TileGroup, ...]) -> MappedKeys:
    """Rotate the keys once per distinct key map, as far as some tile needs them."""
    # Regions often share a map, and tiles share keys; rotating per key range would repeat the work.
    spans: dict[MapSide, tuple[int, int]] = {}
    for group in groups:
        for keys in chain.from_iterable(tile.key_ranges for tile in (group.shared, *group.tiles)):
            map_side = _map_side(inputs, keys)
            start, stop = spans.get(map_side, (keys.start, keys.stop))
            spans[map_side] = min(start, keys.start), max(stop, keys.stop)
    mapped_keys: MappedKeys = {}
    for map_side, (start, stop) in spans.items():
        key = inputs.key[:, :, inputs.key_columns(start, stop)]
        rotated = inputs.tables.rotate_keys(key, map_side[0], inputs.encoding, start)
        mapped_keys[map_side] = start, rotated
    return mapped_keys


def _map_side(inputs: AttentionInputs, keys: KeyRange) -> MapSide:
    """Return the map of a range's keys, and on which side of the gap they lie."""
    return keys.region.key, keys.start >= inputs.gap.stop
