"""Tiles of a plan: runs of queries, and for each of them one run of keys per region.

The keys that one query owns in a region are contiguous, because a region owns a query's pairs by
block distance, an interval (``Region.span``). So a query needs two numbers per region: its first
and its last owned key, here called the edges. From one query to the next an edge either stays
where it is, moves on by one key, or jumps.

A tile ends where an edge of some region begins to behave differently, or jumps. Within a tile every
edge is therefore either vertical (the same key for all queries) or diagonal (one key further per
query), and the pairs of a region have one of four shapes, drawn with queries downwards and keys to
the right:

    vertical, vertical    vertical, diagonal    diagonal, vertical    diagonal, diagonal
    # # # # #             # # # . .             # # # # #             # # # . .
    # # # # #             # # # # .             . # # # #             . # # # .
    # # # # #             # # # # #             . . # # #             . . # # #

Flash kernels process each shape in one call: as full attention, under a causal mask, or in a window
that ends on one side or both. A whole prompt under LaMPE is three tiles, whatever its length, apart
from the cuts at ``MAX_TILE_TOKENS``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from lampe.positions import PositionPlan, Region

MAX_TILE_TOKENS = 2048
"""Largest number of queries in a tile, which bounds the memory of a tile's partial outputs."""


GROUP_QUERIES = 768
"""Largest number of queries in a group of tiles.

torch's kernel for the CPU takes a fifth less time per pair from this many queries on.
"""


@dataclass(frozen=True)
class KeyRange:
    """Keys that the queries of a tile own in a region; each of them is owned by some query.

    Attributes:
        region: the region, with its maps of query and key positions.
        start: token index of the first key.
        stop: token index after the last key.
        left_diagonal: whether a query's first owned key moves on by one per query, beginning with
            ``start``. Otherwise it is ``start`` for all queries.
        right_diagonal: whether a query's last owned key moves on by one per query, ending with
            ``stop - 1``. Otherwise it is ``stop - 1`` for all queries.
    """

    region: Region
    start: int
    stop: int
    left_diagonal: bool
    right_diagonal: bool


@dataclass(frozen=True)
class QueryTile:
    """Run of queries with the keys that they own.

    Attributes:
        start: token index of the first query.
        stop: token index after the last query.
        key_ranges: one per region in which the queries own keys, in the order of the plan.
    """

    start: int
    stop: int
    key_ranges: tuple[KeyRange, ...]

    def of_query(self, query: int) -> tuple[KeyRange, ...]:
        """Return the keys that one of the queries owns, as the key ranges of its own tile."""
        before, after = query - self.start, self.stop - 1 - query
        return tuple(
            KeyRange(
                keys.region,
                keys.start + before * keys.left_diagonal,
                keys.stop - after * keys.right_diagonal,
                left_diagonal=False,
                right_diagonal=False,
            )
            for keys in self.key_ranges
        )


@dataclass(frozen=True)
class TileGroup:
    """Neighboring tiles, as chunks are, whose queries own keys in common.

    Attributes:
        shared: all queries of the group with the keys that they all own.
        tiles: the tiles with their other keys.
    """

    shared: QueryTile
    tiles: tuple[QueryTile, ...]


# All layers of a model ask for the same tiles in one forward call.
@lru_cache(maxsize=64)
def tile_plan(plan: PositionPlan, start: int, stop: int, first: int) -> tuple[QueryTile, ...]:
    """Return the tiles of some queries. Together they hold exactly the pairs of the plan.

    Args:
        plan: the regions.
        start: token index of the first query.
        stop: token index after the last query.
        first: token index of the first key; earlier keys are left out.
    """
    # On the CPU, whatever the model's device: tiles are made of Python integers.
    query = torch.arange(start, stop)
    edges = [_edges(region, query, first) for region in plan]
    tile_starts = _tile_starts(edges, len(query))
    tile_stops = [*tile_starts[1:], len(query)]
    # Three queries describe a tile: the first and the last give the ends of a key range, the first
    # and the second whether an edge moves. They may be the same query.
    sampled = torch.tensor(
        [[a, min(a + 1, b - 1), b - 1] for a, b in zip(tile_starts, tile_stops, strict=True)]
    )
    sampled_edges = [
        (first_keys[sampled].tolist(), last_keys[sampled].tolist())
        for first_keys, last_keys in edges
    ]
    tiles = []
    for index, (tile_start, tile_stop) in enumerate(zip(tile_starts, tile_stops, strict=True)):
        key_ranges = []
        for region, (first_keys, last_keys) in zip(plan, sampled_edges, strict=True):
            key_range = _key_range(region, first_keys[index], last_keys[index])
            if key_range is not None:
                key_ranges.append(key_range)
        tiles.append(QueryTile(start + tile_start, start + tile_stop, tuple(key_ranges)))
    return tuple(tiles)


@lru_cache(maxsize=64)
def tile_groups(plan: PositionPlan, start: int, stop: int, first: int) -> tuple[TileGroup, ...]:
    """Return the tiles of ``tile_plan`` in groups of neighbors that own keys in common."""
    groups: list[TileGroup] = []
    neighbors: list[QueryTile] = []
    for tile in tile_plan(plan, start, stop, first):
        if neighbors and tile.stop - neighbors[0].start > GROUP_QUERIES:
            groups.append(_group(neighbors))
            neighbors = []
        neighbors.append(tile)
    return (*groups, _group(neighbors))


def _group(tiles: list[QueryTile]) -> TileGroup:
    """Return neighboring tiles as a group."""
    queries = tiles[-1].stop - tiles[0].start
    shared: list[KeyRange] = []
    for keys in tiles[0].key_ranges:
        others = [_rectangle(tile, keys.region) for tile in tiles]
        begin = max(other.start for other in others)
        end = min(other.stop for other in others)
        # A call more pays only where it takes most of the work.
        if end - begin >= queries:
            shared.append(KeyRange(keys.region, begin, end, False, False))
    rest = tuple(
        QueryTile(tile.start, tile.stop, tuple(_without(tile.key_ranges, shared))) for tile in tiles
    )
    return TileGroup(QueryTile(tiles[0].start, tiles[-1].stop, tuple(shared)), rest)


def _rectangle(tile: QueryTile, region: Region) -> range:
    """Return the keys of a region that all queries of a tile own, if none of them owns others."""
    for keys in tile.key_ranges:
        if keys.region is region and not keys.left_diagonal and not keys.right_diagonal:
            return range(keys.start, keys.stop)
    return range(0)


def _without(key_ranges: tuple[KeyRange, ...], shared: list[KeyRange]) -> Iterator[KeyRange]:
    """Yield what is left of a tile's keys without those of its group."""
    for keys in key_ranges:
        # Regions by identity: those of a tile are the plan's own, and a plan may have equal ones.
        out = next((each for each in shared if each.region is keys.region), None)
        if out is None:
            yield keys
            continue
        for start, stop in ((keys.start, out.start), (out.stop, keys.stop)):
            if start < stop:
                yield replace(keys, start=start, stop=stop)


def _key_range(region: Region, first_keys: list[int], last_keys: list[int]) -> KeyRange | None:
    """Return a tile's keys in a region, from the edges of its first, second and last query.

    The result is None where the queries own none; a tile has only queries that own some, or none.
    """
    if first_keys[0] > last_keys[0]:
        return None
    return KeyRange(
        region,
        start=first_keys[0],
        # An edge never moves back within a tile, so its last query has the last key.
        stop=last_keys[2] + 1,
        # In a tile of a single query both samples are that query, and each edge is vertical.
        left_diagonal=first_keys[0] < first_keys[1],
        right_diagonal=last_keys[0] < last_keys[1],
    )


def _edges(region: Region, query: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Return the first and last key ``[Q]`` (inclusive) that each query owns from ``first`` on.

    A query that owns none has 0 and -1.
    """
    first_key, last_key = region.span(query)
    first_key = first_key.clamp(min=first)
    owns_some = first_key <= last_key
    # Placeholders that do not depend on the query: its own edges, which nobody sees, would cut such
    # queries into tiles.
    return first_key.where(owns_some, 0), last_key.where(owns_some, -1)


def _tile_starts(edges: list[tuple[Tensor, Tensor]], queries: int) -> list[int]:
    """Return the index of the first query of each tile, from the edges of all regions."""
    # Entry q stands for the cut between the queries q and q + 1.
    cut = torch.arange(1, queries) % MAX_TILE_TOKENS == 0
    if queries > 1:
        for first_key, last_key in edges:
            cut |= _edge_cuts(first_key, last_key)
    return [0, *(cut.nonzero()[:, 0] + 1).tolist()]


def _edge_cuts(first_key: Tensor, last_key: Tensor) -> Tensor:
    """Return ``[Q - 1]`` whether a tile has to end between a query and the next, for one region.

    A jump is a step of an edge by other than 0 or 1, or a change between owning keys and owning
    none. A bend is a step that differs from the step before it, where vertical and diagonal meet.
    """
    steps = torch.stack((first_key.diff(), last_key.diff()))
    jumps = ((steps != 0) & (steps != 1)).any(0)
    # The placeholders 0 and -1 can look like a step: from no key (0, -1) to key 0 alone (0, 0).
    jumps |= (last_key[1:] < 0) != (last_key[:-1] < 0)
    bends = torch.zeros_like(jumps)
    # After a jump a new tile begins, whose first step has no step before it to differ from.
    bends[1:] = (steps[:, 1:] != steps[:, :-1]).any(0) & ~jumps[:-1]
    return jumps | bends
