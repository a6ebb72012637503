"""Partial attention of each kernel for each shape of a key range, and the merge of parts."""

import pytest
import torch
from torch import Tensor

from lampe.attention import cpu_flash, eager, triton_merge
from lampe.attention.logit_options import PLAIN_LOGITS
from lampe.attention.partial_attention import PartialAttention, merge_partials, sink_attention

SCALE = 0.25
SIZES = [
    (1, 1),
    (1, 70),
    (5, 5),
    (5, 37),
    (63, 64),
    (70, 80),
    (333, 365),
    (130, 130 + cpu_flash.NARROW_BAND_KEYS),
    (130, 390 + cpu_flash.NARROW_BAND_KEYS),
    (5, 1000),
]


def _inputs(queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of two rows with two groups of three query heads."""
    return (
        torch.randn(2, 2, 3, queries, 16),
        torch.randn(2, 2, keys, 16),
        torch.randn(2, 2, keys, 16),
    )


def _owned(queries: int, keys: int, left_diagonal: bool, right_diagonal: bool) -> Tensor:
    """Return the definition of a key range's edges, ``[queries, keys]`` bool."""
    x, y = torch.arange(queries)[:, None], torch.arange(keys)
    return ((y >= x) | (not left_diagonal)) & ((y <= x + keys - queries) | (not right_diagonal))


@pytest.mark.parametrize("kernel", ["cpu_flash", "eager"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_a_query_attends_to_the_keys_that_it_owns(
    kernel: str, sizes: tuple[int, int], left: bool, right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager, "BLOCK_QUERIES", 31)
    monkeypatch.setattr(eager, "BLOCK_KEYS", 29)
    q, k, v = _inputs(*sizes)
    logits = (SCALE * q @ k.transpose(-1, -2)[:, :, None]).masked_fill(
        ~_owned(*sizes, left, right), -torch.inf
    )
    edges = {"left_diagonal": left, "right_diagonal": right}
    if kernel == "cpu_flash":
        parts = cpu_flash.partials(q, k, v, **edges, scale=SCALE)
    else:
        parts = eager.partials(q, k, v, **edges, scale=SCALE, logits=PLAIN_LOGITS)
    torch.testing.assert_close(
        merge_partials(parts), logits.softmax(-1) @ v[:, :, None], atol=1e-5, rtol=1e-5
    )
    lse = torch.stack([part.lse for part in parts]).logsumexp(0)
    torch.testing.assert_close(lse, logits.logsumexp(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_triton_merge_equals_the_torch_merge(
    count: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cover several blocks of queries, 24 dimensions per head, and queries that own no key."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    parts = []
    for index in range(count):
        out = torch.randn(2, 70, 6, 24).to(dtype).transpose(1, 2).unflatten(1, (2, 3))
        lse = 20 * torch.randn(2, 2, 3, 70)
        lse[..., :: index + 2] = -torch.inf
        parts.append(PartialAttention(out, lse))
    merged, expected = triton_merge.merge_partials(parts), merge_partials(parts)
    owns_some = torch.stack([part.lse for part in parts]).amax(0) > -torch.inf
    assert merged.dtype == dtype
    assert torch.isfinite(merged).all()
    torch.testing.assert_close(
        merged[owns_some],
        expected[owns_some],
        atol=1e-6 if dtype == torch.float32 else 1e-2,
        rtol=1e-2 if dtype == torch.bfloat16 else 1e-5,
    )


@pytest.mark.parametrize("split", [1, 13, 63])
def test_two_parts_merged_equal_attention_over_both(split: int) -> None:
    q, k, v = _inputs(5, 64)
    options = {"left_diagonal": False, "right_diagonal": False, "scale": SCALE}
    parts = [
        cpu_flash.partials(q, k[:, :, start:stop], v[:, :, start:stop], **options)[0]
        for start, stop in ((0, split), (split, 64))
    ]
    (whole,) = cpu_flash.partials(q, k, v, **options)
    torch.testing.assert_close(merge_partials(parts), whole.out)


def test_merging_is_safe_where_logits_are_huge_or_absent() -> None:
    out = torch.ones(1, 1, 3, 4)
    near = PartialAttention(out, torch.tensor([[[900.0, 0.0, -torch.inf]]]))
    far = PartialAttention(2 * out, torch.tensor([[[-900.0, -torch.inf, -torch.inf]]]))
    for parts in ([near, far], [far, near]):
        merged = merge_partials(parts)
        torch.testing.assert_close(merged[:, :, :2], out[:, :, :2])
        assert torch.isfinite(merged).all()


def test_a_sink_takes_its_share_of_the_softmax() -> None:
    q, k, v = _inputs(2, 7)
    sinks = torch.linspace(-1, 2, 6)
    logits = SCALE * q @ k.transpose(-1, -2)[:, :, None]
    sink_logits = sinks.view(2, 3, 1, 1).expand(2, 2, 3, 2, 1)
    weights = torch.cat((logits, sink_logits), dim=-1).softmax(-1)
    parts = eager.partials(
        q, k, v, left_diagonal=False, right_diagonal=False, scale=SCALE, logits=PLAIN_LOGITS
    )
    torch.testing.assert_close(
        merge_partials([sink_attention(q, 16, sinks), *parts]), weights[..., :7] @ v[:, :, None]
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_causal_square_in_parts_has_the_data_types_of_one_call(dtype: torch.dtype) -> None:
    """Compare a square of several parts with the kernel's own causal mask."""
    queries = 2 * cpu_flash.CAUSAL_QUERIES + 7
    q = torch.randn(1, 2, 3, queries, 16).to(dtype)
    k, v = torch.randn(2, 1, 2, queries, 16).to(dtype)
    whole = cpu_flash._flash(q, k, v, 0.25, causal=True)
    (parts,) = cpu_flash.partials(q, k, v, left_diagonal=False, right_diagonal=True, scale=0.25)
    assert (parts.out.dtype, parts.lse.dtype) == (whole.out.dtype, whole.lse.dtype)
    atol = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(parts, whole, atol=atol, rtol=0)
