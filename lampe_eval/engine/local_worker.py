"""Worker with a loaded model that runs batches, and a pool of one worker in this process."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from types import TracebackType
from typing import Self

import torch

import lampe
from lampe_eval import models
from lampe_eval.benches.bench import Prompt, Sample
from lampe_eval.device_memory import PeakMemory
from lampe_eval.engine.batch_job import BatchJob, FinishedBatch
from lampe_eval.engine.local_engine import LocalEngine
from lampe_eval.engine.run_samples import run_samples
from lampe_eval.errors import UserError
from lampe_eval.models import ModelSource
from lampe_eval.records import Outcome

PROBE_TOKENS = 1024
"""Tokens of the prompt by which the memory of a token is measured."""
FREE_SHARE = 0.2
"""Share of the free memory that a batch leaves unused."""


class LocalWorker:
    """Loaded model that runs batches one after another, with one method patched in at a time.

    Args:
        source: which model to load.
        device: where to load it; see `lampe_eval.models.load_model`.
        attention: name of an attention backend, or "auto".
    """

    def __init__(self, source: ModelSource, device: str, attention: str) -> None:
        self._source = source
        self._device = device
        self._attention = attention
        self._method: lampe.Method | None = None
        self._patch = ExitStack()

    @cached_property
    def engine(self) -> LocalEngine:
        """Return the loaded model; loaded by the first use."""
        return LocalEngine(*models.load_model(self._source, self._device))

    def load(self) -> None:
        """Load the model if it is not loaded yet.

        Raises:
            UserError: if it cannot be loaded.
        """
        _ = self.engine

    def unpatch(self) -> None:
        """Remove the current method's patch."""
        self._patch.close()
        self._method = None

    def measure_batch_tokens(self) -> int:
        """Return how many tokens a batch may have: the free memory over the memory of a token.

        Returns:
            1 on a CPU, and where the measurement itself fails: every sample will then report why.
        """
        device = self.engine.device
        if device.type != "cuda":
            return 1
        before = torch.cuda.memory_allocated(device)
        peak = PeakMemory(device)
        try:
            self.engine.answer([Prompt("probe", [0] * PROBE_TOKENS, 1, ())])
        except Exception:
            return 1
        # Costs that do not grow with the length are spread over the tokens too, so this errs
        # upwards.
        per_token = ((peak.bytes() or 0) - before) / PROBE_TOKENS
        # What torch has reserved and no tensor uses is free for the batch as well.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + unused
        return int((1 - FREE_SHARE) * free / per_token)

    def run(self, method: lampe.Method, samples: Sequence[Sample]) -> list[Outcome]:
        """Run samples as one batch under a method.

        Raises:
            UserError: if the model cannot be patched with the method.
        """
        with warnings.catch_warnings():
            # Every record says how far its positions reach; a warning for each would hide others.
            warnings.simplefilter("ignore", lampe.PositionWarning)
            # Methods compare by their settings, so cells of one method share a patch.
            if method != self._method:
                self._patch_in(method)
            return run_samples(self.engine, samples)

    def _patch_in(self, method: lampe.Method) -> None:
        """Replace the current method's patch by another one's."""
        self.unpatch()
        patched = self.engine.patched(method, self._source.geometry.window, self._attention)
        try:
            self._patch.enter_context(patched)
        except lampe.LampeError as error:
            raise UserError(
                f"model {self._source.name!r} under {method.label!r}: {error}"
            ) from None
        self._method = method


class LocalPool:
    """Pool of one worker in this process; `submit` runs the batch before it returns."""

    def __init__(self, worker: LocalWorker) -> None:
        self._worker = worker
        self._finished: list[FinishedBatch] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._worker.unpatch()

    @property
    def is_full(self) -> bool:
        """Return whether a batch has not been collected yet: it is stored before the next runs."""
        return bool(self._finished)

    @property
    def is_busy(self) -> bool:
        """Return whether a batch has not been collected yet."""
        return bool(self._finished)

    def start(self) -> None:
        """Load the model."""
        self._worker.load()

    def measure_batch_tokens(self) -> int:
        """Return how many tokens a batch may have in the free memory."""
        return self._worker.measure_batch_tokens()

    def submit(self, job: BatchJob) -> None:
        """Run a batch."""
        self._finished.append(FinishedBatch(job, self._worker.run(job.method, job.samples)))

    def collect(self) -> list[FinishedBatch]:
        """Return the batch that was run last, once."""
        finished = self._finished
        self._finished = []
        return finished
