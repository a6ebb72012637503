"""One flash kernel call per region on a GPU: that of an installed flash-attn (3, 2, 4), else the one inside torch.

These kernels take a causal edge and a window, both counted from the last query and the last key, which is what the
moving edges of a piece are. A plan of chunks has a tile for each chunk, so it makes more and smaller calls.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lampe.attention import triton_merge
from lampe.attention.blockwise import Blockwise
from lampe.attention.inputs import AttentionInputs
from lampe.attention.partial_attention import PartialAttention
from lampe.attention.tiling import KeyRange


class Package(NamedTuple):
    """A version of flash-attn: its module, what an open side of a window is called, and head dimensions it takes."""

    module: str
    unbounded: int | None
    dims: range


PACKAGES = (
    Package("flash_attn_interface", -1, range(8, 257, 8)),
    Package("flash_attn", -1, range(8, 257, 8)),
    Package("flash_attn.cute", None, range(64, 129, 32)),
)
"""Versions 3, 2 and 4; the last splits no keys between programs, so a step of an answer is slow under it."""

Kernel = Callable[[Tensor, Tensor, Tensor, float, bool, int], tuple[Tensor, Tensor]]
"""``q[B, Q, H, D]``, ``k`` and ``v[B, K, G, D]``, scale, causal, keys seen before a query's own (-1 for all), to output
``[B, Q, H, D]`` and log-sum-exp ``[B, H, Q]``."""


class Flash(Blockwise):
    """The regions one by one, in half precision."""

    name: ClassVar[str] = "flash"

    def refuses(self, call: AttentionInputs) -> str | None:
        dims = call.query.shape[-1], call.value.shape[-1]
        if call.query.device.type != "cuda":
            return f"it needs a GPU, and the model is on {call.query.device.type}"
        if call.query.dtype not in (torch.bfloat16, torch.float16):
            return f"it takes bfloat16 and float16, not {call.query.dtype}"
        if call.query.requires_grad:
            return "it has no gradients here"
        if call.logits.softcap is not None:
            return "it has no soft cap"
        if dims[0] != dims[1] or dims[0] % 8 or dims[0] > 256:
            return f"it takes heads of 8, 16, ... 256 dimensions, not of {dims[0]} and {dims[1]}"
        return None

    def merged(self, parts: Iterable[PartialAttention]) -> Tensor:
        return triton_merge.merge_partials(parts)

    def partials(
        self, call: AttentionInputs, piece: KeyRange, q: Tensor, k: Tensor, v: Tensor
    ) -> list[PartialAttention]:
        seen = k.shape[2] - q.shape[3] if piece.left else -1
        rows, k, v = (x.transpose(1, 2) for x in (q.flatten(1, 2), k, v))
        out, lse = kernel(q.shape[-1])(rows, k, v, call.scale, piece.right, seen)
        return [PartialAttention(out.transpose(1, 2).reshape(q.shape), lse.reshape(q.shape[:-1]))]


@lru_cache(maxsize=8)
def kernel(dim: int) -> Kernel:
    """The best kernel that is installed for heads of ``dim`` dimensions."""
    for package in PACKAGES:
        with suppress(ImportError, AttributeError):  # version 4 alone leaves ``flash_attn`` empty
            if dim in package.dims:
                return _of_package(
                    importlib.import_module(package.module).flash_attn_func, package.unbounded
                )
    return _of_torch


def _of_package(function: Callable[..., tuple[Tensor, ...]], unbounded: int | None) -> Kernel:
    """A package's function; versions differ in how they are asked for the log-sum-exp, and some always tell."""
    known = inspect.signature(function).parameters
    asked = {name: True for name in ("return_attn_probs", "return_lse") if name in known}

    def call(
        q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, seen: int
    ) -> tuple[Tensor, Tensor]:
        window = unbounded if seen < 0 else seen, 0 if causal else unbounded
        out, lse, *_ = function(
            q, k, v, softmax_scale=scale, causal=causal, window_size=window, **asked
        )
        return out, lse

    return call


def _of_torch(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, seen: int
) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, None, None, q.shape[1], k.shape[1], 0.0, causal, False,
        scale=scale, window_size_left=None if seen < 0 else seen, window_size_right=0 if causal else None,
    )  # fmt: skip
    return out, lse
