"""Largest error that a backend may have against the float64 oracle: computed, not chosen."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lampe.attention import AttentionInputs


def error_bound(inputs: AttentionInputs) -> float:
    """Return the largest absolute difference to the oracle that rounding can explain.

    It is the sum of three terms, each for one source of error:

    - Computing in low precision: twice the error of plain causal attention, in the same dtype over
      the same tensors, against itself in float64. The attention factor makes logits larger, and
      errors with them.
    - Rounding the output, and partial outputs before they are merged: four steps of the dtype at
      the largest output.
    - Rounding angles to float32: an angle is off by at most eps times the last position, which
      moves a logit by at most that times the norms of query and key.
    """
    plain = _plain_attention(inputs, inputs.query.dtype).double()
    exact = _plain_attention(inputs, torch.float64)
    logit_factor = inputs.encoding.effective_attention_factor.factor**2
    attention_error = float((plain - exact).abs().max())
    output_rounding = torch.finfo(inputs.query.dtype).eps * float(exact.abs().max())
    query_norm = inputs.query.double().norm(dim=-1).max()
    key_norm = inputs.key.double().norm(dim=-1).max()
    angle_error = torch.finfo(torch.float32).eps * inputs.stop
    logit_error = inputs.scale * angle_error * float(query_norm * key_norm)
    return 2 * logit_factor * attention_error + 4 * output_rounding + logit_factor * logit_error


def _plain_attention(inputs: AttentionInputs, dtype: torch.dtype) -> Tensor:
    """Return causal attention ``[B, H, Q, D]`` in a dtype, without any rotation."""
    group_size = inputs.query.shape[1] // inputs.key.shape[1]
    q = inputs.query.to(dtype)
    k = inputs.key.repeat_interleave(group_size, 1).to(dtype)
    v = inputs.value.repeat_interleave(group_size, 1).to(dtype)
    causal = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
    causal = causal.tril(inputs.start - inputs.first)
    return scaled_dot_product_attention(q, k, v, attn_mask=causal, scale=inputs.scale)
