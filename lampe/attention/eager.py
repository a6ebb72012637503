"""A part of attention by its definition, in float32: any device, any dimensions, soft caps and gradients."""

import torch
from torch import Tensor

from lampe.attention.logit_options import LogitOptions
from lampe.attention.partial_attention import PartialAttention, merge_partials

QUERIES, KEYS = 256, 4096
"""Queries and keys at a time, which bounds the logits held."""


def partials(
    q: Tensor, k: Tensor, v: Tensor, *, left: bool, right: bool, scale: float, logits: LogitOptions
) -> list[PartialAttention]:
    """Attention of ``q[B, G, R, Q, D]`` over ``k[B, G, K, D]`` and ``v[B, G, K, D]``, as parts to be merged.

    Query ``x`` owns the keys from ``x`` (``left``) or 0 on, up to ``x + K - Q`` (``right``) or the last.
    """
    queries, keys = q.shape[-2], k.shape[-2]
    ahead = keys - queries
    rows = []
    for begin in range(0, queries, QUERIES):
        end = min(begin + QUERIES, queries)
        low, high = begin if left else 0, end + ahead if right else keys
        blocks = []
        for at in range(low, high, KEYS):
            to = min(at + KEYS, high)
            x = torch.arange(begin, end, device=q.device)[:, None]
            y = torch.arange(at, to, device=q.device)
            hidden = (y < x if left else y < 0) | (y > x + ahead if right else y < 0)
            blocks.append(
                _block(
                    q[..., begin:end, :], k[..., at:to, :], v[..., at:to, :], hidden, scale, logits
                )
            )
        rows.append(
            PartialAttention(
                merge_partials(blocks), torch.stack([block.lse for block in blocks]).logsumexp(0)
            )
        )
    out, lse = (torch.cat(parts, dim=3) for parts in zip(*rows, strict=True))
    return [PartialAttention(out.to(q.dtype), lse)]


def _block(
    q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, scale: float, logits: LogitOptions
) -> PartialAttention:
    """Attention where ``hidden[Q, K]`` says which pairs do not count."""
    columns = logits.capped(q.float() @ k.float().transpose(-1, -2)[:, :, None] * scale)
    columns = columns.masked_fill(hidden, -torch.inf)
    lse = columns.logsumexp(-1)
    weights = (columns - lse.masked_fill(lse == -torch.inf, 0)[..., None]).exp()
    return PartialAttention(weights @ v.float()[:, :, None], lse)
