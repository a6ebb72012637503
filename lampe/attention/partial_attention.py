"""Attention over a part of the keys, with the log-sum-exp that lets parts be merged.

    L = logsumexp_r L_r,   O = sum_r exp(L_r - L) O_r

Shapes: B batch, H query heads, G key heads, R query heads of a group, Q queries, K keys, D head dimensions. Grouped
tensors are ``[B, G, R, Q, D]``, so that a key head is shared by its group and never repeated.
"""

from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor


class PartialAttention(NamedTuple):
    """Output ``[..., Q, D]`` over some keys, and the log of the sum of their exponentials ``[..., Q]`` in float32.

    A query that attends to none of the keys has log-sum-exp ``-inf`` and a finite output, which counts for nothing.
    """

    out: Tensor
    lse: Tensor


def sink_attention(query: Tensor, dim: int, sinks: Tensor) -> PartialAttention:
    """The part of a key per head with logit ``sinks[H]`` and a value of ``dim`` zeros, for ``query[B, G, R, Q, D]``."""
    lse = torch.unflatten(sinks.float(), 0, query.shape[1:3])[..., None].expand(query.shape[:-1])
    return PartialAttention(query.new_zeros(*query.shape[:-1], dim), lse)


def merge_partials(parts: Iterable[PartialAttention]) -> Tensor:
    """Output over all keys of the parts together, ``[..., Q, D]`` in the dtype of the first."""
    parts = list(parts)
    return reduce(_both, parts).out.to(parts[0].out.dtype)


def _both(a: PartialAttention, b: PartialAttention) -> PartialAttention:
    """Two parts as one, in float32 at least."""
    share = (b.lse - a.lse).nan_to_num(nan=0.0).sigmoid()[..., None]
    dtype = torch.promote_types(a.out.dtype, torch.float32)
    return PartialAttention(
        torch.lerp(a.out.to(dtype), b.out.to(dtype), share.to(dtype)), torch.logaddexp(a.lse, b.lse)
    )
