"""Tiles and pieces hold every pair of a plan as often as the plan does, and are few."""

import pytest
import torch

import lampe
from lampe.attention import tiling as module
from lampe.attention.tiling import tile_plan
from lampe.methods import METHODS, method_of
from lampe.positions import LocalWindow

GEOMETRY = lampe.Geometry(window=64, head_dim=16)


def _counts(tiles: tuple[module.QueryTile, ...], stop: int) -> torch.Tensor:
    """How often each pair of query and key is in a piece."""
    counts = torch.zeros(stop, stop, dtype=torch.int64)
    for tile in tiles:
        for piece in tile.pieces:
            x, y = (
                torch.arange(tile.end - tile.begin)[:, None],
                torch.arange(piece.high - piece.low),
            )
            ahead = piece.high - piece.low - (tile.end - tile.begin)
            owned = ((y >= x) | (not piece.left)) & ((y <= x + ahead) | (not piece.right))
            assert owned.any(-1).all()
            counts[tile.begin : tile.end, piece.low : piece.high] += owned
    return counts


@pytest.mark.parametrize("local", [None, LocalWindow(23), LocalWindow(23, chunked=True)])
@pytest.mark.parametrize(("start", "first"), [(0, 0), (100, 0), (210, 150), (210, 0)])
@pytest.mark.parametrize("method", [*METHODS, "string:reference", "lampe:reference", "lampe:paper"])
def test_pieces_are_the_plans_pairs(
    method: str, start: int, first: int, local: LocalWindow | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PANEL", 90)
    name, _, variant = method.partition(":")
    settings = {"variant": variant} if variant else {}
    if method == "lampe:reference":
        settings |= {"head_tokens": 8, "tail_tokens": 8, "mapping_length": 40}
    plan = method_of(name, **settings).encode(GEOMETRY, 211).plan.within(local)
    query, key = torch.arange(211)[:, None], torch.arange(211)
    expected = sum(region.owns(query, key).long() for region in plan)
    expected[:start] = 0
    expected[:, :first] = 0
    assert torch.equal(_counts(tile_plan.__wrapped__(plan, start, 211, first), 211), expected)


@pytest.mark.parametrize(
    ("method", "tiles", "pieces"), [("original", 1, 1), ("selfextend", 2, 3), ("lampe", 3, 6)]
)
def test_a_prompt_is_few_tiles(method: str, tiles: int, pieces: int) -> None:
    walked = tile_plan(method_of(method).encode(GEOMETRY, 1000).plan, 0, 1000, 0)
    assert (len(walked), sum(len(tile.pieces) for tile in walked)) == (tiles, pieces)
