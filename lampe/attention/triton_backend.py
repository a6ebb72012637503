"""The plan in one kernel: prefill walks the regions of a query tile, decode splits the keys of one query.

Prefill reads keys that are turned once per region's key map; decode turns them on their way from the cache, so that
nothing is kept beside it. The kernels are in ``lampe.attention.triton_kernels``, which is imported when first needed.
"""

import importlib
import importlib.util
import math
import os
from functools import lru_cache
from types import ModuleType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lampe.attention.backend import Backend
from lampe.attention.inputs import AttentionInputs
from lampe.attention.partial_attention import sink_attention
from lampe.attention.rotation import cos_sin
from lampe.encoding import Encoding
from lampe.positions import PositionMap, PositionPlan

LOG2E = math.log2(math.e)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SMALLEST, LARGEST = 16, 256
REGIONS = 64
SPLIT = 512
"""Keys of one program of decode."""


class KernelTile(NamedTuple):
    """Queries and keys of a tile, and how a program is run."""

    queries: int
    keys: int
    warps: int
    stages: int


def prefill_tile(dim: int, dtype: torch.dtype) -> KernelTile:
    """What compiles for compute capability 8.0 without spilling registers in the loop over keys."""
    if dtype == torch.float32 and dim > 128:
        return KernelTile(32, 16, 4, 2)
    if dtype == torch.float32 or dim > 128:
        return KernelTile(64, 32, 4, 2)
    return KernelTile(128, 64, 8 if dim > 64 else 4, 3)


DECODE = KernelTile(1, 32, 4, 2)
TURN = 64
"""Keys of one program that turns them."""


class Triton(Backend):
    """Own kernels, on a GPU, or anywhere with ``TRITON_INTERPRET=1`` (which is slow, and for tests)."""

    name: ClassVar[str] = "triton"

    def refuses(self, call: AttentionInputs) -> str | None:
        dims = call.query.shape[-1], call.value.shape[-1]
        if importlib.util.find_spec("triton") is None:
            return "the package triton is not installed"
        if call.query.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return f"it needs a GPU, and the model is on {call.query.device.type}"
        if call.query.requires_grad:
            return "it has no gradients"
        if call.query.dtype not in DTYPES:
            return f"it takes float32, bfloat16 and float16, not {call.query.dtype}"
        if min(dims) < SMALLEST or max(dims) > LARGEST:
            return f"it takes heads of {SMALLEST} to {LARGEST} dimensions, not of {dims[0]} and {dims[1]}"
        if len(call.encoding.plan.regions) > REGIONS:
            return f"it takes up to {REGIONS} regions, not {len(call.encoding.plan.regions)}"
        return None

    def attend(self, call: AttentionInputs) -> Tensor:
        return _decode(call) if call.query.shape[2] == 1 else _prefill(call)


def _prefill(call: AttentionInputs) -> Tensor:
    """All queries over keys that are turned once by each of the plan's key maps."""
    kernels, encoding = kernels_module(), call.encoding
    batch, heads, queries, _ = call.query.shape
    _, groups, keys, wide = call.value.shape
    low, high = _edges(encoding.plan, call.start, call.stop, call.first, call.query.device)
    maps, rotation = _key_maps(encoding.plan, call.query.device)
    turned = _turned_keys(call, maps)
    query, value = contiguous_rows(call.grouped_query().flatten(1, 2)), contiguous_rows(call.value)
    out = query.new_empty(batch, queries, heads, wide).transpose(1, 2)
    asked = tuple(region.query for region in encoding.plan)
    cos, sin = call.tables.stacked(
        asked, encoding, encoding.effective_attention_factor.factor**2, call.stop, query.device
    )
    sinks = call.logits.sinks
    tile = prefill_tile(query.shape[-1], query.dtype)
    kernels.prefill[-(-queries // tile.queries), batch * heads](
        query, *query.stride()[:3], turned, *turned.stride()[:3], value, *value.stride()[:3], out, *out.stride()[:3],
        low, high, rotation, cos, sin, cos.shape[1], query if sinks is None else sinks.contiguous(),
        call.start, call.first, queries, keys, heads, groups, call.scale * LOG2E,
        **_shape(call), **_values(call), M=tile.queries, N=tile.keys, S=len(asked), SINKS=sinks is not None,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out


def _turned_keys(call: AttentionInputs, maps: tuple[PositionMap, ...]) -> Tensor:
    """The keys turned by each map, ``[V, B, G, K, D]``."""
    batch, groups, keys, _ = call.key.shape
    key, turned = contiguous_rows(call.key), call.key.new_empty(len(maps), *call.key.shape)
    cos, sin = call.tables.stacked(maps, call.encoding, 1.0, call.first + keys, call.key.device)
    for index, out in enumerate(turned):
        kernels_module().turn[-(-keys // TURN), batch * groups](
            key, *key.stride()[:3], out, *out.stride()[:2], cos[index], sin[index], call.first, keys, groups,
            **_shape(call), N=TURN,
        )  # fmt: skip
    return turned


def _decode(call: AttentionInputs) -> Tensor:
    """One query: the splits' parts ``[B, G, splits, R, E]``, merged."""
    kernels, encoding = kernels_module(), call.encoding
    batch, heads, _, dim = call.query.shape
    _, groups, keys, wide = call.value.shape
    device = call.query.device
    low, high = _edges(encoding.plan, call.start, call.stop, call.first, device)
    maps, rotation = _key_maps(encoding.plan, device)
    cos, sin = call.tables.stacked(maps, encoding, 1.0, call.first + keys, device)
    query, key, value = (
        call.grouped_query().flatten(1, 2),
        contiguous_rows(call.key),
        contiguous_rows(call.value),
    )
    splits, rows = -(-keys // SPLIT), heads // groups
    out = torch.empty(batch, groups, splits, rows, wide, device=device)
    lse = torch.empty(batch, groups, splits, rows, device=device)
    q_cos, q_sin = _query_tables(encoding, call.start, device)
    kernels.decode[splits, batch * groups](
        query, *query.stride()[:2], key, *key.stride()[:3], value, *value.stride()[:3], out, lse,
        low, high, q_cos, q_sin, rotation, cos, sin, cos.shape[1], call.first, keys, groups, rows,
        call.scale * LOG2E, **_shape(call), **_values(call), M=max(16, next_power_of_two(rows)), N=DECODE.keys, S=len(low),
        SPLIT=SPLIT, num_warps=DECODE.warps, num_stages=DECODE.stages,
    )  # fmt: skip
    if call.logits.sinks is not None:
        sunk = sink_attention(query.view(batch, groups, rows, 1, dim), wide, call.logits.sinks)
        out = torch.cat((out, sunk.out.transpose(2, 3)), dim=2)
        lse = torch.cat((lse, sunk.lse.transpose(2, 3)), dim=2)
    merged: Tensor = (out * lse.softmax(2)[..., None]).sum(2)
    return merged.to(query.dtype).view(batch, heads, 1, wide)


def kernels_module() -> ModuleType:
    """The kernels, imported when first needed."""
    return importlib.import_module("lampe.attention.triton_kernels")


def _shape(call: AttentionInputs) -> dict[str, int]:
    """Compile-time sizes of keys and of their rotation."""
    rope, dim = call.encoding.rope, call.query.shape[-1]
    pairs = {"P": len(rope.inv_freq), "BEGIN": rope.begin, "HALF": rope.layout == "half"}
    return {"D": dim, "DP": next_power_of_two(dim), **pairs}


def _values(call: AttentionInputs) -> dict[str, float]:
    """Compile-time sizes of values, and the soft cap."""
    wide = call.value.shape[-1]
    return {"E": wide, "EP": next_power_of_two(wide), "SOFTCAP": call.logits.softcap or 0.0}


def next_power_of_two(size: int) -> int:
    """The power of two from ``size`` on."""
    return 1 << (size - 1).bit_length()


def contiguous_rows(x: Tensor) -> Tensor:
    """``x`` with its last dimension dense."""
    return x if x.stride(-1) == 1 else x.contiguous()


@lru_cache(maxsize=64)
def _edges(
    plan: PositionPlan, start: int, stop: int, first: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """First and last key of each query in each region, ``[S, Q]`` int32."""
    query = torch.arange(start, stop, device=device)
    low, high = (
        torch.stack(edges).int()
        for edges in zip(*(region.span(query) for region in plan), strict=True)
    )
    return low.clamp(min=first), high


@lru_cache(maxsize=64)
def _key_maps(plan: PositionPlan, device: torch.device) -> tuple[tuple[PositionMap, ...], Tensor]:
    """The plan's distinct key maps, and which of them each region takes, ``[S]`` int32."""
    maps = tuple(dict.fromkeys(region.key for region in plan))
    return maps, torch.tensor(
        [maps.index(region.key) for region in plan], dtype=torch.int32, device=device
    )


@lru_cache(maxsize=8)
def _query_tables(encoding: Encoding, at: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cos and sin ``[S, P]`` of one query."""
    token, factor = torch.tensor([at], device=device), encoding.effective_attention_factor.factor**2
    tables = [cos_sin(region.query, encoding, token, factor) for region in encoding.plan]
    cos, sin = (torch.cat(x) for x in zip(*tables, strict=True))
    return cos, sin
