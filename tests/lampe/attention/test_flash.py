"""Versions of flash-attn by what each is asked; none is installed here, so stand-ins do what theirs say they do."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from lampe.attention import flash

SCALE = 0.25


def _attended(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, left: int, right: int
) -> tuple[Tensor, Tensor]:
    """``q[B, Q, H, D]`` over as many key heads; edges counted from the last query and key, -1 for none."""
    logits = SCALE * torch.einsum("bqhd,bkhd->bhqk", q, k)
    own, key = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1], torch.arange(k.shape[1])
    hidden = (
        ((key > own) & causal)
        | ((key < own - left) & (left >= 0))
        | ((key > own + right) & (right >= 0))
    )
    logits = logits.masked_fill(hidden, -torch.inf)
    return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v), logits.logsumexp(-1)


def _third(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    softmax_scale: float,
    causal: bool,
    window_size: tuple[int, int],
) -> Any:
    """An early version 3, which tells the log-sum-exp without being asked."""
    assert softmax_scale == SCALE
    return _attended(q, k, v, causal, *window_size)


def _second(
    q: Tensor, k: Tensor, v: Tensor, softmax_scale: float, causal: bool, window_size: tuple[int, int],
    return_attn_probs: bool = False,
) -> Any:  # fmt: skip
    out, lse = _third(q, k, v, softmax_scale, causal, window_size)
    return (out, lse, None) if return_attn_probs else out


def _fourth(
    q: Tensor, k: Tensor, v: Tensor, softmax_scale: float, causal: bool, window_size: tuple[int | None, int | None],
    return_lse: bool = False,
) -> Any:  # fmt: skip
    assert -1 not in window_size
    left, right = (-1 if side is None else side for side in window_size)
    out, lse = _third(q, k, v, softmax_scale, causal, (left, right))
    return out, lse if return_lse else None


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    for name in ("flash_attn_interface", "flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, None)
    flash.kernel.cache_clear()
    monkeypatch.setattr(flash, "kernel", flash.kernel.__wrapped__)

    def put(name: str, function: Any) -> None:
        if "." in name:
            monkeypatch.setitem(
                sys.modules, name.partition(".")[0], ModuleType(name.partition(".")[0])
            )
        module = ModuleType(name)
        module.__dict__["flash_attn_func"] = function
        monkeypatch.setitem(sys.modules, name, module)

    return put


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("flash_attn_interface", _third),
        ("flash_attn_interface", _second),
        ("flash_attn", _second),
        ("flash_attn.cute", _fourth),
    ],
)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("seen", [-1, 3])
def test_each_version_is_asked_in_its_own_words(
    module: str, function: Any, causal: bool, seen: int, install: Callable[[str, Any], None]
) -> None:
    install(module, function)
    q, k, v = torch.randn(1, 5, 2, 64), torch.randn(1, 9, 2, 64), torch.randn(1, 9, 2, 64)
    out, lse = flash.kernel(64)(q, k, v, SCALE, causal, seen)
    expected = _attended(q, k, v, causal, seen, -1)
    torch.testing.assert_close((out, lse), expected)


def test_version_4_takes_some_heads_and_leaves_the_others_to_torch(
    install: Callable[[str, Any], None],
) -> None:
    install("flash_attn.cute", _fourth)
    assert flash.kernel(128) is not flash._of_torch
    assert flash.kernel(256) is flash._of_torch


def test_without_any_torch_attends(install: Callable[[str, Any], None]) -> None:
    assert flash.kernel(64) is flash._of_torch
