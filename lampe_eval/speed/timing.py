"""Time and memory of one prompt and a few tokens of its answer."""

import ctypes
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

import lampe
from lampe_eval import device_memory

DECODE_STEPS = 8
"""Decode steps that are timed after the first.

The first is timed apart from them, because it rotates the keys that the prompt left as they were.
"""

M_MMAP_THRESHOLD = -3
"""Parameter of mallopt(3): allocations of this many bytes and more are mapped.

Mapped memory is returned to the system when it is freed.
"""
LOW_THRESHOLD = 1 << 16
HIGH_THRESHOLD = 1 << 25
"""Bytes; glibc's threshold rises up to this by itself on 64-bit systems, see mallopt(3)."""


@dataclass(frozen=True)
class TimeCost:
    """Seconds of a prompt and of decode steps.

    Attributes:
        prefill: seconds of the prompt.
        first: seconds of the first decode step.
        step: median seconds of the decode steps after it.
    """

    prefill: float
    first: float
    step: float


@dataclass(frozen=True)
class MemoryCost:
    """Bytes beyond the loaded model.

    Attributes:
        peak: most bytes in use at a time; NaN where the system does not report it.
        held: bytes of tensors that remain while an answer is generated, mostly the cache.
    """

    peak: float
    held: float


class TimedModel:
    """Model that is measured, unpatched or patched with a method.

    Args:
        model: the model; it is patched only while it is measured.
        method: the method, or None for transformers' own attention and cache.
        attention: attention backend of the method.
        window: tokens of pretraining, where the model's configuration is wrong.
        chunk: tokens of a prompt that are processed at a time; None for all.

    Attributes:
        backend: backends that answered in the latest measurement, joined by "+".
    """

    def __init__(
        self,
        model: PreTrainedModel,
        method: lampe.Method | None = None,
        attention: str = lampe.AUTO,
        window: int | None = None,
        chunk: int | None = None,
    ) -> None:
        self.model = model
        self._method = method
        self._attention = attention
        self._window = window
        self._chunk = chunk
        self.backend = "sdpa"

    def check(self, length: int) -> None:
        """Check without a measurement that a prompt of ``length`` tokens can be encoded.

        Raises:
            LampeError: if the model, or one of the method's settings, does not allow it.
        """
        with self._patched() as handle, warnings.catch_warnings():
            # a prompt may exceed what a method reaches; only its cost matters here
            warnings.simplefilter("ignore", lampe.PositionWarning)
            handle.encoding(length)

    @torch.no_grad()
    def measure_time(self, length: int) -> TimeCost:
        """Return the time of a random prompt of ``length`` tokens."""
        ids, device = self._random_ids(length), self.model.device
        with self._prepared(length) as cache:
            prefill = measure_seconds(lambda: self._prefill(ids, cache), device)
            first, *steps = [
                measure_seconds(lambda: self._decode(cache), device)
                for _ in range(1 + DECODE_STEPS)
            ]
        return TimeCost(prefill, first, statistics.median(steps))

    @torch.no_grad()
    def measure_memory(self, length: int) -> MemoryCost:
        """Return the memory of a random prompt of ``length`` tokens."""
        self.measure_time(DECODE_STEPS)  # allocates what a process allocates only once
        ids, device = self._random_ids(length), self.model.device
        with self._prepared(length) as cache, _freed_memory_returned():
            device_memory.free_unused()
            tensors_before = device_memory.tensor_bytes(device)
            taken_before = device_memory.bytes_in_use(device)
            peak_memory = device_memory.PeakMemory(device)
            self._prefill(ids, cache)
            # Two steps: the first one rotates the prompt's keys, which the peak has to include.
            self._decode(cache)
            self._decode(cache)
            peak = peak_memory.bytes()
            device_memory.free_unused()
            held = device_memory.tensor_bytes(device) - tensors_before
        if peak is None or taken_before is None:
            return MemoryCost(float("nan"), held)
        return MemoryCost(peak - taken_before, held)

    @contextmanager
    def _prepared(self, length: int) -> Iterator[Cache | None]:
        """Patch the model for a prompt of a length, and give its cache."""
        if self._method is None:
            yield DynamicCache(config=self.model.config)
            return
        # The length is stated, because a chunk of a prompt does not show it.
        with self._patched() as handle, handle.prompt(length):
            yield lampe.growing_cache(self.model)
            self.backend = "+".join(handle.backends)

    def _patched(self) -> lampe.Handle:
        """Patch the model with the method."""
        assert self._method is not None
        return lampe.patch(
            self.model, self._method, window=self._window, attention=self._attention, check=False
        )

    def _prefill(self, ids: Tensor, cache: Cache | None) -> None:
        """Process a prompt of shape (1, length), chunk by chunk."""
        length = ids.shape[1]
        chunk = self._chunk or length
        for start in range(0, length, chunk):
            self.model(
                ids[:, start : start + chunk],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,  # those of the last token are enough to go on from
            )

    def _decode(self, cache: Cache | None) -> None:
        """Process one further token."""
        self.model(self._random_ids(1), past_key_values=cache, use_cache=True)

    def _random_ids(self, length: int) -> Tensor:
        vocabulary = self.model.config.get_text_config().vocab_size
        return torch.randint(0, vocabulary, (1, length), device=self.model.device)


def measure_seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds that a function takes."""
    if device.type != "cuda":
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    # The time between two events of the device: when a function returns, its work on a GPU is only
    # queued.
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


@contextmanager
def _freed_memory_returned() -> Iterator[None]:
    """Let glibc return freed memory to the system at once."""
    # Otherwise it keeps freed memory for later, and the peak of a process is not that of its
    # tensors. Elsewhere than on glibc nothing changes.
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LOW_THRESHOLD)
        libc.malloc_trim(0)
    try:
        yield
    finally:
        with suppress(AttributeError, OSError):
            libc.mallopt(M_MMAP_THRESHOLD, HIGH_THRESHOLD)
