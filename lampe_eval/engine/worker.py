"""A loaded model that does jobs, one method patched in at a time."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from types import TracebackType
from typing import Self

import torch

import lampe
from lampe_eval import models
from lampe_eval.benches.bench import Prompt, Sample
from lampe_eval.engine.attempt import attempt
from lampe_eval.engine.job import Job, Outcome
from lampe_eval.engine.local import LocalEngine
from lampe_eval.engine.memory import PeakMemory
from lampe_eval.errors import UserError
from lampe_eval.models import ModelSource

PROBED = 1024
"""Tokens of the prompt that tells what a token takes."""
KEPT_FREE = 0.2
"""Share of free memory that a batch leaves alone."""


class Worker:
    """A model that does jobs one after another; the ``Workers`` of a single process."""

    def __init__(self, source: ModelSource, device: str, attention: str) -> None:
        self._source, self._device, self._attention = source, device, attention
        self._method: lampe.Method | None = None
        self._patched = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patched.close()

    @cached_property
    def engine(self) -> LocalEngine:
        """The loaded model."""
        return LocalEngine(*models.load_model(self._source, self._device))

    def start(self) -> None:
        """As ``Workers`` has it."""
        _ = self.engine

    def room(self) -> int:
        """As ``Workers`` has it: free memory over what each token of a prompt took."""
        device = self.engine.device
        if device.type != "cuda":
            return 1
        before, peak = torch.cuda.memory_allocated(device), PeakMemory(device)
        try:
            self.engine.answer([Prompt("room", [0] * PROBED, 1, ())])
        except Exception:
            return 1  # what is wrong, each sample will tell
        taken = ((peak.bytes() or 0) - before) / PROBED
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int((1 - KEPT_FREE) * (torch.cuda.mem_get_info(device)[0] + cached) / taken)

    def do(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, list[Outcome]]]:
        """As ``Workers`` has it."""
        for job in jobs:
            yield job, self.outcomes(job.method, job.samples)

    def outcomes(self, method: lampe.Method, samples: Sequence[Sample]) -> list[Outcome]:
        """What came of samples under a method.

        Raises:
            UserError: where the model cannot be patched with it.
        """
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", lampe.PositionWarning
            )  # every row says how far its positions reach
            if method != self._method:
                self._change(method)
            return attempt(self.engine, samples)

    def _change(self, method: lampe.Method) -> None:
        """Takes the method of before off and patches another one in."""
        self._patched.close()
        self._method = None
        try:
            self._patched.enter_context(
                self.engine.under(method, self._source.geometry.window, self._attention)
            )
        except lampe.LampeError as error:
            raise UserError(
                f"model {self._source.name!r} under {method.label!r}: {error}"
            ) from None
        self._method = method
