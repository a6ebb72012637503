"""Oracle that judges every other backend: attention from the full matrix of relative positions.

The oracle never rotates a vector. It computes the logit of a pair from the angle between its two
tokens, so it shares no step with the backends that rotate queries and keys. It is slow and simple
on purpose, and its memory grows with the square of the length.

The logit of a key between two whole positions is interpolated between its logits at these.

Where regions overlap, a pair has one column of the softmax in each region that owns it.

Shapes: B batch, H query heads, G key heads, Q queries, K keys, D head dimensions, P rotated pairs.
"""

from typing import ClassVar

import torch
from torch import Tensor

from lampe.attention.backend import Backend
from lampe.attention.inputs import AttentionInputs
from lampe.encoding import Encoding
from lampe.positions import PositionMap
from lampe.rope import Rope


class Dense(Backend):
    """Attention as one softmax per query over the logits of all regions, in float64."""

    name: ClassVar[str] = "dense"

    def attend_run(self, inputs: AttentionInputs) -> Tensor:
        encoding, group_size = inputs.encoding, inputs.query.shape[1] // inputs.key.shape[1]
        q = inputs.query.double()
        k = inputs.key.repeat_interleave(group_size, 1).double()
        v = inputs.value.repeat_interleave(group_size, 1).double()
        i = torch.arange(inputs.start, inputs.stop, device=q.device)
        j = inputs.key_tokens
        query_scale = encoding.attention_factor.query_scale(i)
        pair_factor = _pair_factor(encoding, i, j)
        columns = []
        for region in encoding.plan:
            query_angle = encoding.rope.angles(region.query.per_pair(i), i)
            logits = torch.zeros(1, dtype=torch.float64, device=q.device)
            for position, share in _weighted_positions(region.key, j):
                angle = query_angle[:, None] - encoding.rope.angles(position, j)
                parts = _logits(q, k, angle, pair_factor, encoding.rope)
                logits = logits + share * parts * inputs.scale
            if query_scale is not None:
                logits = logits * query_scale[:, None].double()
            owned = region.owns(i[:, None], j)
            columns.append(inputs.logits.capped(logits).masked_fill(~owned, -torch.inf))
        # A copy of the values for each region, because overlapping regions give a pair two weights.
        values = torch.cat([v] * len(columns), dim=2)
        if inputs.logits.sinks is not None:
            columns.append(inputs.logits.sinks.double()[:, None, None].expand(*q.shape[:3], 1))
        # The sink's column takes its part of the softmax, but has no value.
        weights = torch.cat(columns, dim=-1).softmax(-1)[..., : values.shape[2]]
        out: Tensor = weights @ values
        return out.to(inputs.query.dtype)


def _weighted_positions(key: PositionMap, j: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the positions of keys j and the share ``[K]`` that each has in their logits."""
    position = key.per_pair(j)
    if not key.interpolated:
        return [(position, torch.ones_like(j).double())]
    below, above = position.floor(), position.ceil()
    return [(below, 1 - (position - below)), (above, position - below)]


def _pair_factor(encoding: Encoding, i: Tensor, j: Tensor) -> Tensor:
    """Return the factor ``[Q, K]`` on the rotated part of the logits of queries i and keys j.

    It may have size 1 along either dimension, where all tokens have the same factor.
    """
    query_factor = encoding.attention_factor.per_token_factor(i)
    key_factor = encoding.attention_factor.per_token_factor(j)
    ones = torch.ones(1, device=i.device)
    query_factor = ones if query_factor is None else query_factor
    key_factor = ones if key_factor is None else key_factor
    return encoding.logit_factor * query_factor.double()[:, None] * key_factor.double()


def _logits(q: Tensor, k: Tensor, angle: Tensor, pair_factor: Tensor, rope: Rope) -> Tensor:
    """Return logits ``[B, H, Q, K]`` before scaling.

    For pair p with query ``(q1, q2)`` and key ``(k1, k2)``, rotations by a and b give
    ``cos(a - b) (q1 k1 + q2 k2) + sin(a - b) (q1 k2 - q2 k1)``.

    Args:
        q: ``[B, H, Q, D]``.
        k: ``[B, H, K, D]``.
        angle: ``[Q, K, P]``, the angle of the query minus that of the key.
        pair_factor: ``[Q, K]``, for the rotated dimensions only.
        rope: says which dimensions of a head are rotated, and in which pairs.
    """
    q_before, q_rotary, q_after = rope.split(q)
    k_before, k_rotary, k_after = rope.split(k)
    q1, q2 = _pairs(q_rotary, rope)
    k1, k2 = _pairs(k_rotary, rope)
    # A loop over pairs keeps one [B, H, Q, K] sum instead of P of them.
    total = torch.zeros(*q.shape[:3], k.shape[2], dtype=torch.float64, device=q.device)
    for p in range(len(rope.inv_freq)):
        dot = q1[..., p, None] * k1[..., None, :, p] + q2[..., p, None] * k2[..., None, :, p]
        cross = q1[..., p, None] * k2[..., None, :, p] - q2[..., p, None] * k1[..., None, :, p]
        total += dot * angle[..., p].cos() + cross * angle[..., p].sin()
    return (
        total * pair_factor
        + q_before @ k_before.transpose(-1, -2)
        + q_after @ k_after.transpose(-1, -2)
    )


def _pairs(x: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    """Return the first and second dimension of each rotated pair of ``x[..., 2P]``."""
    if rope.layout == "half":
        first, second = x.chunk(2, dim=-1)
        return first, second
    return x[..., 0::2], x[..., 1::2]
