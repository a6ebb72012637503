"""Partial attention by its definition, in float32.

It runs on any device and for any head dimension, and supports soft caps and gradients.

Shapes: B batch, G key heads, R query heads per key head, Q queries, K keys, D head dimensions.
"""

import torch
from torch import Tensor

from lampe.attention.logit_options import LogitOptions
from lampe.attention.partial_attention import PartialAttention, merge_partials

# Blocks bound the memory of the logits: BLOCK_QUERIES x BLOCK_KEYS floats per query head.
BLOCK_QUERIES = 256
BLOCK_KEYS = 4096


def partials(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    left_diagonal: bool,
    right_diagonal: bool,
    scale: float,
    logits: LogitOptions,
) -> list[PartialAttention]:
    """Return attention over one run of keys as parts to be merged.

    Query ``x`` owns the keys from ``x`` on if ``left_diagonal``, else from 0. Its last key is
    ``x + K - Q`` if ``right_diagonal``, else ``K - 1`` (see ``lampe.attention.tiling``).

    Args:
        q: ``[B, G, R, Q, D]``, rotated.
        k: ``[B, G, K, D]``, rotated.
        v: ``[B, G, K, D]``.
        left_diagonal: whether the first owned key moves on by one per query.
        right_diagonal: whether the last owned key moves on by one per query.
        scale: factor on the logits.
        logits: soft cap; sinks are a part of their own.
    """
    queries, keys = q.shape[-2], k.shape[-2]
    offset = keys - queries
    row_parts = []
    for row_start in range(0, queries, BLOCK_QUERIES):
        row_stop = min(row_start + BLOCK_QUERIES, queries)
        # Keys outside of both edges belong to no query of these rows, so they are not computed.
        first_key = row_start if left_diagonal else 0
        key_stop = row_stop + offset if right_diagonal else keys
        blocks = []
        for block_start in range(first_key, key_stop, BLOCK_KEYS):
            block_stop = min(block_start + BLOCK_KEYS, key_stop)
            x = torch.arange(row_start, row_stop, device=q.device)[:, None]
            y = torch.arange(block_start, block_stop, device=q.device)
            hidden = torch.zeros(len(x), len(y), dtype=torch.bool, device=q.device)
            if left_diagonal:
                hidden |= y < x
            if right_diagonal:
                hidden |= y > x + offset
            q_block = q[..., row_start:row_stop, :]
            k_block, v_block = (tensor[..., block_start:block_stop, :] for tensor in (k, v))
            blocks.append(_attend_block(q_block, k_block, v_block, hidden, scale, logits))
        lse = torch.stack([block.lse for block in blocks]).logsumexp(0)
        row_parts.append(PartialAttention(merge_partials(blocks), lse))
    out = torch.cat([part.out for part in row_parts], dim=3)
    lse = torch.cat([part.lse for part in row_parts], dim=3)
    return [PartialAttention(out.to(q.dtype), lse)]


def _attend_block(
    q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, scale: float, logits: LogitOptions
) -> PartialAttention:
    """Return attention of one block, in which ``hidden[Q, K]`` marks the pairs to leave out."""
    block_logits = logits.capped(q.float() @ k.float().transpose(-1, -2)[:, :, None] * scale)
    block_logits = block_logits.masked_fill(hidden, -torch.inf)
    lse = block_logits.logsumexp(-1)
    # A query that owns no key here has lse -inf, and -inf minus -inf is NaN: 0 makes its weights 0.
    weights = (block_logits - lse.masked_fill(lse == -torch.inf, 0)[..., None]).exp()
    return PartialAttention(weights @ v.float()[:, :, None], lse)
