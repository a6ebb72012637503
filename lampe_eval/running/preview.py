"""Preview of a run without weights: prompts, their lengths, and the least time and memory."""

import datetime
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lampe_eval import models
from lampe_eval.benches.bench import Prompt, Sample, Task
from lampe_eval.models import ModelCost, ModelSource
from lampe_eval.running.batching import shared_document, tokens_with_answer
from lampe_eval.running.prepared_run import PreparedRun
from lampe_eval.running.sampling import (
    check_samples,
    draw_samples,
    load_tokenizer,
    uses_release_prompts,
)

HISTOGRAM_BINS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper ends of the bins in units of 1024 tokens; longer samples count in the last one."""


@dataclass(frozen=True)
class Preview:
    """Task at a length, for the methods that get the same prompts; mostly all do.

    Attributes:
        model: name of the model.
        methods: labels of the methods.
        task: the task.
        length: tokens of the cells.
        samples: samples that each method runs.
        cut: how many of them are cut to fit.
        skipped: further samples that the protocol leaves out because they are too long.
        documents: documents with several questions, which are read once.
        histogram: samples by the upper end of their bin, in units of 1024 tokens.
        longest: tokens of the longest prompt with its answer.
        seconds: least time of one method, for its multiplications and for reading the weights for
            each token of the answer; None if the device is not on this machine. A follow-up
            question is not counted. Where some methods do not see all tokens, it is the mean.
        memory_bytes: weights and the longest sample's cache, for the method that holds the most.
        text: the prompt of the first sample as the model reads it.
    """

    model: str
    methods: tuple[str, ...]
    task: Task
    length: int
    samples: int
    cut: int
    skipped: int
    documents: int
    histogram: dict[int, int]
    longest: int
    seconds: float | None
    memory_bytes: int
    text: str


def previews(
    prepared: PreparedRun,
    date: datetime.date,
    announce: Callable[[str], None] = lambda text: None,
) -> Iterator[Preview]:
    """Yield a preview of every task and length of every model.

    Args:
        prepared: the run.
        date: date that chat templates write into prompts.
        announce: called with a text before samples are drawn.

    Raises:
        UserError: as running it would.
    """
    tokenizers = {source.name: load_tokenizer(source, date) for source in prepared.sources}
    check_samples(prepared, tokenizers, announce)
    for source in prepared.sources:
        tokenizer = tokenizers[source.name]
        cost = models.cost_of(source)
        for task in prepared.resolved.tasks:
            for length in prepared.lengths(source, task.bench):
                for release_prompts in (False, True):
                    methods = _methods(prepared, source, task, release_prompts)
                    if not methods:
                        continue
                    announce(f"preparing {task.full_name} · {length}")
                    samples = draw_samples(
                        prepared, task, length, tokenizer, release_prompts=release_prompts
                    )
                    visible = [
                        prepared.visible_tokens(source, method, length) for method in methods
                    ]
                    yield Preview(
                        model=source.name,
                        methods=methods,
                        task=task,
                        length=length,
                        text=_first_prompt(samples, tokenizer),
                        **_estimates(samples, prepared, visible, cost),
                    )


def least_seconds(prepared: PreparedRun) -> float | None:
    """Return the least time of a run in seconds; None if its device is not on this machine.

    Raises:
        UserError: as `previews`.
    """
    total = 0.0
    for preview in previews(prepared, datetime.date.today()):
        if preview.seconds is None:
            return None
        total += preview.seconds * len(preview.methods)
    return total


def least_batch_seconds(samples: Sequence[Sample], device: str, cost: ModelCost) -> float:
    """Return the least time of a batch; 0 if the device is not on this machine."""
    return _least_seconds(samples, device, cost) or 0.0


@lru_cache
def operations_per_second(device: str, size: int = 1024, seconds: float = 0.3) -> float | None:
    """Measure the multiplications and additions per second of a matrix product.

    Args:
        device: device as torch names it.
        size: rows and columns of the matrices.
        seconds: how long to measure.

    Returns:
        None if the device is not on this machine.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        return None
    # The data types that weights mostly have on these devices.
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    matrix @ matrix  # the first product includes the library's initialization
    count = 0
    started = time.perf_counter()
    elapsed = 0.0
    while elapsed < seconds:
        float((matrix @ matrix)[0, 0])  # waits for the device
        count += 1
        elapsed = time.perf_counter() - started
    return count * 2 * size**3 / elapsed


@lru_cache
def bytes_per_second(device: str, size: int = 1 << 25, seconds: float = 0.2) -> float | None:
    """Measure how many bytes of memory per second are read.

    Args:
        device: device as torch names it.
        size: float32 numbers that are read at a time, more than a cache holds.
        seconds: how long to measure.

    Returns:
        None if the device is not on this machine.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        return None
    # 128 MiB by default, so that the numbers come from memory and not from a cache.
    numbers = torch.ones(size, dtype=torch.float32, device=device)
    count = 0
    started = time.perf_counter()
    elapsed = 0.0
    while elapsed < seconds:
        float(numbers.sum())  # waits for the device
        count += 1
        elapsed = time.perf_counter() - started
    return count * numbers.numel() * numbers.itemsize / elapsed


def _methods(
    prepared: PreparedRun, source: ModelSource, task: Task, release_prompts: bool
) -> tuple[str, ...]:
    """Return the methods that get a task's common prompts, or those of their own releases."""
    return tuple(
        spec.label
        for spec in prepared.resolved.specs
        if uses_release_prompts(prepared, task, source.name, spec.label) == release_prompts
    )


def _first_prompt(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> str:
    return next((str(tokenizer.decode(list(sample.ids))) for sample in samples if sample.ids), "")


def _estimates(
    samples: Sequence[Sample],
    prepared: PreparedRun,
    visible: Sequence[int | None],
    cost: ModelCost,
) -> dict[str, Any]:
    """Return the fields of a preview that count tokens, time and memory.

    Args:
        samples: the samples.
        prepared: the run.
        visible: for each method the tokens that a token sees at most; None for all before it.
        cost: sizes of the model.
    """
    # The sample of a faulty row has no ids.
    whole = [sample for sample in samples if sample.ids]
    run = [sample for sample in whole if not (isinstance(sample, Prompt) and sample.skip)]
    longest = max((tokens_with_answer(sample) for sample in run), default=0)
    cached = max(prepared.cached_tokens(count, longest) for count in visible)
    times = [_least_seconds(run, prepared.device, cost, count) for count in visible]
    known = [seconds for seconds in times if seconds is not None]
    documents = {shared_document(sample) for sample in run} - {""}
    cache_bytes = cached * cost.cache_bytes
    if documents:
        # An answer rotates a copy of a document's keys.
        cache_bytes += cache_bytes // 2
    return {
        "samples": len(run),
        "cut": sum(isinstance(sample, Prompt) and sample.cut_tokens > 0 for sample in run),
        "skipped": len(whole) - len(run),
        "documents": len(documents),
        "histogram": _histogram(run),
        "longest": longest,
        "seconds": statistics.fmean(known) if known else None,
        "memory_bytes": cost.parameters * cost.parameter_bytes + cache_bytes,
    }


def _least_seconds(
    samples: Sequence[Sample], device: str, cost: ModelCost, visible: int | None = None
) -> float | None:
    """Return the least time of samples; None if the device is not on this machine.

    Args:
        samples: the samples.
        device: device as torch names it.
        cost: sizes of the model.
        visible: tokens that a token sees at most, itself included; None for all before it.
    """
    operations_rate = operations_per_second(device)
    bytes_rate = bytes_per_second(device)
    if operations_rate is None or bytes_rate is None:
        return None
    # A method whose tokens do not see all before them shares no document.
    known = _known_tokens(samples) if visible is None else [0] * len(samples)
    return sum(
        (_operations(tokens_with_answer(sample), cost, visible) - _operations(read, cost, visible))
        / operations_rate
        + _bytes_read(sample, cost, visible) / bytes_rate
        for sample, read in zip(samples, known, strict=True)
    )


def _known_tokens(samples: Sequence[Sample]) -> list[int]:
    """Return how many tokens of each sample were read with an earlier one about its document."""
    documents: set[str] = set()
    known: list[int] = []
    for sample in samples:
        document = shared_document(sample)
        is_known = document in documents
        known.append(sample.shared_tokens if is_known and isinstance(sample, Prompt) else 0)
        documents.add(document)
    return known


def _operations(tokens: int, cost: ModelCost, visible: int | None) -> float:
    """Return two operations per parameter and token, and those of attention to what is seen."""
    seen = tokens if visible is None else min(visible, tokens)
    # The first tokens see fewer; for one that sees all before it this is half a square.
    pairs = tokens * seen - seen * seen / 2
    return 2.0 * cost.parameters * tokens + cost.attention_operations * pairs


def _bytes_read(sample: Sample, cost: ModelCost, visible: int | None) -> float:
    """Return the bytes that decoding reads: all weights, and the cache as far as it is seen."""
    answer = sample.max_new_tokens if isinstance(sample, Prompt) else 0
    weights = cost.parameters * cost.parameter_bytes
    tokens = len(sample.ids)
    seen = tokens if visible is None else min(visible, tokens)
    return float(answer * (weights + seen * cost.cache_bytes))


def _histogram(samples: Sequence[Sample]) -> dict[int, int]:
    """Count samples by the upper end of their bin; empty bins are left out."""
    counts = dict.fromkeys(HISTOGRAM_BINS, 0)
    for sample in samples:
        fitting = [end for end in HISTOGRAM_BINS if len(sample.ids) <= 1024 * end]
        counts[fitting[0] if fitting else HISTOGRAM_BINS[-1]] += 1
    return {end: count for end, count in counts.items() if count}
