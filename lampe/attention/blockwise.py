"""Region attention in plain torch, on any device, with memory linear in the length.

Each region of a tile is an ordinary attention over one run of keys, and the parts are merged by log-sum-exp. A step of
an answer reads keys that are turned already, where the caller keeps them (``Call.turned``).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from lampe.attention import cpu_flash, eager
from lampe.attention.backend import Backend
from lampe.attention.inputs import AttentionInputs
from lampe.attention.partial_attention import PartialAttention, merge_partials, sink_attention
from lampe.attention.rotated_keys import DecodeStep
from lampe.attention.rotation import rotate
from lampe.attention.tiling import KeyRange, QueryTile, tile_plan
from lampe.positions import PositionMap

Keys = Callable[[KeyRange], Tensor]
"""The rotated keys of a piece, ``[B, G, K, D]``."""


class Blockwise(Backend):
    """Torch's flash kernel on the CPU where it can serve, the definition elsewhere."""

    name: ClassVar[str] = "blockwise"
    turns: ClassVar[bool] = True

    def attend(self, call: AttentionInputs) -> Tensor:
        if step := call.step():
            call.tables.forget()
            return self.merged(self._step_parts(call, step)).flatten(1, 2)
        tiles = tile_plan(call.encoding.plan, call.start, call.stop, call.first)
        query, keys = call.grouped_query(), _keys(call, tiles)
        if len(tiles) == 1:
            return self.merged(self._parts(call, tiles[0], query, keys)).flatten(1, 2)
        out = query.new_empty(*query.shape[:-1], call.value.shape[-1])
        for tile in tiles:
            rows = slice(tile.begin - call.start, tile.end - call.start)
            out[..., rows, :] = self.merged(self._parts(call, tile, query, keys))
        return out.flatten(1, 2)

    def merged(self, parts: Iterable[PartialAttention]) -> Tensor:
        """Output of all parts together."""
        return merge_partials(parts)

    def partials(
        self, call: AttentionInputs, piece: KeyRange, q: Tensor, k: Tensor, v: Tensor
    ) -> list[PartialAttention]:
        """The parts of one piece: ``q[B, G, R, Q, D]`` over ``k[B, G, K, D]`` and ``v[B, G, K, D]``."""
        if call.logits.softcap is None and cpu_flash.serves(q, v):
            return cpu_flash.partials(q, k, v, left=piece.left, right=piece.right, scale=call.scale)
        return eager.partials(
            q, k, v, left=piece.left, right=piece.right, scale=call.scale, logits=call.logits
        )

    def _step_parts(self, call: AttentionInputs, step: DecodeStep) -> Iterator[PartialAttention]:
        """The parts of one query over keys that are kept turned."""
        assert call.turned is not None
        keys, rope = call.turned.update(call.key, step), call.encoding.rope
        query = torch.unflatten(call.query, 1, (call.key.shape[1], -1))
        rows = query if step.heat is None else (query * step.heat).to(query.dtype)
        if call.logits.sinks is not None:
            yield sink_attention(rows, call.value.shape[-1], call.logits.sinks)
        queries = rows.expand(len(step.pieces), *rows.shape)
        for piece, q in zip(
            step.pieces, rotate(queries, step.cos, step.sin, rope.layout, rope.begin), strict=True
        ):
            run = slice(piece.low, piece.high)
            yield from self.partials(call, piece, q, keys[:, :, run], call.value[:, :, run])

    def _parts(
        self, call: AttentionInputs, tile: QueryTile, query: Tensor, keys: Keys
    ) -> Iterator[PartialAttention]:
        rows = query[..., tile.begin - call.start : tile.end - call.start, :]
        if call.logits.sinks is not None:
            yield sink_attention(rows, call.value.shape[-1], call.logits.sinks)
        for piece in tile.pieces:
            q = call.tables.queries(rows, piece.region.query, call.encoding, tile.begin)
            v = call.value[:, :, piece.low - call.first : piece.high - call.first]
            yield from self.partials(call, piece, q, keys(piece), v)


def _keys(call: AttentionInputs, tiles: tuple[QueryTile, ...]) -> Keys:
    """What gives each piece its keys; those of regions with one map are turned together, once."""
    owned: dict[PositionMap, tuple[int, int]] = {}
    for piece in (piece for tile in tiles for piece in tile.pieces):
        low, high = owned.get(piece.region.key, (piece.low, piece.high))
        owned[piece.region.key] = min(low, piece.low), max(high, piece.high)
    turned = {
        positions: (low, _turn(call, positions, low, high))
        for positions, (low, high) in owned.items()
    }

    def of(piece: KeyRange) -> Tensor:
        low, keys = turned[piece.region.key]
        return keys[:, :, piece.low - low : piece.high - low]

    return of


def _turn(call: AttentionInputs, positions: PositionMap, low: int, high: int) -> Tensor:
    keys = call.key[:, :, low - call.first : high - call.first]
    return call.tables.keys(keys, positions, call.encoding, low)
