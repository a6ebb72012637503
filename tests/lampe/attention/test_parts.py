"""Parts of attention: what each kernel makes of a run with moving edges, and how parts are merged."""

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
    (130, 130 + cpu_flash.NARROW),
]


def _inputs(queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two rows, two key heads of three query heads each."""
    return (
        torch.randn(2, 2, 3, queries, 16),
        torch.randn(2, 2, keys, 16),
        torch.randn(2, 2, keys, 16),
    )


def _owned(queries: int, keys: int, left: bool, right: bool) -> Tensor:
    x, y = torch.arange(queries)[:, None], torch.arange(keys)
    return ((y >= x) | (not left)) & ((y <= x + keys - queries) | (not right))


@pytest.mark.parametrize("kernel", ["cpu", "definition"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_a_kernel_attends_to_what_a_query_owns(
    kernel: str, sizes: tuple[int, int], left: bool, right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager, "QUERIES", 31)
    monkeypatch.setattr(eager, "KEYS", 29)
    q, k, v = _inputs(*sizes)
    logits = (SCALE * q @ k.transpose(-1, -2)[:, :, None]).masked_fill(
        ~_owned(*sizes, left, right), -torch.inf
    )
    if kernel == "cpu":
        parts = cpu_flash.partials(q, k, v, left=left, right=right, scale=SCALE)
    else:
        parts = eager.partials(q, k, v, left=left, right=right, scale=SCALE, logits=PLAIN_LOGITS)
    torch.testing.assert_close(
        merge_partials(parts), logits.softmax(-1) @ v[:, :, None], atol=1e-5, rtol=1e-5
    )
    lse = torch.stack([part.lse for part in parts]).logsumexp(0)
    torch.testing.assert_close(lse, logits.logsumexp(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_kernel_merges_as_torch_does(
    count: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More queries than a tile holds, heads of no power of two, parts that some queries have nothing of."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    parts = []
    for index in range(count):
        out = torch.randn(2, 70, 6, 24).to(dtype).transpose(1, 2).unflatten(1, (2, 3))
        lse = 20 * torch.randn(2, 2, 3, 70)
        lse[..., :: index + 2] = -torch.inf
        parts.append(PartialAttention(out, lse))
    merged, expected = triton_merge.merge_partials(parts), merge_partials(parts)
    has_some = torch.stack([part.lse for part in parts]).amax(0) > -torch.inf
    assert merged.dtype == dtype and torch.isfinite(merged).all()
    torch.testing.assert_close(
        merged[has_some],
        expected[has_some],
        atol=1e-6 if dtype == torch.float32 else 1e-2,
        rtol=1e-2 if dtype == torch.bfloat16 else 1e-5,
    )


@pytest.mark.parametrize("split", [1, 13, 63])
def test_two_parts_merged_equal_attention_over_both(split: int) -> None:
    q, k, v = _inputs(5, 64)
    edges = {"left": False, "right": False, "scale": SCALE}
    parts = [
        cpu_flash.partials(q, k[:, :, a:b], v[:, :, a:b], **edges)[0]
        for a, b in ((0, split), (split, 64))
    ]
    torch.testing.assert_close(merge_partials(parts), cpu_flash.partials(q, k, v, **edges)[0].out)


def test_merging_is_safe_where_logits_are_huge_or_absent() -> None:
    out = torch.ones(1, 1, 3, 4)
    near = PartialAttention(out, torch.tensor([[[900.0, 0.0, -torch.inf]]]))
    far = PartialAttention(2 * out, torch.tensor([[[-900.0, -torch.inf, -torch.inf]]]))
    for parts in ([near, far], [far, near]):
        merged = merge_partials(parts)
        torch.testing.assert_close(merged[:, :, :2], out[:, :, :2])
        assert torch.isfinite(merged).all()


def test_a_sink_takes_its_share() -> None:
    q, k, v = _inputs(2, 7)
    sinks = torch.linspace(-1, 2, 6)
    logits = SCALE * q @ k.transpose(-1, -2)[:, :, None]
    weights = torch.cat((logits, sinks.view(2, 3, 1, 1).expand(2, 2, 3, 2, 1)), dim=-1).softmax(-1)
    part = eager.partials(q, k, v, left=False, right=False, scale=SCALE, logits=PLAIN_LOGITS)
    torch.testing.assert_close(
        merge_partials([sink_attention(q, 16, sinks), *part]), weights[..., :7] @ v[:, :, None]
    )
