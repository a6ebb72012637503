"""The tiles of a plan hold every pair exactly as often as the plan does, and are few."""

import pytest
import torch

import lampe
from lampe.attention import tiling
from lampe.attention.tiling import QueryTile, tile_groups, tile_plan
from lampe.methods import METHODS, method_of
from lampe.positions import LocalWindow

GEOMETRY = lampe.Geometry(window=64, head_dim=16)
VARIANTS = [*METHODS, "string:reference", "lampe:reference", "lampe:paper"]


def _plan(method: str, length: int = 211) -> lampe.PositionPlan:
    """Return the plan of a prompt by a method, or by a variant of one."""
    name, _, variant = method.partition(":")
    settings = {"variant": variant} if variant else {}
    if method == "lampe:reference":
        settings |= {"head_tokens": 8, "tail_tokens": 8, "mapping_length": 40}
    return method_of(name, **settings).encode(GEOMETRY, length).plan


def _pair_counts(tiles: tuple[QueryTile, ...], stop: int) -> torch.Tensor:
    """Return how often each pair of query and key is in a key range, ``[stop, stop]``."""
    counts = torch.zeros(stop, stop, dtype=torch.int64)
    for tile in tiles:
        for keys in tile.key_ranges:
            x = torch.arange(tile.stop - tile.start)[:, None]
            y = torch.arange(keys.stop - keys.start)
            offset = y.numel() - x.numel()
            owned = ((y >= x) | (not keys.left_diagonal)) & (
                (y <= x + offset) | (not keys.right_diagonal)
            )
            assert owned.any(-1).all(), "a query of the tile owns no key of the range"
            counts[tile.start : tile.stop, keys.start : keys.stop] += owned
    return counts


@pytest.mark.parametrize("local", [None, LocalWindow(23), LocalWindow(23, chunked=True)])
@pytest.mark.parametrize(("start", "first"), [(0, 0), (100, 0), (210, 150), (210, 0)])
@pytest.mark.parametrize("method", VARIANTS)
def test_tiles_hold_the_pairs_of_the_plan(
    method: str, start: int, first: int, local: LocalWindow | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "MAX_TILE_TOKENS", 90)
    plan = _plan(method).within(local)
    query, key = torch.arange(211)[:, None], torch.arange(211)
    expected = sum(region.owns(query, key).long() for region in plan)
    expected[:start] = 0
    expected[:, :first] = 0
    tiles = tile_plan.__wrapped__(plan, start, 211, first)  # not the cached ones of other sizes
    assert torch.equal(_pair_counts(tiles, 211), expected)


@pytest.mark.parametrize(("start", "first"), [(0, 0), (330, 70)])
@pytest.mark.parametrize("method", VARIANTS)
def test_groups_hold_the_pairs_of_the_plan(
    method: str, start: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "GROUP_QUERIES", 110)
    plan, length = _plan(method, 499), 499
    query, key = torch.arange(length)[:, None], torch.arange(length)
    expected = sum(region.owns(query, key).long() for region in plan)
    expected[:start] = 0
    expected[:, :first] = 0
    groups = tile_groups.__wrapped__(plan, start, length, first)
    tiles = [group.shared for group in groups]
    for group in groups:
        tiles += group.tiles
    assert torch.equal(_pair_counts(tuple(tiles), length), expected)


@pytest.mark.parametrize("method", ["dca", "chunkllama"])
def test_chunks_share_their_distant_keys(method: str) -> None:
    groups = tile_groups(method_of(method).encode(GEOMETRY, 8000).plan, 0, 8000, 0)
    assert len(groups) < 13
    assert all(group.shared.key_ranges for group in groups[3:])


@pytest.mark.parametrize("method", VARIANTS)
def test_each_query_of_a_tile_has_the_keys_of_a_tile_of_its_own(method: str) -> None:
    plan = _plan(method)
    for tile in tile_plan(plan, 0, 211, 0):
        for query in {tile.start, (tile.start + tile.stop) // 2, tile.stop - 1}:
            (own,) = tile_plan.__wrapped__(plan, query, query + 1, 0)
            assert tile.of_query(query) == own.key_ranges


def test_no_tile_is_longer_than_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "MAX_TILE_TOKENS", 90)
    tiles = tile_plan.__wrapped__(method_of("original").encode(GEOMETRY, 211).plan, 0, 211, 0)
    assert [(tile.start, tile.stop) for tile in tiles] == [(0, 90), (90, 180), (180, 211)]


@pytest.mark.parametrize(
    ("method", "tiles", "key_ranges"), [("original", 1, 1), ("selfextend", 2, 3), ("lampe", 3, 6)]
)
def test_a_prompt_has_few_tiles(method: str, tiles: int, key_ranges: int) -> None:
    plan = tile_plan(method_of(method).encode(GEOMETRY, 1000).plan, 0, 1000, 0)
    assert (len(plan), sum(len(tile.key_ranges) for tile in plan)) == (tiles, key_ranges)
