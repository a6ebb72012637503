"""Costs of methods relative to the unpatched model, from what stored samples took.

Both sides of a ratio are the same prompt, and the median over samples leaves out those that
something else on the machine slowed down. Samples store no time of the processor by which a busy
machine could be told, so each ratio has an interval, which is wide where ratios differ between
samples. Load that lasts as long as a whole cell moves all its ratios alike, and no interval shows
that: `lampe-eval speed` measures in turns.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import NormalDist, median
from typing import Any

from lampe_eval.records import SampleRecord
from lampe_eval.scoring.intervals import CONFIDENCE

CONDITIONS = ("backend", "low_memory")
"""Keys of samples that say how they ran, besides the size of the batch."""

Pair = tuple[SampleRecord, SampleRecord]
"""Sample of a method and of the reference with the same prompt."""


@dataclass(frozen=True)
class Ratio:
    """Median ratio of two costs over samples.

    Attributes:
        value: the median.
        low: lower end of the median's 95 % interval; the least ratio for fewer than six samples.
        high: upper end of that interval; the largest ratio for fewer than six samples.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Costs:
    """Ratios of a method's costs to those of another one; None where nothing was measured on both.

    Attributes:
        prompt: ratio of the seconds that a prompt takes.
        token: ratio of the seconds that each further token of an answer takes.
        memory: ratio of the peak memory.
        n: number of samples that both have.
        conditions: how both ran where that differs: by key, the method's and the reference's.
    """

    prompt: Ratio | None
    token: Ratio | None
    memory: Ratio | None
    n: int
    conditions: Mapping[str, tuple[str, str]]


def relative_costs(
    cells: Iterable[tuple[Sequence[SampleRecord], Sequence[SampleRecord]]],
) -> Costs:
    """Return the costs of a method relative to a reference on the prompts that both read.

    Args:
        cells: samples of the method and of the reference, for each task at one length.
    """
    pairs: list[Pair] = []
    for rows, reference in cells:
        by_prompt = {_prompt(row): row for row in reference}
        pairs += [(row, by_prompt[_prompt(row)]) for row in rows if _prompt(row) in by_prompt]
    # a batch of another size shares its time among more or fewer samples
    pairs = [(row, other) for row, other in pairs if _batch_size(row) == _batch_size(other)]
    return Costs(
        prompt=_median_ratio(pairs, _prompt_seconds),
        token=_median_ratio(pairs, _token_seconds),
        memory=_median_ratio(pairs, lambda row: row.get("peak_memory_bytes")),
        n=len(pairs),
        conditions=dict(_conditions(pairs)),
    )


def environment_differences(environments: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the versions and hardware in which sessions differ, with their values.

    Args:
        environments: of all sessions that may have run what is compared.
    """
    keys = dict.fromkeys(chain.from_iterable(environments))
    differences: dict[str, str] = {}
    for key in keys:
        values = dict.fromkeys(str(environment.get(key)) for environment in environments)
        if len(values) > 1:
            differences[key] = ", ".join(values)
    return differences


def _prompt(row: SampleRecord) -> tuple[str, str]:
    # The hash belongs to the identity: methods may get different prompts of one sample.
    return row["id"], row["prompt_sha256"]


def _conditions(pairs: Sequence[Pair]) -> Iterator[tuple[str, tuple[str, str]]]:
    for key in CONDITIONS:
        values = [(str(row.get(key, "")), str(other.get(key, ""))) for row, other in pairs]
        if any(ours != theirs for ours, theirs in values):
            ours, theirs = (", ".join(dict.fromkeys(side)) for side in zip(*values, strict=True))
            yield key, (ours, theirs)


def _median_ratio(
    pairs: Sequence[Pair], cost: Callable[[SampleRecord], float | None]
) -> Ratio | None:
    costs = [(cost(row), cost(other)) for row, other in pairs]
    ratios = sorted(ours / theirs for ours, theirs in costs if ours and theirs)
    if not ratios:
        return None
    beyond = _ratios_beyond(len(ratios))
    return Ratio(median(ratios), ratios[beyond], ratios[-1 - beyond])


def _ratios_beyond(n: int) -> int:
    """Return how many of n sorted ratios are below the interval of their median, and above it.

    By order statistics (normal approximation of the binomial), whatever the ratios' distribution.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return max(0, int((n - 1 - z * n**0.5) / 2))


def _batch_size(row: SampleRecord) -> int:
    return row.get("batch_size", 1)


def _prompt_seconds(row: SampleRecord) -> float | None:
    return row.get("prefill_seconds")


def _token_seconds(row: SampleRecord) -> float | None:
    """Return the seconds of each token after the first, which the prompt's time includes."""
    tokens = row.get("answer_tokens", 0) - 1
    seconds = row.get("decode_seconds")
    return seconds / tokens if seconds and tokens > 0 else None
