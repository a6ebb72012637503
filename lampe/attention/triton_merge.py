"""Merge of partial attentions by a Triton kernel, two at a time.

One launch replaces the four of ``lampe.attention.partial_attention``, and makes no copy between.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from lampe.attention import partial_attention
from lampe.attention.partial_attention import PartialAttention
from lampe.attention.triton_backend import (
    contiguous_rows,
    has_triton,
    kernels_module,
    next_power_of_two,
    runs_kernels_on,
)

BLOCK_QUERIES = 64
"""Queries per program."""


def merge_partials(parts: Iterable[PartialAttention]) -> Tensor:
    """Return attention over the keys of all parts, by the kernel where it can run.

    It has the shapes, the dtype and the meaning of ``partial_attention.merge_partials``.
    """
    parts = list(parts)
    if len(parts) == 1 or not (has_triton() and runs_kernels_on(parts[0].out.device)):
        return partial_attention.merge_partials(parts)
    out_dtype = parts[0].out.dtype
    merged = parts[0]
    for part in parts[1:-1]:
        # Kept in float32, so that half precision rounds the output once and not at every merge.
        merged = _merge_two(merged, part, torch.float32)
    return _merge_two(merged, parts[-1], out_dtype).out


def _merge_two(a: PartialAttention, b: PartialAttention, dtype: torch.dtype) -> PartialAttention:
    """Return two parts with outputs ``[B, G, R, Q, E]`` as one, with an output in ``dtype``."""
    shape = a.out.shape
    a_out, b_out = (contiguous_rows(part.out.flatten(1, 2)) for part in (a, b))
    batch, heads, queries, dim = a_out.shape
    a_lse, b_lse = (part.lse.reshape(batch, heads, queries).contiguous() for part in (a, b))
    out = a_out.new_empty(a_out.shape, dtype=dtype)
    lse = torch.empty_like(a_lse)
    grid = -(-queries // BLOCK_QUERIES), batch * heads
    kernels_module().merge_two[grid](
        a_out, *a_out.stride()[:3], a_lse,
        b_out, *b_out.stride()[:3], b_lse,
        out, *out.stride()[:3], lse,
        queries, heads, E=dim, BE=next_power_of_two(dim), BQ=BLOCK_QUERIES,
    )  # fmt: skip
    return PartialAttention(out.view(shape), lse.view(shape[:-1]))
