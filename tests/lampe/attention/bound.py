"""How far a backend may be from the oracle: computed, not chosen."""

import torch
from torch.nn.functional import scaled_dot_product_attention

from lampe.attention import AttentionInputs


def error_bound(call: AttentionInputs) -> float:
    """Twice what plain attention over logits of this size errs in this dtype, plus rounding steps of the output.

    On top, what a float32 angle at the last position can be off by turns into a logit's error.
    """
    groups = call.query.shape[1] // call.key.shape[1]
    q, k, v = (
        call.query,
        call.key.repeat_interleave(groups, 1),
        call.value.repeat_interleave(groups, 1),
    )
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(
        call.start - call.first
    )
    low = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=call.scale).double()
    q, k, v = q.double(), k.double(), v.double()
    exact = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=call.scale)
    sharpness = call.encoding.effective_attention_factor.factor**2
    rounding = torch.finfo(call.query.dtype).eps * float(exact.abs().max())
    turned = (
        torch.finfo(torch.float32).eps
        * call.stop
        * float(q.norm(dim=-1).max() * k.norm(dim=-1).max())
    )
    return (
        2 * sharpness * float((low - exact).abs().max())
        + 4 * rounding
        + sharpness * call.scale * turned
    )
