"""Worker whose engine is vLLM."""

from functools import cached_property
from typing import TYPE_CHECKING

from lampe_eval import models
from lampe_eval.engine.local_engine import stop_tokens
from lampe_eval.engine.local_worker import LocalWorker
from lampe_eval.models import ModelSource

if TYPE_CHECKING:
    from lampe_eval.engine.vllm_engine import VllmEngine

BATCH_PROMPTS = 64
"""Prompts of full length in a batch: what an interrupted run computes again at most."""
FURTHER_TOKENS = 1024
"""Tokens beyond a cell's length: second questions, and the token after a passage."""


class VllmWorker(LocalWorker):
    """Model loaded by vLLM that runs batches one after another.

    Args:
        source: which model to load.
        length: tokens of the longest sample.
        gpus: GPUs that the model is spread over.
    """

    def __init__(self, source: ModelSource, length: int, gpus: int) -> None:
        # vLLM has one device, and one attention backend on it.
        super().__init__(source, "auto", "auto")
        self._gpus = gpus
        self._max_length = length + FURTHER_TOKENS

    @cached_property
    def engine(self) -> "VllmEngine":  # type: ignore[override]
        """Return the loaded model; loaded by the first use."""
        # Imported here, because vLLM is an optional dependency, and takes seconds.
        from lampe_eval.engine.vllm_engine import VllmEngine

        tokenizer = models.load_tokenizer(self._source)
        stops = stop_tokens(models.load_generation_config(self._source), tokenizer)
        return VllmEngine(self._source, tokenizer, stops, self._max_length, self._gpus)

    def measure_batch_tokens(self) -> int:
        """Return how many tokens a batch may have; vLLM makes smaller ones of it."""
        return BATCH_PROMPTS * self._max_length
