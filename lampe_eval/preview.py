"""What a plan would run, told without loading weights: prompts, their lengths, and what they cost at least."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import PreTrainedTokenizerBase

from lampe_eval import models
from lampe_eval.benches.bench import Prompt, Sample, Task
from lampe_eval.models import ModelCost
from lampe_eval.plan import Plan
from lampe_eval.running.runner import probe

BINS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper ends of the histogram's bins, in units of 1024 tokens; what is longer than the last counts there."""


@dataclass(frozen=True)
class Preview:
    """One task at one length, for the methods that get the same prompts: mostly all.

    Attributes:
        histogram: samples by the upper end of their length, in units of 1024 tokens.
        longest: tokens of the longest prompt with its answer.
        seconds: time that multiplications, and reading the weights for each token of the answer, take at least, for
            each method; None where the device is not here. A second prompt that follows an answer is not counted.
        memory: bytes of weights and of the longest sample's cache.
        text: the prompt of the first sample as the model reads it.
    """

    model: str
    methods: tuple[str, ...]
    task: Task
    length: int
    samples: int
    cut: int
    skipped: int
    histogram: dict[int, int]
    longest: int
    seconds: float | None
    memory: int
    text: str


def previews(plan: Plan, now: Callable[[str], None] = lambda text: None) -> Iterator[Preview]:
    """Every task and length of every model; ``now`` is told whose samples are drawn.

    Raises:
        UserError: as running it would.
    """
    for source in plan.sources:
        probe(plan, source, models.load_tokenizer(source), now)
    for source in plan.sources:
        tokenizer, size = models.load_tokenizer(source), models.size_of(source)
        for task in plan.tasks:
            for length in plan.lengths(source, task.bench):
                for release_prompts in (False, True):
                    methods = tuple(
                        s.label
                        for s in plan.specs
                        if plan.release_prompts(task, source.name, s.label) == release_prompts
                    )
                    if methods:
                        now(f"preparing {task.full_name} · {length}")
                        samples = plan.samples(
                            task, length, tokenizer, release_prompts=release_prompts
                        )
                        yield _preview(
                            plan, source.name, methods, task, length, samples, tokenizer, size
                        )


def least_seconds(plan: Plan) -> float | None:
    """What a plan takes at least; None where its device is not here.

    Raises:
        UserError: as ``previews``.
    """
    times = [
        None if seen.seconds is None else seen.seconds * len(seen.methods)
        for seen in previews(plan)
    ]
    return None if None in times else sum(time for time in times if time is not None)


def _preview(
    plan: Plan,
    model: str,
    methods: tuple[str, ...],
    task: Task,
    length: int,
    samples: list[Sample],
    tokenizer: PreTrainedTokenizerBase,
    size: ModelCost,
) -> Preview:
    run = [sample for sample in samples if not (isinstance(sample, Prompt) and sample.skip)]
    longest = max((_tokens(sample) for sample in run), default=0)
    speed, flow = operations_per_second(plan.device), bytes_per_second(plan.device)
    return Preview(
        model=model,
        methods=methods,
        task=task,
        length=length,
        samples=len(run),
        cut=sum(isinstance(sample, Prompt) and sample.cut_tokens > 0 for sample in run),
        skipped=len(samples) - len(run),
        histogram=_histogram(len(sample.ids) for sample in run),
        longest=longest,
        seconds=sum(_operations(s, size) / speed + _read(s, size) / flow for s in run)
        if speed and flow
        else None,
        memory=size.parameters * size.itemsize + longest * size.cached,
        text=str(tokenizer.decode(list(samples[0].ids))) if samples else "",
    )


def _tokens(sample: Sample) -> int:
    return len(sample.ids) + (sample.max_new_tokens if isinstance(sample, Prompt) else 0)


def _operations(sample: Sample, size: ModelCost) -> float:
    """Of a prompt and the longest answer it may get: two per parameter and token, and the causal half of attention."""
    tokens = _tokens(sample)
    return 2.0 * size.parameters * tokens + size.attended * tokens * tokens / 2


def _read(sample: Sample, size: ModelCost) -> float:
    """Bytes that the longest answer reads: for each token all weights and the cache."""
    answer = sample.max_new_tokens if isinstance(sample, Prompt) else 0
    return float(answer * (size.parameters * size.itemsize + len(sample.ids) * size.cached))


def _histogram(lengths: Iterator[int]) -> dict[int, int]:
    counts = dict.fromkeys(BINS, 0)
    for length in lengths:
        counts[next((end for end in BINS if length <= 1024 * end), BINS[-1])] += 1
    return {end: count for end, count in counts.items() if count}


@lru_cache
def operations_per_second(device: str, size: int = 1024, seconds: float = 0.3) -> float | None:
    """What a product of matrices reaches, in multiplications and additions; None for a device that is not here."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        return None
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    a = torch.ones(size, size, dtype=dtype, device=device)
    a @ a  # the first one prepares
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        float((a @ a)[0, 0])  # waits for the device
        done += 1
    return done * 2 * size**3 / passed


@lru_cache
def bytes_per_second(device: str, size: int = 1 << 25, seconds: float = 0.2) -> float | None:
    """How fast numbers are read here, in bytes; None for a device that is not here."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        return None
    a = torch.ones(size, dtype=torch.float32, device=device)
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        float(a.sum())  # waits for the device
        done += 1
    return done * a.numel() * a.itemsize / passed
