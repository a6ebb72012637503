"""Backend whose Triton kernels attend over all regions of a plan in one launch.

Prefill reads keys that are rotated beforehand, once per distinct key map. Decode rotates keys while
it reads them from the cache, so that nothing is stored beside the cache. The kernels are in
``lampe.attention.triton_kernels``, imported when first needed: Triton may not be installed.

Shapes: B batch, H query heads, G key heads, R query heads per key head, Q queries, K keys, D and E
dimensions of keys and of values per head, P rotated pairs, S regions, V distinct key maps.
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
# ``tl.dot`` needs at least 16 along each dimension; ``prefill_tile`` knows no tile beyond 256.
MIN_HEAD_DIM, MAX_HEAD_DIM = 16, 256
MAX_REGIONS = 64
SPLIT_KEYS = 512
"""Keys of the cache per program of the decode kernel."""
ROTATION_KEYS = 64
"""Keys per program of the kernel that rotates keys."""


class KernelTile(NamedTuple):
    """Size of the blocks of an attention kernel, and how its programs run.

    Attributes:
        queries: queries per block.
        keys: keys per block.
        warps: warps per program.
        stages: stages of software pipelining in the loop over keys.
    """

    queries: int
    keys: int
    warps: int
    stages: int


def prefill_tile(dim: int, dtype: torch.dtype) -> KernelTile:
    """Return the tile of the prefill kernel for heads of ``dim`` dimensions."""
    # Wide heads and float32 take smaller tiles, which need less shared memory than a GPU of
    # compute capability 8.6 has.
    if dtype == torch.float32 and dim > 128:
        return KernelTile(queries=32, keys=16, warps=4, stages=2)
    if dtype == torch.float32 or dim > 128:
        return KernelTile(queries=64, keys=32, warps=4, stages=2)
    # Compiled for capability 8.0, 128 x 64 with 4 warps spilled 2.7 kB of registers at more than
    # 64 dimensions; with 8 warps nothing is spilled in the loop over keys.
    return KernelTile(queries=128, keys=64, warps=8 if dim > 64 else 4, stages=3)


DECODE_TILE = KernelTile(queries=1, keys=32, warps=4, stages=2)


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Return whether the package triton is installed; asked in every layer, looked up once."""
    return importlib.util.find_spec("triton") is not None


def runs_kernels_on(device: torch.device) -> bool:
    """Return whether Triton runs kernels on a device: a GPU, or any under its interpreter."""
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


class Triton(Backend):
    """Attention by this project's Triton kernels.

    They run on a GPU, and with ``TRITON_INTERPRET=1`` anywhere, which is slow and meant for tests.
    """

    name: ClassVar[str] = "triton"

    def refuses(self, inputs: AttentionInputs) -> str | None:
        key_dim, value_dim = inputs.query.shape[-1], inputs.value.shape[-1]
        regions = len(inputs.encoding.plan.regions)
        if not has_triton():
            return "the package triton is not installed"
        if not runs_kernels_on(inputs.query.device):
            return f"it needs a GPU, and the model is on {inputs.query.device.type}"
        if inputs.query.requires_grad:
            return "it computes no gradients"
        if inputs.query.dtype not in DTYPES:
            return f"it takes float32, bfloat16 and float16, not {inputs.query.dtype}"
        if min(key_dim, value_dim) < MIN_HEAD_DIM or max(key_dim, value_dim) > MAX_HEAD_DIM:
            return (
                f"it takes keys and values of {MIN_HEAD_DIM} to {MAX_HEAD_DIM} dimensions per "
                f"head, not {key_dim} and {value_dim}"
            )
        if regions > MAX_REGIONS:
            return f"it takes plans of up to {MAX_REGIONS} regions, not {regions}"
        return None

    def attend_run(self, inputs: AttentionInputs) -> Tensor:
        return _decode(inputs) if inputs.query.shape[2] == 1 else _prefill(inputs)


def _prefill(inputs: AttentionInputs) -> Tensor:
    """Return attention ``[B, H, Q, E]`` of several queries."""
    encoding, device = inputs.encoding, inputs.query.device
    batch, heads, queries, dim = inputs.query.shape
    _, groups, keys, value_dim = inputs.value.shape
    first_key, last_key, _ = _edges(inputs)
    key_maps, map_of_region = _key_maps(encoding.plan, device)
    # Rotated before the kernel, not in it: at 131072 tokens some 500 blocks of queries (half of
    # 131072 / 128) read a block of keys, for every head of its group.
    rotated_keys = _rotate_keys(inputs, key_maps)
    query = contiguous_rows(inputs.grouped_query().flatten(1, 2))
    value = contiguous_rows(inputs.value)
    # [B, Q, H, E] in memory, so that joining the heads of a token afterwards needs no copy.
    out = query.new_empty(batch, queries, heads, value_dim).transpose(1, 2)
    query_maps = tuple(region.query for region in encoding.plan)
    cos, sin = inputs.tables.stacked(
        query_maps, encoding, encoding.logit_factor, inputs.stop, device
    )
    sinks = inputs.logits.sinks
    tile = prefill_tile(dim, query.dtype)
    grid = -(-queries // tile.queries), batch * heads
    kernels_module().prefill[grid](
        query, *query.stride()[:3],
        rotated_keys, *rotated_keys.stride()[:3],
        value, *value.stride()[:3],
        out, *out.stride()[:3],
        first_key, last_key, map_of_region, cos, sin, cos.shape[1],
        query if sinks is None else sinks.contiguous(),  # any pointer will do where there are none
        inputs.start, queries, keys, heads, groups, inputs.scale * LOG2E,
        **_key_constants(inputs), **_value_constants(inputs),
        BQ=tile.queries, BK=tile.keys, S=len(query_maps), USE_SINKS=sinks is not None,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out


def _rotate_keys(inputs: AttentionInputs, key_maps: tuple[PositionMap, ...]) -> Tensor:
    """Return the keys rotated by each map, ``[V, B, G, K, D]``."""
    batch, groups, keys, _ = inputs.key.shape
    key = contiguous_rows(inputs.key)
    rotated = inputs.key.new_empty(len(key_maps), *inputs.key.shape)
    cos, sin = inputs.tables.stacked(key_maps, inputs.encoding, 1.0, inputs.stop, inputs.key.device)
    first = inputs.first
    if inputs.gap:
        # The kernel takes rows of the tables for consecutive tokens.
        cos, sin, first = cos[:, inputs.key_tokens], sin[:, inputs.key_tokens], 0
    grid = -(-keys // ROTATION_KEYS), batch * groups
    for index, out in enumerate(rotated):
        kernels_module().rotate_keys[grid](
            key, *key.stride()[:3], out, *out.stride()[:2],
            cos[index], sin[index], first, keys, groups,
            **_key_constants(inputs), BK=ROTATION_KEYS,
        )  # fmt: skip
    return rotated


def _decode(inputs: AttentionInputs) -> Tensor:
    """Return attention ``[B, H, 1, E]`` of one query, whose keys are split between programs."""
    encoding, device = inputs.encoding, inputs.query.device
    batch, heads, _, dim = inputs.query.shape
    _, groups, keys, value_dim = inputs.value.shape
    first_key, last_key, missing = _edges(inputs)
    key_maps, map_of_region = _key_maps(encoding.plan, device)
    # Read beside the cache: 1.12 times its bytes. For maps that are linear in the token the query
    # could be rotated to each block's first key instead; nobody could time that.
    key_cos, key_sin = inputs.tables.stacked(key_maps, encoding, 1.0, inputs.stop, device)
    query_cos, query_sin = _query_tables(encoding, inputs.start, device)
    query = inputs.grouped_query().flatten(1, 2)
    key, value = contiguous_rows(inputs.key), contiguous_rows(inputs.value)
    # Flash-decoding: one query has too few blocks to occupy a GPU, so its keys are split between
    # programs, whose partial results are merged at the end.
    splits, group_size = -(-keys // SPLIT_KEYS), heads // groups
    # Partial outputs are float32: rounding each of them would add up in the merge.
    out = torch.empty(batch, groups, splits, group_size, value_dim, device=device)
    lse = torch.empty(batch, groups, splits, group_size, device=device)
    kernels_module().decode[splits, batch * groups](
        query, *query.stride()[:2], key, *key.stride()[:3], value, *value.stride()[:3], out, lse,
        first_key, last_key, missing, query_cos, query_sin,
        map_of_region, key_cos, key_sin, key_cos.shape[1],
        keys, groups, group_size, inputs.scale * LOG2E,
        **_key_constants(inputs), **_value_constants(inputs),
        BQ=max(16, next_power_of_two(group_size)),  # ``tl.dot`` needs 16 rows
        BK=DECODE_TILE.keys, S=len(first_key), SPLIT_KEYS=SPLIT_KEYS,
        num_warps=DECODE_TILE.warps, num_stages=DECODE_TILE.stages,
    )  # fmt: skip
    if inputs.logits.sinks is not None:
        grouped = query.view(batch, groups, group_size, 1, dim)
        sink = sink_attention(grouped, value_dim, inputs.logits.sinks)
        out = torch.cat((out, sink.out.transpose(2, 3)), dim=2)
        lse = torch.cat((lse, sink.lse.transpose(2, 3)), dim=2)
    merged: Tensor = (out * lse.softmax(2)[..., None]).sum(2)
    return merged.to(query.dtype).view(batch, heads, 1, value_dim)


def kernels_module() -> ModuleType:
    """Import and return ``lampe.attention.triton_kernels``."""
    return importlib.import_module("lampe.attention.triton_kernels")


def _key_constants(inputs: AttentionInputs) -> dict[str, int]:
    """Return the compile-time constants of keys and of their rotation."""
    rope, dim = inputs.encoding.rope, inputs.query.shape[-1]
    return {
        "D": dim,
        "BD": next_power_of_two(dim),
        "P": len(rope.inv_freq),
        "BEGIN": rope.begin,
        "IS_HALF_LAYOUT": rope.layout == "half",
    }


def _value_constants(inputs: AttentionInputs) -> dict[str, float]:
    """Return the compile-time constants of values, and the soft cap."""
    dim = inputs.value.shape[-1]
    return {"E": dim, "BE": next_power_of_two(dim), "SOFTCAP": inputs.logits.softcap or 0.0}


def next_power_of_two(size: int) -> int:
    """Return the smallest power of two that is at least ``size``."""
    return 1 << (size - 1).bit_length()


def contiguous_rows(x: Tensor) -> Tensor:
    """Return ``x``, or a copy of it where its last dimension is not contiguous."""
    # The kernels take a stride of 1 for granted: consecutive elements make loads wide.
    return x if x.stride(-1) == 1 else x.contiguous()


def _edges(inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
    """Return the columns of each query's first and last key in each region, ``[S, Q]`` int32.

    A query that owns no key has a last one below its first. The third tensor, of the same shape, is
    the number of tokens before a query's keys that have no column.
    """
    encoding, device = inputs.encoding, inputs.query.device
    return _edge_columns(encoding.plan, inputs.start, inputs.stop, inputs.first, inputs.gap, device)


# All layers of a forward call share them.
@lru_cache(maxsize=64)
def _edge_columns(
    plan: PositionPlan, start: int, stop: int, first: int, gap: range, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    query = torch.arange(start, stop, device=device)
    spans = [region.span(query) for region in plan]
    # Keys before ``first`` are gone: a sliding window's cache has dropped them.
    first_key = torch.stack([first_key for first_key, _ in spans]).clamp(min=first)
    last_key = torch.stack([last_key for _, last_key in spans])
    # A query's keys in a region lie on one side of the gap.
    missing = first + len(gap) * (first_key >= gap.stop)
    first_key, last_key = first_key - missing, last_key - missing
    return first_key.int(), last_key.int(), missing.int()


@lru_cache(maxsize=64)
def _key_maps(plan: PositionPlan, device: torch.device) -> tuple[tuple[PositionMap, ...], Tensor]:
    """Return the V distinct key maps of a plan, and the map of each region as ``[S]`` int32."""
    maps = tuple(dict.fromkeys(region.key for region in plan))
    indices = [maps.index(region.key) for region in plan]
    return maps, torch.tensor(indices, dtype=torch.int32, device=device)


@lru_cache(maxsize=8)
def _query_tables(encoding: Encoding, token: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cos and sin ``[S, P]`` of one query in each region."""
    index = torch.tensor([token], device=device)
    factor = encoding.logit_factor
    tables = [cos_sin(region.query, encoding, index, factor) for region in encoding.plan]
    return torch.cat([cos for cos, _ in tables]), torch.cat([sin for _, sin in tables])
