"""Compiled attention of single queries, against its definition over shuffled blocks full of NaN."""

from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is not installed in this Python: make test-vllm")

import torch

from lampe.attention.rotation import rotate
from lampe.rope import Layout
from lampe_vllm.batch_tokens import PART_KEYS
from lampe_vllm.paged_decode import compile_attention

GROUPS, HEADS, DIM, SIZE, BLOCKS = 2, 3, 24, 16, 40


@dataclass(frozen=True)
class Shape:
    """Numbers of a model that the code is compiled for."""

    pairs: int = 12
    begin: int = 0
    layout: Layout = "half"
    softcap: float = 0.0
    dtype: torch.dtype = torch.float32
    sinks: bool = False


@pytest.mark.parametrize(
    "shape",
    [
        Shape(),
        Shape(layout="interleaved", sinks=True),
        Shape(pairs=4, begin=16, softcap=2.0),
        Shape(pairs=6, layout="interleaved", dtype=torch.bfloat16),
    ],
    ids=str,
)
def test_attention_of_single_queries(shape: Shape) -> None:
    runs = [(0, 0, 1), (0, 1, 200), (0, 200, 203), (1, 5, 5 + PART_KEYS), (2, 30, 31)]
    ends = np.array([0, 3, 4, 5])
    table = torch.randperm(3 * BLOCKS).view(3, BLOCKS).int()
    cache = torch.full((3 * BLOCKS, GROUPS, 2, SIZE, DIM), torch.nan, dtype=shape.dtype)
    angle = torch.randn(600, shape.pairs)
    tables = torch.cat((angle.cos(), angle.sin()), dim=1)
    query = torch.randn(3, GROUPS * HEADS, DIM).to(shape.dtype)
    scales = torch.rand(3) + 0.5
    angle = torch.randn(len(runs), shape.pairs)
    rotations = torch.cat((angle.cos(), angle.sin()), dim=1)
    sinks = torch.randn(GROUPS * HEADS if shape.sinks else 0)
    keys, values = torch.randn(2, 3, BLOCKS * SIZE, GROUPS, DIM).to(shape.dtype)
    for row, start, stop in runs:
        token = torch.arange(start, stop)
        held = torch.stack((keys[row, token], values[row, token]), dim=2)
        cache[table[row][token // SIZE].long(), :, :, token % SIZE] = held
    base = 37
    queries = np.repeat(range(3), np.diff(ends))
    parts = np.array(
        [[*run, base - run[1], number] for run, number in zip(runs, queries, strict=True)]
    )
    attend = compile_attention(
        DIM, HEADS, shape.pairs, shape.begin, shape.layout == "interleaved", shape.softcap,
        shape.dtype == torch.bfloat16,
    )  # fmt: skip
    bits = torch.int16 if shape.dtype == torch.bfloat16 else torch.float32
    out = torch.empty(3, GROUPS * HEADS, DIM)
    attend(
        query.view(bits).numpy(), scales.numpy(), parts, rotations.numpy(), ends,
        cache.view(bits).numpy(), table.numpy(), tables.numpy(), sinks.numpy(), out.numpy(),
    )  # fmt: skip
    for n in range(3):
        logits, held_values = [], []
        for part in range(ends[n], ends[n + 1]):
            row, start, stop = runs[part]
            cos, sin = tables[base : base + stop - start, None].chunk(2, dim=-1)
            key = rotate(keys[row, start:stop].float(), cos, sin, shape.layout, shape.begin)
            cos, sin = rotations[part].chunk(2)
            q = rotate(query[n].float()[:, None], cos, sin, shape.layout, shape.begin) * scales[n]
            logit = torch.einsum("grd,kgd->grk", q.view(GROUPS, HEADS, DIM), key)
            logits.append(
                shape.softcap * (logit / shape.softcap).tanh() if shape.softcap else logit
            )
            held_values.append(values[row, start:stop].float())
        joined = torch.cat(logits, dim=-1)
        if shape.sinks:
            joined = torch.cat((joined, sinks.view(GROUPS, HEADS, 1)), dim=-1)
        weights = joined.softmax(-1)
        value = torch.cat(held_values)
        expected = torch.einsum("grk,kgd->grd", weights[..., : len(value)], value)
        torch.testing.assert_close(out[n], expected.flatten(0, 1), rtol=1e-4, atol=1e-5)
