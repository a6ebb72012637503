"""Fixtures of the plug-in's tests."""

from collections.abc import Iterator

import pytest
import torch

from lampe_vllm.gpu import decode
from tests.lampe_vllm.paged_batches import DEVICE


@pytest.fixture
def interpreted_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interpret kernels where there is no GPU, in small splits; fill new memory with NaN."""
    pytest.importorskip("triton")
    monkeypatch.setattr(decode, "SPLIT_KEYS", 32)
    if DEVICE.type == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(was_deterministic)
