"""Attention over a part of the keys, and the merge of such parts by their log-sum-exp.

For parts r with outputs O_r and log-sum-exps L_r, attention over all of their keys is

    L = logsumexp_r L_r,   O = sum_r exp(L_r - L) O_r

Shapes: B batch, H query heads, G key heads, R query heads per key head, Q queries, K keys,
D head dimensions. Grouped tensors are ``[B, G, R, Q, D]``, so that the query heads of a group share
a key head without copies of it.
"""

from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor


class PartialAttention(NamedTuple):
    """Attention over some keys.

    A query that attends to none of the keys has log-sum-exp ``-inf`` and any finite output, which
    has weight zero in a merge.

    Attributes:
        out: ``[..., Q, D]``, softmax over these keys alone, times their values.
        lse: ``[..., Q]`` float32, natural log of the sum of the exponentials of their logits.
    """

    out: Tensor
    lse: Tensor

    def of_queries(self, start: int, stop: int) -> "PartialAttention":
        """Return the attention of some of the queries."""
        return PartialAttention(self.out[..., start:stop, :], self.lse[..., start:stop])


def sink_attention(query: Tensor, dim: int, sinks: Tensor) -> PartialAttention:
    """Return attention over the sinks: keys with given logits whose values are zero.

    Args:
        query: ``[B, G, R, Q, D]``.
        dim: head dimension of the values.
        sinks: logits ``[H]``, one per query head.
    """
    # A sink is a key with value 0: it takes weight from the others and adds nothing.
    lse_GR = torch.unflatten(sinks.float(), 0, query.shape[1:3])
    lse = lse_GR[..., None].expand(query.shape[:-1])
    return PartialAttention(query.new_zeros(*query.shape[:-1], dim), lse)


def merge_partials(parts: Iterable[PartialAttention]) -> Tensor:
    """Return attention ``[..., Q, D]`` over the keys of all parts, in the dtype of the first."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0].out
    if parts[0].out.shape[-2] > 1:
        return reduce(merge_two, parts).out.to(parts[0].out.dtype)
    # A third of the operations, over copies of the parts: a step is short enough for each operation
    # to count, and a prompt's parts are too large to copy.
    share = torch.stack([part.lse for part in parts]).softmax(0).nan_to_num(nan=0.0)
    out = torch.stack([part.out for part in parts]) * share[..., None]
    return out.sum(0).to(parts[0].out.dtype)


def merge_two(a: PartialAttention, b: PartialAttention) -> PartialAttention:
    """Return two parts as one, in float32 or wider."""
    # Half precision would round the output at every merge; this way it is rounded once, at the end.
    dtype = torch.promote_types(a.out.dtype, torch.float32)
    # exp(L_b - L) = sigmoid(L_b - L_a) needs no exponential of a large number. The difference is
    # NaN where both log-sum-exps are -inf; any share does, for neither output counts.
    b_share = (b.lse - a.lse).nan_to_num(nan=0.0).sigmoid()[..., None]
    out = torch.lerp(a.out.to(dtype), b.out.to(dtype), b_share.to(dtype))
    return PartialAttention(out, torch.logaddexp(a.lse, b.lse))
