"""Parts of attention merged by a kernel, two at a time: one launch where torch has four, and no copy between."""

import importlib.util
import os
from collections.abc import Iterable

import torch
from torch import Tensor

from lampe.attention import partial
from lampe.attention.partial import Partial
from lampe.attention.triton import dense_rows, kernels_module, power

ROWS = 64
"""Queries of one program."""


def merge(parts: Iterable[Partial]) -> Tensor:
    """As ``lampe.attention.partial.merge``; by the kernel where it can run."""
    parts = list(parts)
    if len(parts) == 1 or not _serves(parts[0].out):
        return partial.merge(parts)
    merged = parts[0]
    for index, part in enumerate(parts[1:], start=2):
        dtype = parts[0].out.dtype if index == len(parts) else torch.float32
        merged = _both(merged, part, dtype)
    return merged.out


def _serves(out: Tensor) -> bool:
    known = importlib.util.find_spec("triton") is not None
    return known and (out.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")


def _both(a: Partial, b: Partial, dtype: torch.dtype) -> Partial:
    """Two parts ``[B, G, R, Q, E]`` as one."""
    (one, other), shape = (dense_rows(part.out.flatten(1, 2)) for part in (a, b)), a.out.shape
    lses = [part.lse.reshape(one.shape[:3]).contiguous() for part in (a, b)]
    batch, heads, queries, wide = one.shape
    out, lse = one.new_empty(one.shape, dtype=dtype), torch.empty_like(lses[0])
    kernels_module().both[-(-queries // ROWS), batch * heads](
        one, *one.stride()[:3], lses[0], other, *other.stride()[:3], lses[1], out, *out.stride()[:3], lse,
        queries, heads, E=wide, EP=power(wide), M=ROWS,
    )  # fmt: skip
    return Partial(out.view(shape), lse.view(shape[:-1]))
