"""Differences between methods on the same samples: interval, p-value, and what many comparisons do to it.

The interval is the bootstrap's, over samples, both methods together; its percentiles are those whose width is a t
interval's where the numbers are means (Hesterberg, arXiv 1411.5279, "expanded percentile"), so that few samples do not
look like many. Where all samples differ alike it has no width, and is not known. The p-value is that of the permutation
test in which any sample's answers may have been the other method's: of all ways to swap where these are few, else of
``SWAPS`` drawn ones. Samples of one group are drawn, and swapped, together.

A sample is the same where its id and its prompt are: protocol ``lampe`` gives LaMPE other prompts than other methods.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lampe_eval.scoring.estimates import (
    MAX_HELD,
    SEED,
    Array,
    Estimate,
    Function,
    bootstrap_means,
    sum_by_group,
)

SWAPS = 9_999
ROUNDING = 1e-6
"""Share of a number that is no difference: losses are of single precision."""
CONFIDENCE = 0.95

ComparedNumbers = tuple[float, float, float, float]
"""Difference, both ends of its interval, p-value."""


@dataclass(frozen=True)
class CellSamples:
    """A method's estimate, with the ids of the samples and the prompts that its parts are of."""

    ids: Sequence[Hashable]
    estimate: Estimate


@dataclass(frozen=True)
class PairedDifference:
    """Two methods on the ``n`` samples that both have: the first's number less the second's.

    Attributes:
        low, high: ends of its interval; NaN below two units, and where all of them differ alike.
        p: that the difference is none; NaN below two units.
        p_corrected: the same, for as many pairs as were compared together (Holm): those of one call of ``pairs``.
    """

    first: str
    second: str
    n: int
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float


def compare_methods(methods: Mapping[str, CellSamples]) -> list[PairedDifference]:
    """Every pair of methods of one table that share samples, in their order."""
    shared: dict[frozenset[Hashable], list[tuple[str, str]]] = {}
    for first, second in combinations(methods, 2):
        if ids := frozenset(methods[first].ids) & frozenset(methods[second].ids):
            shared.setdefault(ids, []).append((first, second))
    found = {
        names: (len(ids), *numbers)
        for ids, members in shared.items()
        for names, numbers in zip(members, _compared(methods, ids, members), strict=True)
    }
    order = [names for names in combinations(methods, 2) if names in found]
    corrected = holm([found[names][-1] for names in order])
    return [
        PairedDifference(first, second, *found[first, second], p)
        for (first, second), p in zip(order, corrected, strict=True)
    ]


def _compared(
    methods: Mapping[str, CellSamples], ids: frozenset[Hashable], members: Sequence[tuple[str, str]]
) -> Iterator[ComparedNumbers]:
    """Difference, interval and p-value of pairs on the same samples."""
    first, second = (
        np.stack([_parts(methods[pair[side]], ids) for pair in members], axis=1) for side in (0, 1)
    )
    sampled = methods[members[0][0]]
    groups = [
        group for group, id in zip(sampled.estimate.groups, sampled.ids, strict=False) if id in ids
    ]
    return paired_differences(first, second, sampled.estimate.of, groups)


def _parts(sampled: CellSamples, ids: frozenset[Hashable]) -> Array:
    return sampled.estimate.parts[[id in ids for id in sampled.ids]]


def paired_differences(
    first: Array, second: Array, of: Function, groups: Sequence[int] = ()
) -> Iterator[ComparedNumbers]:
    """Compares methods by pairs.

    Args:
        first: parts of the first methods, [samples, pairs, parts]; a row is a sample.
        second: the same of the second methods.
        of, groups: as ``Estimate`` has them.
    """
    (first, _), (second, of) = sum_by_group(first, of, groups), sum_by_group(second, of, groups)
    with np.errstate(all="ignore"):  # a loss may be infinite, and then so is what follows
        value = of(first.mean(0)) - of(second.mean(0))
        low, high, p = np.full((3, len(value)), math.nan)
        if len(first) > 1:
            tail = 100 * _tail(len(first))
            replicates = of(bootstrap_means(np.stack([first, second], axis=1)))
            low, high = np.percentile(
                replicates[:, 0] - replicates[:, 1], (tail, 100 - tail), axis=0
            )
            low, high = np.where(high - low > _rounding(first, second, of), (low, high), math.nan)
            p = np.where(np.isfinite(value), _p(first, second, of, value), math.nan)
    return zip(value.tolist(), low.tolist(), high.tolist(), p.tolist(), strict=True)


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979); NaN stays and does not count."""
    order = sorted(
        (index for index, value in enumerate(p) if not math.isnan(value)),
        key=lambda index: p[index],
    )
    corrected, highest = [math.nan] * len(p), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p[index]))
        corrected[index] = highest
    return corrected


def _tail(n: int) -> float:
    """Share of the bootstrap beyond each end of the interval."""
    from scipy.stats import norm, t  # here, as it takes a second

    width = math.sqrt(n / (n - 1)) * t.ppf((1 + CONFIDENCE) / 2, n - 1)
    return float(norm.cdf(-width))


def _p(first: Array, second: Array, of: Function, value: Array) -> Array:
    """Two-sided p-values; swapping samples moves half the difference of their parts to the other side of the middle."""
    middle, half = (first + second).mean(0) / 2, (first - second) / 2
    least = np.abs(value) - _rounding(first, second, of)
    extreme = np.zeros(len(value))
    for signs in _signs(len(first)):
        moved = np.tensordot(signs, half, 1) / len(first)
        extreme += (np.abs(of(middle + moved) - of(middle - moved)) >= least).sum(0)
    return extreme / 2 ** len(first) if _few(len(first)) else (extreme + 1) / (SWAPS + 1)


def _rounding(first: Array, second: Array, of: Function) -> Array:
    """What is no difference between numbers of the size of these."""
    return ROUNDING * np.maximum(np.abs(of(first.mean(0))), np.abs(of(second.mean(0))))


def _few(n: int) -> bool:
    return n < math.log2(SWAPS + 1)


def _signs(n: int) -> Iterator[Array]:
    """Signs of each sample, [swaps, n], a piece at a time: all there are where they are few."""
    if _few(n):
        yield np.where(np.arange(2**n)[:, None] >> np.arange(n) & 1, -1.0, 1.0)
        return
    rng = np.random.default_rng(SEED)
    step = max(1, MAX_HELD // n)
    for begin in range(0, SWAPS, step):
        yield np.where(rng.integers(2, size=(min(step, SWAPS - begin), n)), -1.0, 1.0)
