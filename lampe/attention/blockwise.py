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

from lampe.attention.partial import Partial, merge, partial
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
    tables: RotaryTables | None = None,
) -> Tensor:
    """Attention of ``query[B, H, Q, D]`` over ``key[B, G, K, D]`` and ``value[B, G, K, D]``, none of them rotated.

    Args:
        encoding: rope, plan and temperature.
        scale: softmax scale.
        start: token index of the first query; the first key is token 0.
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
    drift = torch.ones(stop, device=query.device) if drift is None else drift
    keys = {region.key: _rotated(key, region.key, tables, 0, drift) for region in regions}
    warmth = drift * encoding.sharpness.factor**2
    out = torch.empty(*query.shape[:3], value.shape[-1], dtype=query.dtype, device=query.device)
    for first in range(start, stop, TILE):
        last = min(first + TILE, stop)
        tile = query[:, :, first - start : last - start]
        parts: list[Partial] = []
        for region in regions:
            runs = list(_runs(region, first, last, query.device))
            q = _rotated(tile, region.query, tables, first, warmth[first:last]) if runs else tile
            for begin, end, mask in runs:
                parts.append(partial(q, keys[region.key][:, :, begin:end], value[:, :, begin:end], mask, scale=scale))
        out[:, :, first - start : last - start] = merge(parts)
    return out


def _reaches(region: Region, length: int) -> bool:
    """Whether the last query, which sees furthest, owns any pair of the region."""
    return (length - 1) // region.block >= region.near


def _rotated(x: Tensor, positions: PositionMap, tables: RotaryTables, start: int, factor: Tensor) -> Tensor:
    """``x`` rotated to its positions, its rotated pairs times ``factor[L]``; its tokens begin at index ``start``."""
    cos, sin = tables(positions, start, start + x.shape[2], x.device)
    return rotate(x, cos * factor[:, None], sin * factor[:, None], tables.rope.layout)


def _runs(region: Region, first: int, last: int, device: torch.device) -> Iterator[tuple[int, int, Tensor | None]]:
    """Runs of keys ``[begin, end)`` that queries ``first..last`` own, each with its mask ``[Q, K]`` or None for all."""
    query = torch.arange(first, last)
    owned_first, owned_last = region.span(query)
    begin, end = int(owned_first[0]), int(owned_last[-1]) + 1
    common_begin, common_end = int(owned_first[-1]), int(owned_last[0]) + 1
    if common_begin >= common_end:
        common_begin = common_end = end
    for run_begin, run_end in ((begin, common_begin), (common_end, end)):
        if run_begin < run_end:
            keys = torch.arange(run_begin, run_end)
            yield run_begin, run_end, region.owns(query[:, None], keys[None, :]).to(device)
    if common_begin < common_end:
        yield common_begin, common_end, None
