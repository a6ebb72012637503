"""Parts of single queries: attention over them, as the compiled code computes it, is the oracle's.

The compiled code itself needs numba, which vLLM brings along: ``tests/vllm`` runs it.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lampe
from lampe.attention import BACKENDS
from lampe.attention.rotation import rotate
from lampe.positions import LocalWindow
from lampe_vllm.batch_tokens import PART_KEYS, BatchTokens, SingleQueries
from lampe_vllm.prompt_encodings import PromptEncodings

HEADS, GROUPS, DIM, SIZE = 4, 2, 16, 32
WINDOW = 64
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("original", {}),
    ("lampe", {}),
    ("lampe", {"variant": "separable"}),
    ("selfextend", {}),
    ("dca", {}),
    ("chunkllama", {}),
    ("yarn", {}),
    ("string", {}),
    ("rerope", {}),
    ("streaming-llm", {"sinks": 3, "recent": 40}),
    ("lm-infinite", {"sinks": 3, "local": 40}),
    ("dynamic-ntk", {"cache": "rotated"}),
    ("lampe+yarn", {}),
    ("lampe", {"attention_factor": "logn"}),
    ("dpe", {"group_sizes": "2/5/1/3"}),
    ("gali", {}),
]


def attention_over_parts(
    query: Tensor, cache: Tensor, batch: BatchTokens, single: SingleQueries, encodings: Any
) -> Tensor:
    """Return the attention ``[N, H, D]`` of single queries, in plain torch."""
    rope = encodings.geometry.rope(1)
    part_queries = torch.from_numpy(single.parts[:, 4])
    scales = torch.from_numpy(single.scales)[:, None, None] * DIM**-0.5
    cos, sin = torch.from_numpy(single.rotations)[:, None].chunk(2, dim=-1)
    q = rotate((query[single.tokens] * scales)[part_queries], cos, sin, rope.layout, rope.begin)
    out = []
    for n in range(len(single.tokens)):
        logits, values = [], []
        for part in range(single.ends[n], single.ends[n + 1]):
            row, start, stop, base, number = single.parts[part].tolist()
            assert number == n
            assert 0 < stop - start <= PART_KEYS
            token = torch.arange(start, stop)
            held = cache[batch.block_table[row][token // SIZE].long(), :, token % SIZE]
            table = torch.from_numpy(single.tables[base + start : base + stop])
            cos, sin = table[:, None].chunk(2, dim=-1)
            keys = rotate(held[..., :DIM], cos, sin, rope.layout, rope.begin)
            keys = keys.repeat_interleave(HEADS // GROUPS, 1)
            logits.append(torch.einsum("hd,khd->hk", q[part], keys))
            values.append(held[..., DIM:].repeat_interleave(HEADS // GROUPS, 1))
        weights = torch.cat(logits, dim=1).softmax(-1)
        out.append(torch.einsum("hk,khd->hd", weights, torch.cat(values)))
    return torch.stack(out)


def oracle(query: Tensor, key: Tensor, value: Tensor, encoding: Any, index: int) -> Tensor:
    """Return the attention ``[H, D]`` of the token at an index over all tokens up to it."""
    keys, values = (x[: index + 1].transpose(0, 1)[None] for x in (key, value))
    dense = BACKENDS["dense"]
    out = dense(query[None, :, None], keys, values, encoding, scale=DIM**-0.5, start=index)
    return out[0, :, 0]


@pytest.mark.parametrize("local", [None, LocalWindow(100), LocalWindow(40)], ids=str)
@pytest.mark.parametrize(("name", "settings"), METHODS, ids=str)
def test_parts_are_the_plan(name: str, settings: dict[str, Any], local: LocalWindow | None) -> None:
    """Answers of several requests, with guessed tokens, over shuffled blocks full of NaN."""
    geometry = lampe.Geometry(window=WINDOW, head_dim=DIM)
    encodings = PromptEncodings(lampe.method_of(name, **settings), geometry)
    prompts, starts, counts = (50, 300, 300, 130), (50, 310, 303, 100), (1, 3, 1, 8)
    lengths = [start + count for start, count in zip(starts, counts, strict=True)]
    blocks = -(-max(lengths) // SIZE)
    table = torch.randperm(len(prompts) * blocks).view(len(prompts), blocks).int()
    cache = torch.full((table.numel(), GROUPS, SIZE, 2 * DIM), torch.nan)
    keys, values = torch.randn(2, len(prompts), max(lengths), GROUPS, DIM)
    for row, length in enumerate(lengths):
        token = torch.arange(length)
        both = torch.cat((keys[row, :length], values[row, :length]), dim=-1)
        cache[table[row][token // SIZE].long(), :, token % SIZE] = both
    batch = BatchTokens.of(
        torch.tensor([0, *np.cumsum(counts).tolist()]),
        torch.tensor(lengths),
        torch.tensor(prompts),
        table,
    )
    query = torch.randn(sum(counts), HEADS, DIM)
    step = batch.layer_step(local, encodings, compiled=True)
    assert step.single is not None and not step.whole
    assert step.single.tokens.tolist() == list(range(sum(counts)))
    out = attention_over_parts(query, cache, batch, step.single, encodings)
    for request in batch.requests:
        row = request.row
        (prompt,) = encodings.prompts(local, [request.prompt])
        for offset in range(request.count):
            index, token = request.start + offset, request.begin + offset
            expected = oracle(query[token], keys[row], values[row], prompt.at(index + 1), index)
            torch.testing.assert_close(out[token], expected, rtol=2e-4, atol=2e-5)


def test_prompts_attend_together() -> None:
    geometry = lampe.Geometry(window=WINDOW, head_dim=DIM)
    encodings = PromptEncodings(lampe.method_of("lampe"), geometry)
    batch = BatchTokens.of(
        torch.tensor([0, 100, 100, 101]),
        torch.tensor([100, 0, 71]),
        torch.tensor([200, 0, 70]),
        torch.zeros(3, 8, dtype=torch.int32),
    )
    step = batch.layer_step(None, encodings, compiled=True)
    assert [(request.row, request.start) for request, _ in step.whole] == [(0, 0)]
    assert step.single is not None and step.single.tokens.tolist() == [100]
    alone = batch.layer_step(None, encodings, compiled=True)
    assert alone is step


@pytest.mark.parametrize("compiled", [True, False])
def test_answers_with_plans_of_their_own_are_split(compiled: bool) -> None:
    """Split a request that is computed again, which brings prompt and answer together."""
    geometry = lampe.Geometry(window=WINDOW, head_dim=DIM)
    method = lampe.method_of("lampe", variant="reference", head_tokens=32)
    encodings = PromptEncodings(method, geometry)
    batch = BatchTokens.of(
        torch.tensor([0, 133]),
        torch.tensor([133]),
        torch.tensor([130]),
        torch.zeros(1, 8, dtype=torch.int32),
    )
    step = batch.layer_step(None, encodings, compiled)
    spans = [(request.start, request.count) for request, _ in step.whole]
    assert spans[0] == (0, 130)
    if compiled:
        assert step.single is not None and step.single.tokens.tolist() == [130, 131, 132]
    else:
        assert spans[1:] == [(130, 1), (131, 1), (132, 1)] and step.single is None


def test_tables_survive_a_full_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lampe_vllm.rotary_tables.FIRST_ROWS", 64)
    geometry = lampe.Geometry(window=WINDOW, head_dim=DIM)
    encodings = PromptEncodings(lampe.method_of("pi"), geometry)
    prompts = encodings.prompts(None, [100, 200, 300])
    tables = [prompt.steps(length) for prompt, length in zip(prompts, (100, 200, 300), strict=True)]
    for prompt, steps in zip(prompts, tables, strict=True):
        ((_, stop, table),) = steps.runs[0]
        angle = prompt.encoding.rope.angles(torch.arange(stop).double(), torch.arange(stop))
        rows = encodings.tables.array[table.base : table.base + stop]
        expected = torch.cat((angle.float().cos(), angle.float().sin()), dim=1)
        torch.testing.assert_close(torch.from_numpy(rows), expected)


def test_prompts_are_remembered_for_each_kind_of_layer() -> None:
    """Keep the encodings of a batch, also where layers of two kinds read it by turns."""
    geometry = lampe.Geometry(window=WINDOW, head_dim=DIM)
    encodings = PromptEncodings(lampe.method_of("lampe"), geometry)
    lengths, kinds = range(100, 140), (None, LocalWindow(100))
    before = [encodings.prompts(local, lengths) for local in kinds]
    after = [encodings.prompts(local, lengths) for local in kinds]
    for old, new in zip(before, after, strict=True):
        assert all(a is b for a, b in zip(old, new, strict=True))
