"""Parts of attention merged by a kernel, two at a time: one launch where torch has four, and no copy between."""

import importlib.util
import os
from collections.abc import Iterable

import torch
from torch import Tensor

from lampe.attention import partial_attention
from lampe.attention.partial_attention import PartialAttention
from lampe.attention.triton_backend import contiguous_rows, kernels_module, next_power_of_two

ROWS = 64
"""Queries of one program."""


def merge_partials(parts: Iterable[PartialAttention]) -> Tensor:
    """As ``lampe.attention.partial_attention.merge``; by the kernel where it can run."""
    parts = list(parts)
    if len(parts) == 1 or not _serves(parts[0].out):
        return partial_attention.merge_partials(parts)
    merged = parts[0]
    for index, part in enumerate(parts[1:], start=2):
        dtype = parts[0].out.dtype if index == len(parts) else torch.float32
        merged = _both(merged, part, dtype)
    return merged.out


def _serves(out: Tensor) -> bool:
    known = importlib.util.find_spec("triton") is not None
    return known and (out.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")


def _both(a: PartialAttention, b: PartialAttention, dtype: torch.dtype) -> PartialAttention:
    """Two parts ``[B, G, R, Q, E]`` as one."""
    (one, other), shape = (contiguous_rows(part.out.flatten(1, 2)) for part in (a, b)), a.out.shape
    lses = [part.lse.reshape(one.shape[:3]).contiguous() for part in (a, b)]
    batch, heads, queries, wide = one.shape
    out, lse = one.new_empty(one.shape, dtype=dtype), torch.empty_like(lses[0])
    kernels_module().both[-(-queries // ROWS), batch * heads](
        one, *one.stride()[:3], lses[0], other, *other.stride()[:3], lses[1], out, *out.stride()[:3], lse,
        queries, heads, E=wide, EP=next_power_of_two(wide), M=ROWS,
    )  # fmt: skip
    return PartialAttention(out.view(shape), lse.view(shape[:-1]))
