"""Region attention in plain torch, with memory linear in the length.

Queries are walked in tiles. In each region a tile's queries share a run of keys (the *common* run, attended without a
mask) with a ragged edge on either side (attended with one). The partial results of all runs are merged by a
log-sum-exp:

    L = logsumexp_r L_r,   O = sum_r exp(L_r - L) O_r

Shapes: B batch, H query heads, G key heads, Q queries, K keys, D head dimensions.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lampe.attention.logits import UNCHANGED, Logits
from lampe.attention.partial import Partial, merge, partial, sink
from lampe.attention.rotary import RotaryTables, rotate
from lampe.encoding import Encoding
from lampe.positions import PositionMap, Region

TILE = 256


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    encoding: Encoding,
    *,
    scale: float,
    start: int = 0,
    first: int = 0,
    logits: Logits = UNCHANGED,
    tables: RotaryTables | None = None,
) -> Tensor:
    """Attention of ``query[B, H, Q, D]`` over ``key[B, G, K, D]`` and ``value[B, G, K, D]``, none of them rotated.

    Args:
        encoding: rope, plan and temperature.
        scale: softmax scale.
        start: token index of the first query.
        first: token index of the first key; all before it are out of the sight of every query.
        logits: what the layer does to its logits beside positions.
        tables: kept between calls of one encoding; made anew where not given.

    Returns:
        ``[B, H, Q, D]`` in the dtype of ``query``.
    """
    tables = tables or RotaryTables(encoding.rope)
    stop = start + query.shape[2]
    heat = encoding.temperature.query_scale(torch.arange(start, stop, device=query.device))
    if heat is not None:
        query = query * heat[:, None].to(query.dtype)
    regions = [region for region in encoding.plan if _reaches(region, stop)]
    drift = encoding.temperature.drift(torch.arange(stop, device=query.device))
    sharp = encoding.sharpness.factor**2
    cool = None if drift is None else drift[first:]
    keys = {region.key: _rotated(key, region.key, tables, first, cool) for region in regions}
    warm = torch.full((stop,), sharp, device=query.device) if drift is None else drift * sharp
    out = torch.empty(*query.shape[:3], value.shape[-1], dtype=query.dtype, device=query.device)
    for begin in range(start, stop, TILE):
        end = min(begin + TILE, stop)
        tile = query[:, :, begin - start : end - start]
        parts: list[Partial] = [] if logits.sinks is None else [sink(tile, value.shape[-1], logits.sinks)]
        for region in regions:
            runs = list(_runs(region, begin, end, first, query.device))
            q = _rotated(tile, region.query, tables, begin, warm[begin:end]) if runs else tile
            for run, mask in runs:
                k, v = keys[region.key][:, :, run], value[:, :, run]
                parts.append(partial(q, k, v, mask, scale=scale, softcap=logits.softcap))
        out[:, :, begin - start : end - start] = merge(parts)
    return out


def _reaches(region: Region, length: int) -> bool:
    """Whether the last query, which sees furthest, owns any pair of the region."""
    return (length - 1) // region.block >= region.near


def _rotated(x: Tensor, positions: PositionMap, tables: RotaryTables, start: int, factor: Tensor | None) -> Tensor:
    """``x`` rotated to its positions, its pairs times ``factor[L]`` if any; its tokens begin at index ``start``."""
    cos, sin = tables(positions, start, start + x.shape[2], x.device)
    if factor is not None:
        cos, sin = cos * factor[:, None], sin * factor[:, None]
    return rotate(x, cos, sin, tables.rope.layout, tables.rope.begin)


def _runs(
    region: Region, begin: int, end: int, first: int, device: torch.device
) -> Iterator[tuple[slice, Tensor | None]]:
    """Runs of keys that queries ``begin..end`` own, each with its mask ``[Q, K]`` or None for all.

    Runs are counted from token ``first``, the first key at hand.
    """
    query = torch.arange(begin, end)
    owned_first, owned_last = region.span(query)
    owned_first = owned_first.clamp(min=first)
    low, high = int(owned_first[0]), int(owned_last[-1]) + 1
    common_low, common_high = int(owned_first[-1]), int(owned_last[0]) + 1
    if common_low >= common_high:
        common_low = common_high = high
    for run_low, run_high in ((low, common_low), (common_high, high)):
        if run_low < run_high:
            keys = torch.arange(run_low, run_high)
            mask = region.owns(query[:, None], keys[None, :]).to(device)
            yield slice(run_low - first, run_high - first), mask
    if common_low < common_high:
        yield slice(common_low - first, common_high - first), None
