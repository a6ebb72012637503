"""The oracle: attention from the full relative position matrix, in float64. Slow and plain on purpose.

It never rotates a vector: the logit of a pair is built from the angle between its tokens, so it judges every backend.
Regions that overlap count a pair as often as they own it, as one concatenated softmax.

Shapes: B batch, H query heads, G key heads, Q queries, K keys, D head dimensions.
"""

from typing import ClassVar

import torch
from torch import Tensor

from lampe.attention.backend import Backend
from lampe.attention.inputs import AttentionInputs
from lampe.encoding import Encoding
from lampe.rope import Rope


class Dense(Backend):
    """One softmax over the whole row, in float64."""

    name: ClassVar[str] = "dense"

    def attend(self, call: AttentionInputs) -> Tensor:
        encoding, groups = call.encoding, call.query.shape[1] // call.key.shape[1]
        q, k, v = (
            x.double()
            for x in (call.query, *(x.repeat_interleave(groups, 1) for x in (call.key, call.value)))
        )
        i = torch.arange(call.start, call.stop, device=q.device)
        j = torch.arange(call.first, call.first + k.shape[2], device=q.device)
        heat, sharpness = encoding.attention_factor.query_scale(i), _sharpness(encoding, i, j)
        columns = []
        for region in encoding.plan:
            turned = encoding.rope.angles(region.query(i), i)[:, None] - encoding.rope.angles(
                region.key(j), j
            )
            region_logits = _logits(q, k, turned, sharpness, encoding.rope) * call.scale
            if heat is not None:
                region_logits = region_logits * heat[:, None].double()
            columns.append(
                call.logits.capped(region_logits).masked_fill(
                    ~region.owns(i[:, None], j), -torch.inf
                )
            )
        values = torch.cat([v] * len(columns), dim=2)
        if call.logits.sinks is not None:
            columns.append(call.logits.sinks.double()[:, None, None].expand(*q.shape[:3], 1))
        out: Tensor = torch.cat(columns, dim=-1).softmax(-1)[..., : values.shape[2]] @ values
        return out.to(call.query.dtype)


def _sharpness(encoding: Encoding, i: Tensor, j: Tensor) -> Tensor:
    """What attention_factor multiplies the rotated part of each pair's logit with, ``[Q, K]`` or one number."""
    factor, drifts = (
        encoding.effective_attention_factor.factor**2,
        [encoding.attention_factor.per_token_factor(x) for x in (i, j)],
    )
    ones = torch.ones(1, device=i.device)
    of_query, of_key = (ones if drift is None else drift for drift in drifts)
    return factor * of_query.double()[:, None] * of_key.double()


def _logits(q: Tensor, k: Tensor, angle: Tensor, sharpness: Tensor, rope: Rope) -> Tensor:
    """Unscaled logits ``[B, H, Q, K]``: pair ``p`` turned by ``angle[Q, K, p]``, plus unrotated dimensions."""
    pairs = len(rope.inv_freq)
    (q_before, q_turned, q_after), (k_before, k_turned, k_after) = rope.split(q), rope.split(k)
    (q1, q2), (k1, k2) = _pairs(q_turned, rope), _pairs(k_turned, rope)
    total = torch.zeros(*q.shape[:3], k.shape[2], dtype=torch.float64, device=q.device)
    for p in range(pairs):
        along = q1[..., p, None] * k1[..., None, :, p] + q2[..., p, None] * k2[..., None, :, p]
        across = q1[..., p, None] * k2[..., None, :, p] - q2[..., p, None] * k1[..., None, :, p]
        total += along * angle[..., p].cos() + across * angle[..., p].sin()
    return (
        total * sharpness
        + q_before @ k_before.transpose(-1, -2)
        + q_after @ k_after.transpose(-1, -2)
    )


def _pairs(rotated: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    if rope.layout == "half":
        first, second = rotated.chunk(2, dim=-1)
        return first, second
    return rotated[..., 0::2], rotated[..., 1::2]
