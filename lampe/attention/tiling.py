"""How a backend walks a plan: tiles of queries, and in each tile one run of keys per region.

A tile ends where the edges of a region begin to behave differently, so that within it the run of keys that a query owns
has edges which either stand still or move on by one key per query. A whole prompt under LaMPE is three tiles.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lampe.positions import PositionPlan, Region

MAX_TILE_TOKENS = 2048
"""Largest tile in tokens, which bounds what a tile holds."""


@dataclass(frozen=True)
class KeyRange:
    """The keys ``low..high`` that a tile's queries own in a region.

    Args:
        region: the region.
        low, high: token indices; every key between is owned by some query of the tile.
        left: whether the first key that a query owns moves on by one per query, from ``low``; else it is ``low``.
        right: whether the last one does, up to ``high - 1``; else it is ``high - 1``.
    """

    region: Region
    low: int
    high: int
    left: bool
    right: bool


@dataclass(frozen=True)
class QueryTile:
    """The queries ``begin..end`` (token indices) with their pieces."""

    begin: int
    end: int
    pieces: tuple[KeyRange, ...]


@lru_cache(maxsize=64)
def tile_plan(plan: PositionPlan, start: int, stop: int, first: int) -> tuple[QueryTile, ...]:
    """Tiles of the queries ``start..stop`` over the keys from ``first`` on; their pieces are the plan's pairs."""
    query = torch.arange(start, stop)
    edges = [_edges(region, query, first) for region in plan]
    cut = (query[1:] - start) % MAX_TILE_TOKENS == 0
    if len(query) > 1:
        for low, high in edges:
            cut |= _turns(low, high)
    begins = [0, *(cut.nonzero()[:, 0] + 1).tolist()]
    ends = [*begins[1:], len(query)]
    at = torch.tensor(
        [
            begins,
            [min(b + 1, e - 1) for b, e in zip(begins, ends, strict=True)],
            [e - 1 for e in ends],
        ]
    )
    corners = [
        (region, low[at].T.tolist(), high[at].T.tolist())
        for region, (low, high) in zip(plan, edges, strict=True)
    ]
    return tuple(
        QueryTile(
            start + begin,
            start + end,
            tuple(
                KeyRange(
                    region,
                    low[tile][0],
                    high[tile][2] + 1,
                    low[tile][0] < low[tile][1],
                    high[tile][0] < high[tile][1],
                )
                for region, low, high in corners
                if low[tile][0] <= high[tile][0]
            ),
        )
        for tile, (begin, end) in enumerate(zip(begins, ends, strict=True))
    )


def _edges(region: Region, query: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """First and last key that each query owns, both -1 where it owns none."""
    low, high = region.span(query)
    low = low.clamp(min=first)
    owns = low <= high
    return low.where(owns, 0), high.where(owns, -1)


def _turns(low: Tensor, high: Tensor) -> Tensor:
    """``[Q - 1]``: whether a tile has to end between a query and the next."""
    steps = torch.stack((low.diff(), high.diff()))
    jumps = ((steps != 0) & (steps != 1)).any(0) | ((high[1:] < 0) != (high[:-1] < 0))
    bends = torch.zeros_like(jumps)
    bends[1:] = (steps[:, 1:] != steps[:, :-1]).any(0) & ~jumps[:-1]
    return jumps | bends
