"""Decode step of all requests of a batch in one launch, over a paged KV cache.

Each request has its own encoding. What the kernel must know of a request is a few numbers per
region: the first and the last key that its query owns, and the addresses of tables of cos and sin.
They are computed for ``STEPS_AHEAD`` tokens of a request at a time: that takes a busy CPU core
about a millisecond, which each request would else add to every step. Looking them up takes 15
microseconds.

Shapes: N requests, H query heads, G key heads, R query heads per key head, S regions, D head
dimensions, P rotated pairs, T tokens.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lampe.attention import LogitOptions
from lampe.attention.rotation import RotaryTables, cos_sin
from lampe.attention.triton_backend import DECODE_TILE, LOG2E, SPLIT_KEYS, next_power_of_two
from lampe.attention_factor import AttentionFactor
from lampe.encoding import Encoding
from lampe.positions import PositionMap, Region
from lampe.rope import Rope
from lampe_vllm.gpu.paged_cache import PagedCache, rows_per_block

STEPS_AHEAD = 64
"""Consecutive tokens of a request whose rows are computed together."""
REGION_FIELDS = 6
"""Numbers per request and region that the kernel reads, see ``kernels.paged_decode``."""


class DecodeQuery(NamedTuple):
    """Query of a request.

    Attributes:
        encoding: of the request's prompt, or of this token. Compared by identity: give the same
            object in every step of a request.
        token: token index of the query, whose key is the last one.
    """

    encoding: Encoding
    token: int


@dataclass(frozen=True, eq=False)
class DecodeBatch:
    """Queries of a step, prepared for the kernel; all layers with these encodings share it.

    Attributes:
        regions: ``[N, S, 6]`` int64, see ``kernels.paged_decode``.
        query_scale: ``[N]`` float32, the log-n scale of queries; None where no encoding has one.
        keys: tokens of the longest request.
        rope: a rope of the batch; the others differ in frequencies alone.
        rows: owners of the tables whose addresses are in ``regions``.
    """

    regions: Tensor
    query_scale: Tensor | None
    keys: int
    rope: Rope
    rows: tuple["TokenRows", ...]


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Consecutive tokens of an encoding, as the kernel reads them.

    Attributes:
        encoding: the encoding.
        start: token index of the first row.
        regions: ``[T, S, 6]`` int64.
        query_scale: ``[T]`` float32, 1 without a log-n scale.
        tables: tensors and owners of the tables whose addresses are in ``regions``.
    """

    encoding: Encoding
    start: int
    regions: NDArray[np.int64]
    query_scale: NDArray[np.float32]
    tables: tuple[object, ...]


_KeyRotation = tuple[PositionMap, Rope, AttentionFactor]


class DecodeTables:
    """Tables of the requests of the latest step, on one device.

    A table of keys takes 8 bytes per token and rotated pair. Requests share it where they rotate
    keys alike, and it is freed once no request of a step needs it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rows: dict[tuple[int, int], TokenRows] = {}
        self._key_tables: WeakValueDictionary[_KeyRotation, RotaryTables] = WeakValueDictionary()

    def batch(self, queries: Sequence[DecodeQuery]) -> DecodeBatch:
        """Return the queries of a step, prepared for the kernel."""
        used: dict[tuple[int, int], TokenRows] = {}
        rows = []
        for encoding, token in queries:
            start = token - token % STEPS_AHEAD
            # By identity: comparing two encodings compares all of their frequencies.
            key = id(encoding), start
            if key not in used:
                used[key] = self._rows.get(key) or self._token_rows(encoding, start)
            rows.append(used[key])
        # The tables of requests that are not in this step go, with whatever only they needed.
        # Kernels may still read them; torch reuses memory in the order of the device's work.
        self._rows = used
        most_regions = max(each.regions.shape[1] for each in rows)
        # Regions that a request does not have: first key 0, last key -1.
        regions = np.zeros((len(queries), most_regions, REGION_FIELDS), dtype=np.int64)
        regions[:, :, 1] = -1
        scale = np.ones(len(queries), dtype=np.float32)
        for index, ((_, token), each) in enumerate(zip(queries, rows, strict=True)):
            regions[index, : each.regions.shape[1]] = each.regions[token - each.start]
            scale[index] = each.query_scale[token - each.start]
        return DecodeBatch(
            regions=on_device(regions, self._device),
            query_scale=None if (scale == 1).all() else on_device(scale, self._device),
            keys=max(token for _, token in queries) + 1,
            rope=queries[0].encoding.rope,
            rows=tuple(rows),
        )

    def _token_rows(self, encoding: Encoding, start: int) -> TokenRows:
        """Return the rows of ``STEPS_AHEAD`` tokens from ``start`` on."""
        index = torch.arange(start, start + STEPS_AHEAD)
        scale = encoding.attention_factor.query_scale(index)
        fields, tables = [], []
        for region in encoding.plan:
            region_fields, region_tables = self._region_rows(region, encoding, index)
            fields.append(region_fields)
            tables += region_tables
        return TokenRows(
            encoding=encoding,
            start=start,
            regions=torch.stack(fields, dim=1).numpy(),
            query_scale=np.ones(len(index), np.float32) if scale is None else scale.numpy(),
            tables=tuple(tables),
        )

    def _region_rows(
        self, region: Region, encoding: Encoding, index: Tensor
    ) -> tuple[Tensor, list[object]]:
        """Return the fields ``[T, 6]`` of tokens in a region, and the owners of its tables."""
        first_key, last_key = region.span(index)
        start, stop = int(index[0]), int(index[-1]) + 1
        # Made on the device: a copy from the host would wait for it.
        there = torch.arange(start, stop, device=self._device)
        query_tables = cos_sin(region.query, encoding, there, encoding.logit_factor)
        rotation = region.key, encoding.rope, encoding.attention_factor
        key_rotation = self._key_tables.get(rotation)
        if key_rotation is None:
            key_rotation = self._key_tables[rotation] = RotaryTables()
        key_tables = key_rotation.stacked((region.key,), encoding, 1.0, stop, self._device)
        fields = [first_key, last_key]
        for table in query_tables:
            row_bytes = table.stride(0) * table.element_size()
            fields.append(table.data_ptr() + row_bytes * torch.arange(len(index)))
        for table in key_tables:
            fields.append(torch.full_like(index, table.data_ptr()))
        return torch.stack(fields, dim=1), [*query_tables, *key_tables, key_rotation]


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device without waiting for what the device has still to do."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def attend_paged(
    query: Tensor,
    cache: PagedCache,
    block_table: Tensor,
    batch: DecodeBatch,
    *,
    scale: float,
    logits: LogitOptions,
) -> Tensor:
    """Return the attention ``[N, H, D]`` of one query per request.

    Args:
        query: ``[N, H, D]``, not rotated.
        cache: keys and values of the layer, with those of the queries' own tokens.
        block_table: ``[N, blocks]`` int32, the blocks of each request in the order of its tokens.
        batch: the queries, in the same order.
        scale: factor on the logits before the softmax.
        logits: soft cap and sinks of the layer.
    """
    if batch.query_scale is not None:
        # The scale is float32 and would promote queries of half precision.
        query = (query * batch.query_scale[:, None, None]).to(query.dtype)
    query = query if query.stride(-1) == 1 else query.contiguous()
    requests, heads, dim = query.shape
    groups = cache.key.shape[1]
    # One query has too few blocks to occupy a GPU, so its keys are split between programs, whose
    # partial results are merged at the end, in float32.
    splits, group_size = -(-batch.keys // SPLIT_KEYS), heads // groups
    out = torch.empty(requests, groups, splits, group_size, dim, device=query.device)
    lse = torch.empty(requests, groups, splits, group_size, device=query.device)
    sinks = logits.sinks
    rope = batch.rope
    _kernels().paged_decode[splits, requests * groups](
        query, *query.stride()[:2],
        cache.key, *cache.key.stride()[1:3], rows_per_block(cache.key),
        cache.value, *cache.value.stride()[1:3], rows_per_block(cache.value),
        block_table, block_table.stride(0), batch.regions,
        query if sinks is None else sinks.contiguous(),  # any pointer will do where there are none
        out, lse, groups, group_size, batch.regions.shape[1], scale * LOG2E,
        D=dim, BD=next_power_of_two(dim), P=len(rope.inv_freq), BEGIN=rope.begin,
        IS_HALF_LAYOUT=rope.layout == "half",
        BQ=max(16, next_power_of_two(group_size)),  # ``tl.dot`` needs 16 rows
        BK=DECODE_TILE.keys, SLOTS=cache.slots, SPLIT_KEYS=SPLIT_KEYS,
        SOFTCAP=logits.softcap or 0.0, USE_SINKS=sinks is not None,
        num_warps=DECODE_TILE.warps, num_stages=DECODE_TILE.stages,
    )  # fmt: skip
    merged: Tensor = (out * lse.softmax(2)[..., None]).sum(2)
    return merged.to(query.dtype).view(requests, heads, dim)


def _kernels() -> ModuleType:
    """Import and return ``lampe_vllm.gpu.kernels``; Triton may not be installed."""
    return importlib.import_module("lampe_vllm.gpu.kernels")
