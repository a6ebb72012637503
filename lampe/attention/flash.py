"""Backend that calls a flash kernel per key range on a GPU.

It takes the kernel of an installed flash-attn (version 3, 2 or 4), else the one inside torch. These
kernels support a causal edge and a window, both aligned to the last query and the last key. These
are the diagonal edges of a key range (``lampe.attention.tiling``). A plan of chunks has a tile for
each chunk, so it needs more and smaller calls.

Shapes: B batch, H query heads, G key heads, Q queries, K keys, D head dimensions.
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


class FlashPackage(NamedTuple):
    """Version of flash-attn.

    Attributes:
        module: name of the module with ``flash_attn_func``.
        unbounded: value of ``window_size`` for a side without a bound.
        dims: head dimensions that it supports.
    """

    module: str
    unbounded: int | None
    dims: range


# Versions 3, 2 and 4, in order of preference. Version 4 comes last because it does not split keys
# between programs, which makes decode steps slow.
PACKAGES = (
    FlashPackage("flash_attn_interface", -1, range(8, 257, 8)),
    FlashPackage("flash_attn", -1, range(8, 257, 8)),
    FlashPackage("flash_attn.cute", None, range(64, 129, 32)),
)

FlashKernel = Callable[[Tensor, Tensor, Tensor, float, bool, int], tuple[Tensor, Tensor]]
"""Flash kernel called as ``kernel(q, k, v, scale, causal, window_left)``.

``q[B, Q, H, D]``, ``k`` and ``v[B, K, G, D]``; ``window_left`` is the number of keys that a query
sees before its own, -1 for all. Returns output ``[B, Q, H, D]`` and log-sum-exp ``[B, H, Q]``.
"""


class Flash(Blockwise):
    """Blockwise attention whose key ranges are flash kernel calls, in half precision."""

    name: ClassVar[str] = "flash"

    def refuses(self, inputs: AttentionInputs) -> str | None:
        key_dim, value_dim = inputs.query.shape[-1], inputs.value.shape[-1]
        if inputs.query.device.type != "cuda":
            return f"it needs a GPU, and the model is on {inputs.query.device.type}"
        if inputs.query.dtype not in (torch.bfloat16, torch.float16):
            return f"it takes bfloat16 and float16, not {inputs.query.dtype}"
        if inputs.query.requires_grad:
            return "it computes no gradients"
        if inputs.logits.softcap is not None:
            return "it has no soft cap"
        if key_dim != value_dim or key_dim % 8 or key_dim > 256:
            return (
                "it takes keys and values of 8, 16, ... 256 dimensions per head, both the same, "
                f"not {key_dim} and {value_dim}"
            )
        return None

    def merge(self, parts: Iterable[PartialAttention]) -> Tensor:
        return triton_merge.merge_partials(parts)

    def partials(
        self, inputs: AttentionInputs, keys: KeyRange, q: Tensor, k: Tensor, v: Tensor
    ) -> list[PartialAttention]:
        # Windows are counted from a query's own key. With aligned ends, query x's own key is
        # x + K - Q, and on a diagonal left edge its first key is x: K - Q keys earlier.
        window_left = k.shape[2] - q.shape[3] if keys.left_diagonal else -1
        q_BQHD, k_BKGD, v_BKGD = (x.transpose(1, 2) for x in (q.flatten(1, 2), k, v))
        kernel = flash_kernel(q.shape[-1])
        out, lse = kernel(q_BQHD, k_BKGD, v_BKGD, inputs.scale, keys.right_diagonal, window_left)
        return [PartialAttention(out.transpose(1, 2).reshape(q.shape), lse.reshape(q.shape[:-1]))]


@lru_cache(maxsize=8)
def flash_kernel(dim: int) -> FlashKernel:
    """Return the preferred kernel, among those installed, for heads of ``dim`` dimensions."""
    for package in PACKAGES:
        if dim not in package.dims:
            continue
        # AttributeError: an installation of version 4 alone has a ``flash_attn`` without content.
        with suppress(ImportError, AttributeError):
            function = importlib.import_module(package.module).flash_attn_func
            return _package_kernel(function, package.unbounded)
    return _torch_kernel


def _package_kernel(
    function: Callable[..., tuple[Tensor, ...]], unbounded: int | None
) -> FlashKernel:
    """Return flash-attn's function, of any version, as a ``FlashKernel``."""
    # Versions differ in the option that asks for the log-sum-exp; some have none and always return
    # it.
    known = inspect.signature(function).parameters
    lse_options = {name: True for name in ("return_attn_probs", "return_lse") if name in known}

    def kernel(
        q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, window_left: int
    ) -> tuple[Tensor, Tensor]:
        left = unbounded if window_left < 0 else window_left
        right = 0 if causal else unbounded
        out, lse, *_ = function(
            q, k, v, softmax_scale=scale, causal=causal, window_size=(left, right), **lse_options
        )
        return out, lse

    return kernel


def _torch_kernel(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, window_left: int
) -> tuple[Tensor, Tensor]:
    """Run the flash kernel inside torch, which is a ``FlashKernel``."""
    # In order: no cumulative lengths (these are for packed sequences), the longest query and key,
    # no dropout, causal or not, no debug mask.
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, None, None, q.shape[1], k.shape[1], 0.0, causal, False,
        scale=scale,
        window_size_left=None if window_left < 0 else window_left,
        window_size_right=0 if causal else None,
    )  # fmt: skip
    return out, lse
