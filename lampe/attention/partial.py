"""Attention over a part of the keys, with the log-sum-exp that lets parts be merged.

Shapes: B batch, H query heads, G key heads, Q queries, K keys, D head dimensions.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lampe.attention.logits import UNCHANGED, Logits

KEYS = 4096
"""Keys at a time where no kernel is at hand, which bounds the logits held."""


class Partial(NamedTuple):
    """Output ``[B, H, Q, D]`` over some keys, and the log of the sum of their exponentials ``[B, H, Q]`` in float32.

    A query that attends to none of the keys has output 0 and log-sum-exp ``-inf``.
    """

    out: Tensor
    lse: Tensor


def partial(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float, softcap: float | None = None
) -> Partial:
    """Attention of ``query[B, H, Q, D]`` over ``key[B, G, K, D]``; ``mask[Q, K]`` is True where a pair counts.

    Key heads are shared by groups of query heads, never repeated. Scaled logits are capped at ``softcap`` where given.
    """
    if softcap is None and _has_kernel(query, value):
        out, lse = _flash_cpu(query, key, value, mask, scale)
    else:
        out, lse = _plain(query, key, value, mask, scale, Logits(softcap))
    if mask is not None:
        empty = ~mask.any(-1)
        out, lse = out.masked_fill(empty[:, None], 0), lse.masked_fill(empty, -torch.inf)
    return Partial(out, lse)


def sink(query: Tensor, dim: int, sinks: Tensor) -> Partial:
    """The part of a key per head with logit ``sinks[H]`` and a value of ``dim`` zeros, for ``query[B, H, Q, D]``."""
    lse = sinks.float()[:, None].expand(query.shape[:3])
    return Partial(query.new_zeros(*query.shape[:3], dim), lse)


def merge(parts: list[Partial]) -> Tensor:
    """Output over all keys of the parts together, ``[B, H, Q, D]`` in the dtype of the first."""
    if len(parts) == 1:
        return parts[0].out
    lse = torch.stack([part.lse for part in parts])
    weights = (lse - lse.logsumexp(0)).exp()
    merged = sum(weight[..., None] * part.out.float() for weight, part in zip(weights, parts, strict=True))
    assert isinstance(merged, Tensor)
    return merged.to(parts[0].out.dtype)


def _has_kernel(query: Tensor, value: Tensor) -> bool:
    """Whether torch's CPU kernel can take the call; its log-sum-exp has no gradient."""
    return query.device.type == "cpu" and query.shape[-1] == value.shape[-1] and not query.requires_grad


def _flash_cpu(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Partial:
    """torch's own flash kernel for the CPU, which returns its log-sum-exp; shared key heads are views."""
    batch, heads, queries, _ = q.shape
    groups = k.shape[1]
    bias = None if mask is None else torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    rows = q.reshape(batch * groups, heads // groups, queries, -1)
    k, v = (x.reshape(batch * groups, 1, *x.shape[2:]).expand(-1, heads // groups, -1, -1) for x in (k, v))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(rows, k, v, attn_mask=bias, scale=scale)
    return Partial(out.reshape(batch, heads, queries, -1), lse.float().reshape(batch, heads, queries))


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, logits: Logits = UNCHANGED) -> Partial:
    """The definition in float32, ``KEYS`` keys at a time; the query heads of a group are rows of one product."""
    batch, heads, queries, _ = q.shape
    rows = q.float().reshape(batch, k.shape[1], -1, q.shape[-1])
    if mask is not None:
        mask = mask.repeat(heads // k.shape[1], 1)
    parts = []
    for begin in range(0, k.shape[2], KEYS):
        keys, values = k[:, :, begin : begin + KEYS].float(), v[:, :, begin : begin + KEYS].float()
        columns = logits.capped(rows @ keys.transpose(-1, -2) * scale)
        if mask is not None:
            columns = columns.masked_fill(~mask[:, begin : begin + KEYS], -torch.inf)
        lse = columns.logsumexp(-1)
        weights = (columns - lse.masked_fill(lse == -torch.inf, 0)[..., None]).exp()
        parts.append(Partial(weights @ values, lse))
    lse = torch.stack([part.lse for part in parts]).logsumexp(0)
    return Partial(merge(parts).to(q.dtype).reshape(batch, heads, queries, -1), lse.reshape(batch, heads, queries))
