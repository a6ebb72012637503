"""The oracle: attention from the full relative position matrix, in float64. Slow and plain on purpose.

It never rotates a vector: the logit of a pair is built from the angle between its tokens, so it judges every backend.
Regions that overlap count a pair as often as they own it, as one concatenated softmax.

Shapes: B batch, H query heads, G key heads, Q queries, K keys, D head dimensions.
"""

import torch
from torch import Tensor

from lampe.attention.rotary import RotaryTables
from lampe.encoding import Encoding
from lampe.rope import Rope


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
        tables: not needed here, where nothing is rotated.

    Returns:
        ``[B, H, Q, D]`` in the dtype of ``query``.
    """
    q, k, v = (
        x.double() for x in (query, *(x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value)))
    )
    i = torch.arange(start, start + q.shape[2], device=q.device)
    j = torch.arange(k.shape[2], device=q.device)
    heat, drift_q, drift_k = (encoding.temperature.query_scale(i), *(encoding.temperature.drift(x) for x in (i, j)))
    logits = []
    for region in encoding.plan:
        turned = encoding.rope.angles(region.query(i), i)[:, None] - encoding.rope.angles(region.key(j), j)
        region_logits = _logits(q, k, turned, encoding) * scale
        if drift_q is not None and drift_k is not None:
            region_logits = region_logits * drift_q[:, None].double() * drift_k.double()
        if heat is not None:
            region_logits = region_logits * heat[:, None].double()
        logits.append(region_logits.masked_fill(~region.owns(i[:, None], j), -torch.inf))
    weights = torch.cat(logits, dim=-1).softmax(-1)
    out: Tensor = weights @ torch.cat([v] * len(logits), dim=2)
    return out.to(query.dtype)


def _logits(q: Tensor, k: Tensor, angle: Tensor, encoding: Encoding) -> Tensor:
    """Unscaled logits ``[B, H, Q, K]``: pair ``p`` turned by ``angle[Q, K, p]``, plus unrotated dimensions."""
    rope = encoding.rope
    pairs = len(rope.inv_freq)
    (q1, q2), (k1, k2) = _pairs(q, rope), _pairs(k, rope)
    total = torch.zeros(*q.shape[:3], k.shape[2], dtype=torch.float64, device=q.device)
    for p in range(pairs):
        along = q1[..., p, None] * k1[..., None, :, p] + q2[..., p, None] * k2[..., None, :, p]
        across = q1[..., p, None] * k2[..., None, :, p] - q2[..., p, None] * k1[..., None, :, p]
        total += along * angle[..., p].cos() + across * angle[..., p].sin()
    total *= encoding.sharpness.factor**2
    return total + q[..., 2 * pairs :] @ k[..., 2 * pairs :].transpose(-1, -2)


def _pairs(x: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    rotated = x[..., : 2 * len(rope.inv_freq)]
    if rope.layout == "half":
        first, second = rotated.chunk(2, dim=-1)
        return first, second
    return rotated[..., 0::2], rotated[..., 1::2]
