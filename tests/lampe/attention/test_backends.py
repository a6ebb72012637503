"""The oracle against torch's own attention, and guarantees that only blockwise attention gives."""

import dataclasses
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import lampe
from lampe.attention import BACKENDS, AttentionInputs, LogitOptions, cpu_flash
from lampe.attention.rotation import cos_sin, cos_sin_between, rotate
from lampe.methods import METHODS, method_of
from tests.lampe.attention.error_bound import error_bound

SCALE = 0.25
blockwise, dense = BACKENDS["blockwise"], BACKENDS["dense"]


def _inputs(
    queries: int, keys: int, dtype: torch.dtype, dim: int = 16
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of two rows, with six query heads over two key heads."""
    shapes = ((2, 6, queries, dim), (2, 2, keys, dim), (2, 2, keys, dim))
    q, k, v = (torch.randn(shape).to(dtype) for shape in shapes)
    return q, k, v


@pytest.mark.matrix
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("dtype", "start", "length"),
    [
        (torch.float32, 0, 1),
        (torch.float32, 0, 63),
        (torch.float32, 0, 333),
        (torch.float32, 332, 333),
        (torch.bfloat16, 200, 333),
        (torch.float16, 0, 261),
    ],
)
def test_blockwise_equals_the_oracle(
    name: str, dtype: torch.dtype, start: int, length: int
) -> None:
    encoding = method_of(name).encode(lampe.Geometry(window=64, head_dim=16), length)
    q, k, v = _inputs(length - start, length, dtype)
    oracle = dense(q.double(), k.double(), v.double(), encoding, scale=SCALE, start=start)
    ours = blockwise(q, k, v, encoding, scale=SCALE, start=start)
    assert ours.dtype == dtype
    assert float((ours.double() - oracle).abs().max()) <= error_bound(
        AttentionInputs(q, k, v, encoding, SCALE, start=start)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["lampe", "dca", "rerope"])
def test_eager_attention_is_as_exact_as_a_kernel(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use large logits, which half precision would round or overflow."""
    monkeypatch.setattr(cpu_flash, "supports", lambda query, value: False)
    encoding = method_of(name).encode(lampe.Geometry(window=64, head_dim=16), 261)
    q, k, v = (2 * x for x in _inputs(261, 261, dtype))
    oracle = dense(q.double(), k.double(), v.double(), encoding, scale=SCALE)
    ours = blockwise(q, k, v, encoding, scale=SCALE)
    assert float((ours.double() - oracle).abs().max()) <= error_bound(
        AttentionInputs(q, k, v, encoding, SCALE, start=0)
    )


def test_blockwise_attention_over_a_plan_of_many_regions() -> None:
    encoding = method_of("lampe", variant="paper").encode(
        lampe.Geometry(window=64, head_dim=16), 150
    )
    assert len(encoding.plan.regions) > 10
    q, k, v = _inputs(150, 150, torch.float32)
    ours = blockwise(q, k, v, encoding, scale=SCALE)
    torch.testing.assert_close(ours, dense(q, k, v, encoding, scale=SCALE), atol=1e-4, rtol=0)


def test_gradients_are_those_of_the_oracle() -> None:
    encoding = method_of("lampe").encode(lampe.Geometry(window=64, head_dim=16), 150)
    gradients = []
    for backend in (dense, blockwise):
        torch.manual_seed(1)
        q, k, v = (x.requires_grad_() for x in _inputs(150, 150, torch.float32))
        backend(q, k, v, encoding, scale=SCALE).square().sum().backward()
        gradients.append(q.grad)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_partial_rotation_and_both_layouts(layout: str) -> None:
    geometry = lampe.Geometry(
        window=64,
        head_dim=24,
        rotary_dim=16,
        layout=layout,  # type: ignore[arg-type]
    )
    encoding = method_of("lampe+yarn").encode(geometry, 333)
    q, k, v = _inputs(333, 333, torch.float64, dim=24)
    ours = blockwise(q, k, v, encoding, scale=SCALE)
    torch.testing.assert_close(ours, dense(q, k, v, encoding, scale=SCALE), atol=1e-5, rtol=0)


def test_layouts_are_the_same_up_to_the_order_of_dimensions() -> None:
    q, k, v = _inputs(50, 50, torch.float64)
    order = torch.arange(16).view(2, 8).T.flatten()
    original = method_of("original")
    half = original.encode(lampe.Geometry(window=64, head_dim=16, layout="half"), 50)
    interleaved = original.encode(lampe.Geometry(window=64, head_dim=16, layout="interleaved"), 50)
    ours = dense(q[..., order], k[..., order], v, interleaved, scale=SCALE)
    torch.testing.assert_close(ours, dense(q, k, v, half, scale=SCALE))


def test_the_oracle_without_rotation_is_plain_attention() -> None:
    unrotated = lampe.Encoding(lampe.Rope(inv_freq=(0.0,) * 8))
    q, k, v = _inputs(70, 70, torch.float64)
    plain = scaled_dot_product_attention(
        q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1), is_causal=True, scale=SCALE
    )
    torch.testing.assert_close(dense(q, k, v, unrotated, scale=SCALE), plain)


def test_a_pair_in_two_regions_counts_twice() -> None:
    q, k, v = _inputs(1, 2, torch.float64)
    overlapping = lampe.PositionPlan((lampe.Region(0, None), lampe.Region(0, 1)))
    encoding = lampe.Encoding(lampe.Rope(inv_freq=(0.0,) * 8), overlapping)
    logits = torch.einsum("bhd,bhkd->bhk", q[:, :, 0], k.repeat_interleave(3, 1)) * SCALE
    weights = (logits + torch.tensor([0.0, 2.0]).log().nan_to_num(neginf=0)).softmax(-1)
    expected = torch.einsum("bhk,bhkd->bhd", weights, v.repeat_interleave(3, 1))[:, :, None]
    for backend in (dense, blockwise):
        ours = backend(q, k, v, encoding, scale=SCALE, start=1)
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)


def test_memory_grows_with_the_length_not_its_square() -> None:
    """Compare the largest tensors that blockwise attention makes at two lengths."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class LargestTensor(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, Tensor):
                    self.numel = max(self.numel, tensor.numel())
            return out

    sizes = []
    for length in (2048, 8192):
        q, k, v = _inputs(length, length, torch.float32)
        encoding = method_of("lampe").encode(lampe.Geometry(window=1024, head_dim=16), length)
        with LargestTensor() as largest:
            blockwise(q, k, v, encoding, scale=SCALE)
        sizes.append(largest.numel)
    assert sizes[1] <= 4 * sizes[0]
    assert sizes[1] < 8192**2 / 4


@pytest.mark.parametrize(
    "local", [lampe.positions.LocalWindow(7), lampe.positions.LocalWindow(7, chunked=True)]
)
def test_the_oracle_of_a_local_layer_with_sinks_and_a_soft_cap_equals_its_definition(
    local: lampe.positions.LocalWindow,
) -> None:
    q, k, v = _inputs(30, 30, torch.float64)
    k, v = (x.repeat_interleave(3, 1) for x in (k, v))
    unrotated = lampe.Encoding(lampe.Rope(()), lampe.IDENTITY_PLAN.within(local))
    i, j = torch.arange(30)[:, None], torch.arange(30)
    visible = (j <= i) & ((i // 7 == j // 7) if local.chunked else (i - j < 7))
    sinks = torch.randn(6)
    logits = (
        (2 * (SCALE * q @ k.transpose(-1, -2) / 2).tanh()).masked_fill(~visible, -torch.inf).exp()
    )
    expected = logits @ v / (logits.sum(-1, keepdim=True) + sinks.double().exp()[:, None, None])
    ours = dense(q, k, v, unrotated, scale=SCALE, logits=LogitOptions(softcap=2.0, sinks=sinks))
    torch.testing.assert_close(ours, expected)


def test_a_key_between_whole_positions_is_a_mean_of_two_rotations_and_can_be_moved() -> None:
    encoding = lampe.Encoding(lampe.Geometry(window=64, head_dim=16).rope(1))
    third = lampe.PositionMap(scale=Fraction(1, 3), interpolated=True)
    below = dataclasses.replace(third, floor=True, interpolated=False)
    above = dataclasses.replace(below, shift=2)
    index, keys = torch.arange(40), torch.randn(40, 16)

    def rotated(positions: lampe.PositionMap) -> Tensor:
        return rotate(keys, *cos_sin(positions, encoding, index), "half")

    share = (index % 3)[:, None] / 3
    expected = (1 - share) * rotated(below) + share * rotated(above)
    torch.testing.assert_close(rotated(third), expected)
    for other in (None, lampe.PositionMap(), dataclasses.replace(third, scale=Fraction(1, 5))):
        target = keys if other is None else rotated(other)
        there = cos_sin_between(third, other, encoding, index)
        torch.testing.assert_close(rotate(rotated(third), *there, "half"), target)
        back = cos_sin_between(other, third, encoding, index)
        torch.testing.assert_close(rotate(target, *back, "half"), rotated(third))
