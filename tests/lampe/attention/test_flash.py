"""Calls of each version of flash-attn, by stand-ins with the signatures of its releases.

None is installed here. A stand-in computes what its version documents.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from lampe.attention import flash

SCALE = 0.25


def _windowed_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, left: int, right: int
) -> tuple[Tensor, Tensor]:
    """Return output and log-sum-exp of ``q[B, Q, H, D]`` over as many key heads.

    A window is aligned to the last query and the last key; -1 leaves its side open.
    """
    logits = SCALE * torch.einsum("bqhd,bkhd->bhqk", q, k)
    own_key = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
    key = torch.arange(k.shape[1])
    hidden = (
        ((key > own_key) & causal)
        | ((key < own_key - left) & (left >= 0))
        | ((key > own_key + right) & (right >= 0))
    )
    logits = logits.masked_fill(hidden, -torch.inf)
    return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v), logits.logsumexp(-1)


def _early_version_3(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    softmax_scale: float,
    causal: bool,
    window_size: tuple[int, int],
) -> Any:
    """Return the log-sum-exp always; it has no option for it."""
    assert softmax_scale == SCALE
    return _windowed_attention(q, k, v, causal, *window_size)


def _version_2(
    q: Tensor, k: Tensor, v: Tensor, softmax_scale: float, causal: bool,
    window_size: tuple[int, int], return_attn_probs: bool = False,
) -> Any:  # fmt: skip
    out, lse = _early_version_3(q, k, v, softmax_scale, causal, window_size)
    return (out, lse, None) if return_attn_probs else out


def _version_4(
    q: Tensor, k: Tensor, v: Tensor, softmax_scale: float, causal: bool,
    window_size: tuple[int | None, int | None], return_lse: bool = False,
) -> Any:  # fmt: skip
    assert -1 not in window_size
    left, right = (-1 if side is None else side for side in window_size)
    out, lse = _early_version_3(q, k, v, softmax_scale, causal, (left, right))
    return out, lse if return_lse else None


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    """Return a function that installs a stand-in as a module; no version is there before."""
    for name in ("flash_attn_interface", "flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, None)
    flash.flash_kernel.cache_clear()
    monkeypatch.setattr(flash, "flash_kernel", flash.flash_kernel.__wrapped__)

    def install_module(name: str, function: Any) -> None:
        package, _, submodule = name.partition(".")
        if submodule:
            monkeypatch.setitem(sys.modules, package, ModuleType(package))
        module = ModuleType(name)
        module.__dict__["flash_attn_func"] = function
        monkeypatch.setitem(sys.modules, name, module)

    return install_module


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("flash_attn_interface", _early_version_3),
        ("flash_attn_interface", _version_2),
        ("flash_attn", _version_2),
        ("flash_attn.cute", _version_4),
    ],
)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window_left", [-1, 3])
def test_each_version_is_called_with_its_own_options(
    module: str,
    function: Any,
    causal: bool,
    window_left: int,
    install: Callable[[str, Any], None],
) -> None:
    install(module, function)
    q, k, v = torch.randn(1, 5, 2, 64), torch.randn(1, 9, 2, 64), torch.randn(1, 9, 2, 64)
    out, lse = flash.flash_kernel(64)(q, k, v, SCALE, causal, window_left)
    expected = _windowed_attention(q, k, v, causal, window_left, -1)
    torch.testing.assert_close((out, lse), expected)


def test_head_dimensions_that_version_4_lacks_go_to_torch(
    install: Callable[[str, Any], None],
) -> None:
    install("flash_attn.cute", _version_4)
    assert flash.flash_kernel(128) is not flash._torch_kernel
    assert flash.flash_kernel(256) is flash._torch_kernel


def test_torch_attends_where_no_version_is_installed(install: Callable[[str, Any], None]) -> None:
    assert flash.flash_kernel(64) is flash._torch_kernel
