"""Paged attention for a GPU against the float64 oracle.

The kernels run in Triton's interpreter where there is no GPU. The tolerance is computed, see
``tests.lampe.attention.error_bound``.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import lampe
from lampe.attention import BackendDispatcher, LogitOptions
from lampe.attention.rotation import RotaryTables
from lampe.methods import METHODS, method_of
from lampe.positions import LocalWindow
from lampe_vllm.gpu import decode
from lampe_vllm.gpu.decode import DecodeQuery, DecodeTables, attend_paged
from lampe_vllm.gpu.paged_cache import rows_per_block
from lampe_vllm.gpu.prefill import prefill_paged
from tests.lampe.attention.error_bound import error_bound
from tests.lampe_vllm.paged_batches import (
    DEVICE,
    LAYOUTS,
    SCALE,
    PagedBatch,
    Request,
    oracle,
    paged_batch,
)

pytestmark = pytest.mark.usefixtures("interpreted_kernels")

WINDOW = 24
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {} for name in METHODS},
    "dynamic-ntk:rotated": {"cache": "rotated"},
    "chunkllama:reference": {"variant": "reference"},
    "lampe:reference": {
        "variant": "reference",
        "head_tokens": 4,
        "tail_tokens": 3,
        "mapping_length": 12,
    },
    "lampe:paper": {"variant": "paper"},
    "lampe+yarn": {},
}
HEADS = {"MHA": (2, 2), "GQA 4:1": (8, 2), "MQA": (3, 1)}
DTYPES = {64: torch.float32, 128: torch.float16}


def _encoding(method: str, length: int, geometry: lampe.Geometry | None = None) -> lampe.Encoding:
    """Return the encoding of a prompt of ``length`` tokens by one of ``VARIANTS``."""
    geometry = geometry or lampe.Geometry(window=WINDOW, head_dim=64)
    return method_of(method.partition(":")[0], **VARIANTS[method]).encode(geometry, length)


def _decode_requests(method: str, geometry: lampe.Geometry | None = None) -> list[Request]:
    """Return requests of one query each: an answer's, the last of a prompt, and a short prompt's.

    The first has three splits, and ends with a block; the second begins one.
    """
    tokens = {60: 63, 33: 32, 6: 5}
    return [
        (_encoding(method, prompt, geometry), token, token + 1) for prompt, token in tokens.items()
    ]


def _decode(batch: PagedBatch, tables: DecodeTables | None = None) -> Tensor:
    """Return the attention ``[N, H, D]`` of a batch of single queries."""
    tables = tables or DecodeTables(DEVICE)
    queries = [DecodeQuery(each.encoding, each.start) for each in batch.inputs]
    return attend_paged(
        batch.query,
        batch.cache,
        batch.block_table,
        tables.batch(queries),
        scale=SCALE,
        logits=batch.inputs[0].logits,
    )


def _prefill(batch: PagedBatch, backend: str) -> Tensor:
    """Return the attention ``[tokens, H, D]`` of a batch of several queries per request."""
    outputs = []
    for inputs, blocks in zip(batch.inputs, batch.block_table, strict=True):
        out = prefill_paged(
            inputs.query[0].transpose(0, 1),
            batch.cache,
            blocks,
            inputs.encoding,
            inputs.start,
            scale=SCALE,
            logits=inputs.logits,
            tables=RotaryTables(),
            dispatcher=BackendDispatcher(backend),
        )
        outputs.append(out)
    return torch.cat(outputs)


def _check(ours: Tensor, batch: PagedBatch) -> None:
    """Assert that attention ``[tokens, H, D]`` is as close to the oracle as rounding allows."""
    assert ours.dtype == batch.query.dtype
    counts = [inputs.query.shape[2] for inputs in batch.inputs]
    for out, inputs in zip(ours.split(counts), batch.inputs, strict=True):
        assert float((out.double() - oracle(inputs)).abs().max()) <= error_bound(inputs)


@pytest.mark.parametrize("method", VARIANTS)
def test_a_decode_step_of_every_method_equals_the_oracle(method: str) -> None:
    batch = paged_batch(_decode_requests(method))
    _check(_decode(batch), batch)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("dim", DTYPES)
def test_every_layout_of_the_cache_and_of_heads_equals_the_oracle(
    layout: str, heads: str, dim: int
) -> None:
    geometry = lampe.Geometry(window=WINDOW, head_dim=dim)
    requests = _decode_requests("lampe", geometry)[:2]
    batch = paged_batch(requests, layout=layout, heads=HEADS[heads], dim=dim, dtype=DTYPES[dim])
    _check(_decode(batch), batch)


def test_a_batch_in_bfloat16_equals_the_oracle() -> None:
    if DEVICE.type == "cpu":
        pytest.skip("Triton's interpreter cannot multiply bfloat16")
    batch = paged_batch(_decode_requests("lampe"), dtype=torch.bfloat16)
    _check(_decode(batch), batch)


def test_requests_of_different_methods_share_a_launch() -> None:
    requests: list[Request] = []
    for method in ("original", "rerope", "dca", "lampe+yarn"):
        requests += _decode_requests(method)[:1]
    batch = paged_batch(requests, layout="NHD")
    _check(_decode(batch), batch)


@pytest.mark.parametrize(
    "local", [None, LocalWindow(19), LocalWindow(19, chunked=True)], ids=["all", "window", "chunk"]
)
@pytest.mark.parametrize("logits", ["capped", "with sinks"])
def test_soft_caps_sinks_and_local_layers_equal_the_oracle(
    local: LocalWindow | None, logits: str
) -> None:
    options = {
        "capped": LogitOptions(softcap=1.5),
        "with sinks": LogitOptions(sinks=torch.linspace(-2, 3, 4, device=DEVICE)),
    }[logits]
    requests: list[Request] = []
    for encoding, start, stop in _decode_requests("lampe")[:2]:
        plan = encoding.plan.within(local)
        requests.append((dataclasses.replace(encoding, plan=plan), start, stop))
    batch = paged_batch(requests, logits=options)
    _check(_decode(batch), batch)
    chunks = [(encoding, start - 8, stop) for encoding, start, stop in requests]
    batch = paged_batch(chunks, logits=options)
    _check(_prefill(batch, "blockwise"), batch)


@pytest.mark.parametrize(
    "geometry",
    [
        lampe.Geometry(window=WINDOW, head_dim=24, rotary_dim=16),
        lampe.Geometry(window=WINDOW, head_dim=24, rotary_dim=8, begin=16, layout="interleaved"),
        lampe.Geometry(window=WINDOW, head_dim=80, layout="interleaved", sense=-1),
    ],
    ids=["part of a head", "its last part, interleaved", "no power of two"],
)
def test_every_kind_of_rope_equals_the_oracle(geometry: lampe.Geometry) -> None:
    batch = paged_batch(_decode_requests("lampe+yarn", geometry)[1:], dim=geometry.head_dim)
    _check(_decode(batch), batch)


@pytest.mark.parametrize("method", ["lampe", "lampe:reference"])
def test_steps_of_an_answer_equal_the_oracle(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check consecutive steps, one request leaving and another coming, with tables of two tokens.

    The release has another plan for each token of an answer.
    """
    monkeypatch.setattr(decode, "STEPS_AHEAD", 2)
    geometry, tables = lampe.Geometry(window=WINDOW, head_dim=64), DecodeTables(DEVICE)
    how = method_of(method.partition(":")[0], **VARIANTS[method])
    prompts = {length: how.encode(geometry, length) for length in (29, 40)}
    for step, lengths in enumerate(([29], [29, 40], [29, 40], [40])):
        requests = []
        for length in lengths:
            stop = length + step + 1
            plan = how.decode_plan(geometry, length, stop)
            encoding = prompts[length]
            encoding = dataclasses.replace(encoding, plan=plan) if plan else encoding
            requests.append((encoding, stop - 1, stop))
        batch = paged_batch(requests, heads=(2, 1))
        _check(_decode(batch, tables), batch)


def test_tables_of_keys_are_shared_and_freed() -> None:
    tables = DecodeTables(DEVICE)
    long, short = _encoding("lampe", 60), _encoding("lampe", 50)
    tables.batch([DecodeQuery(long, 60), DecodeQuery(short, 50), DecodeQuery(long, 61)])
    # Head and tail of both prompts have the model's own positions; each middle has a map of its
    # own, and so has a table.
    assert len(tables._key_tables) == 3
    batch = tables.batch([DecodeQuery(short, 51)])
    assert len(tables._key_tables) == 2
    assert batch.keys == 52


@pytest.mark.parametrize(
    ("layout", "backend"), [("NHD", "triton"), ("NHD", "blockwise"), ("HND", "blockwise")]
)
def test_prompts_and_chunks_of_them_equal_the_oracle(layout: str, backend: str) -> None:
    encoding = _encoding("lampe", 45)
    requests: Sequence[Request] = [(encoding, 0, 19), (encoding, 19, 45), (encoding, 45, 48)]
    batch = paged_batch(requests, layout=layout, heads=(2, 1))
    _check(_prefill(batch, backend), batch)


@pytest.mark.parametrize("method", VARIANTS)
def test_a_chunk_of_every_method_equals_the_oracle(method: str) -> None:
    batch = paged_batch([(_encoding(method, 45), 30, 45)])
    _check(_prefill(batch, "blockwise"), batch)


def test_a_cache_whose_blocks_are_no_whole_rows_apart_is_refused() -> None:
    padded = torch.zeros(3, 2 * 16 * 8 + 4).as_strided(
        (3, 2, 16, 8), (2 * 16 * 8 + 4, 16 * 8, 8, 1)
    )
    with pytest.raises(lampe.LampeError, match="VLLM_KV_CACHE_LAYOUT"):
        rows_per_block(padded)
