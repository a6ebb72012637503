"""What one prompt and a few tokens of its answer cost: seconds, and bytes beyond the loaded model."""

import ctypes
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

import lampe
from lampe_eval.engine import device_memory

STEPS = 8
"""Tokens of an answer that are timed, after the first, in which keys are turned that a prompt left as they were."""

MMAP_THRESHOLD = -3
"""mallopt(3): from how many bytes on memory is mapped, and so given back when it is freed."""


@dataclass(frozen=True)
class TimeCost:
    """Seconds of a prompt, of the first token after it, and of one later on (the median)."""

    prefill: float
    first: float
    step: float


@dataclass(frozen=True)
class MemoryCost:
    """Bytes beyond the loaded model: the most on the way (NaN where nobody tells), and tensors that an answer holds."""

    peak: float
    held: float


class TimedModel:
    """A way of running a model: plainly, or patched with a method.

    Args:
        method: None for the unpatched model with transformers' own attention and cache.
        chunk: tokens of a prompt that are read at a time; None for all.
    """

    def __init__(
        self, model: PreTrainedModel, method: lampe.Method | None = None, attention: str = lampe.AUTO,
        window: int | None = None, chunk: int | None = None,
    ) -> None:  # fmt: skip
        self.model, self._method, self._attention = model, method, attention
        self._window, self._chunk, self.backend = window, chunk, "sdpa"

    @torch.no_grad()
    def cost(self, length: int) -> TimeCost:
        """Of a random prompt."""
        ids = self._ids(length)
        with self._ready(length) as cache:
            prefill = measure_seconds(lambda: self._read(ids, cache), self.model.device)
            steps = [
                measure_seconds(lambda: self._step(cache), self.model.device)
                for _ in range(1 + STEPS)
            ]
        return TimeCost(prefill, steps[0], statistics.median(steps[1:]))

    @torch.no_grad()
    def room(self, length: int) -> MemoryCost:
        """Of a random prompt."""
        self.cost(STEPS)  # what a process takes once
        ids, device = self._ids(length), self.model.device
        with self._ready(length) as cache, _handing_back():
            device_memory.free_unused()
            tensors, before, peak = (
                device_memory.tensor_bytes(device),
                device_memory.bytes_in_use(device),
                device_memory.PeakMemory(device),
            )
            self._read(ids, cache)
            self._step(cache)
            self._step(cache)
            most = peak.bytes()
            device_memory.free_unused()
            held = device_memory.tensor_bytes(device) - tensors
        return MemoryCost(float("nan") if most is None or before is None else most - before, held)

    @contextmanager
    def _ready(self, length: int) -> Iterator[Cache | None]:
        """The cache for a prompt of a length, in a model that is patched for it."""
        if self._method is None:
            yield DynamicCache(config=self.model.config)
            return
        handle = lampe.patch(
            self.model, self._method, window=self._window, attention=self._attention, check=False
        )
        with handle, handle.prompt(length):
            yield lampe.growing_cache(self.model)
            self.backend = "+".join(handle.backends)

    def _read(self, ids: Tensor, cache: Cache | None) -> None:
        for begin in range(0, ids.shape[1], self._chunk or ids.shape[1]):
            piece = ids[:, begin : begin + (self._chunk or ids.shape[1])]
            self.model(piece, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def _step(self, cache: Cache | None) -> None:
        self.model(self._ids(1), past_key_values=cache, use_cache=True)

    def _ids(self, length: int) -> Tensor:
        return torch.randint(
            0, self.model.config.get_text_config().vocab_size, (1, length), device=self.model.device
        )


def measure_seconds(work: Callable[[], Any], device: torch.device) -> float:
    """What some work takes; on a GPU between two events of the device."""
    if device.type != "cuda":
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
    events[0].record()
    work()
    events[1].record()
    events[1].synchronize()
    return float(events[0].elapsed_time(events[1])) / 1000


@contextmanager
def _handing_back() -> Iterator[None]:
    """Has glibc give freed tensors back at once, so that a process's peak is what was in use; then about as it does."""
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_THRESHOLD, 1 << 16)
        libc.malloc_trim(0)
    try:
        yield
    finally:
        with suppress(AttributeError, OSError):
            libc.mallopt(MMAP_THRESHOLD, 1 << 25)
