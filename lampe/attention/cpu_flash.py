"""A part of attention by torch's own flash kernel for the CPU, which returns its log-sum-exp.

The kernel knows full runs of keys, causal squares and additive masks. A run whose edges both move (a band) is cut into
strips of queries, each with a mask of its own keys; strips of a narrow band are one call.
"""

import torch
from torch import Tensor

from lampe.attention.partial_attention import PartialAttention

KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
STRIP = 64
"""Queries of a strip: few, for half of ``STRIP`` times ``STRIP`` pairs are masked on either side."""
NARROW = 512
"""Keys of a band of which all strips are one call, their keys copied where a batch has more than one row."""


def serves(q: Tensor, v: Tensor) -> bool:
    """Whether the kernel can take a call; its log-sum-exp has no gradient."""
    return q.device.type == "cpu" and q.shape[-1] == v.shape[-1] and not q.requires_grad


def partials(
    q: Tensor, k: Tensor, v: Tensor, *, left: bool, right: bool, scale: float
) -> list[PartialAttention]:
    """As ``lampe.attention.eager.partials``, without soft caps."""
    queries, keys = q.shape[-2], k.shape[-2]
    if queries == 1:
        return [_one(q, k, v, scale)]
    if left:
        return [_band(q, k, v, right, scale)]
    if not right:
        return [_flash(q, k, v, scale)]
    square = _flash(q, k[..., keys - queries :, :], v[..., keys - queries :, :], scale, causal=True)
    if queries == keys:
        return [square]
    return [_flash(q, k[..., : keys - queries, :], v[..., : keys - queries, :], scale), square]


def _one(q: Tensor, k: Tensor, v: Tensor, scale: float) -> PartialAttention:
    """One query: the heads of a group are the rows of one head, whose keys are read once."""
    out, lse = KERNEL(q.squeeze(3), k, v, scale=scale)
    return PartialAttention(out.unsqueeze(3), lse.unsqueeze(3))


def _flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    *,
    causal: bool = False,
    bias: Tensor | None = None,
) -> PartialAttention:
    """One call: rows and key heads together are its batch, so that views are all it needs."""
    grouped = q.flatten(0, 1)
    k, v = (x.flatten(0, 1)[:, None].expand(-1, q.shape[2], -1, -1) for x in (k, v))
    out, lse = KERNEL(grouped, k, v, is_causal=causal, attn_mask=bias, scale=scale)
    return PartialAttention(out.unflatten(0, q.shape[:2]), lse.unflatten(0, q.shape[:2]))


def _band(q: Tensor, k: Tensor, v: Tensor, right: bool, scale: float) -> PartialAttention:
    """Keys from ``x`` on, and up to ``x + K - Q`` where the right edge moves too."""
    queries, keys = q.shape[-2], k.shape[-2]
    width = keys - queries + 1
    whole = queries - queries % STRIP if right and width <= NARROW else 0
    parts = [_strips(q[..., :whole, :], k, v, width, scale)] if whole else []
    for begin in range(whole, queries, STRIP):
        end = min(begin + STRIP, queries)
        run = slice(begin, end + width - 1 if right else keys)
        x, y = torch.arange(end - begin)[:, None], torch.arange(run.stop - begin)
        bias = _bias((x <= y) & (y < x + width) if right else x <= y, q.dtype)
        parts.append(_flash(q[..., begin:end, :], k[..., run, :], v[..., run, :], scale, bias=bias))
    if len(parts) == 1:
        return parts[0]
    return PartialAttention(
        torch.cat([part.out for part in parts], dim=3),
        torch.cat([part.lse for part in parts], dim=3),
    )


def _strips(q: Tensor, k: Tensor, v: Tensor, width: int, scale: float) -> PartialAttention:
    """All strips of a narrow band in one call; the query heads of a group are rows of one strip."""
    batch, groups, heads, queries, dim = q.shape
    count = queries // STRIP
    rows = (
        q.reshape(batch, groups, heads, count, STRIP, dim)
        .permute(0, 3, 1, 2, 4, 5)
        .reshape(batch * count, groups, heads * STRIP, dim)
    )
    k, v = (
        x.unfold(2, STRIP + width - 1, STRIP)[:, :, :count].permute(0, 2, 1, 4, 3).flatten(0, 1)
        for x in (k, v)
    )
    x, y = torch.arange(STRIP).repeat(heads)[:, None], torch.arange(STRIP + width - 1)
    bias = _bias((x <= y) & (y < x + width), q.dtype)
    out, lse = KERNEL(rows, k, v, attn_mask=bias, scale=scale)
    out, lse = (
        x.reshape(batch, count, groups, heads, STRIP, -1).permute(0, 2, 3, 1, 4, 5)
        for x in (out, lse)
    )
    return PartialAttention(out.flatten(3, 4), lse.flatten(3))


def _bias(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask that the kernel adds."""
    return torch.zeros(counts.shape, dtype=dtype).masked_fill(~counts, -torch.inf)
