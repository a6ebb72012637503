"""Differences between methods on the same samples: confidence interval and p-value.

The interval is a paired bootstrap: each resample draws samples, and both methods together. Its
percentiles are "expanded" (Hesterberg, arXiv 1411.5279): chosen so that the interval of a mean has
the width of a t interval, since the plain percentile interval is too narrow for few samples.

The p-value is that of a permutation test. If two methods are equally good, each sample's answers
may as well have been the other method's; the test swaps them sample by sample, in all possible
ways where these are few, else in `SWAPS` random ways.

Samples of one group are resampled, and swapped, together. Two samples are the same where both
their id and their prompt are: protocol `lampe` gives LaMPE other prompts than other methods.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lampe_eval.scoring.estimates import (
    MAX_WEIGHTS,
    SEED,
    Array,
    Estimate,
    Statistic,
    bootstrap_means,
    sum_by_group,
)

# With the observed assignment these are 10,000, so a p-value is a multiple of 0.0001.
SWAPS = 9_999
ROUNDING = 1e-6
"""Share of a score below which differences are rounding: losses are of single precision."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class CellSamples:
    """Estimate of a cell with the identity of each of its samples.

    Attributes:
        ids: id and prompt hash of each sample, in the order of the estimate's parts.
        estimate: the estimate of the cell.
    """

    ids: Sequence[Hashable]
    estimate: Estimate


@dataclass(frozen=True)
class Comparison:
    """Difference between two methods on the same samples.

    Attributes:
        difference: the first method's score minus the second's.
        ci_low: lower end of the 95 % interval; NaN for fewer than two independent units, and where
            all samples differ by the same amount, so that the bootstrap shows no spread.
        ci_high: upper end of that interval, or NaN.
        p_value: two-sided p-value of no difference; NaN for fewer than two independent units.
    """

    difference: float
    ci_low: float
    ci_high: float
    p_value: float


@dataclass(frozen=True)
class PairedDifference(Comparison):
    """Difference between two named methods, corrected for the number of comparisons.

    Attributes:
        first: label of the first method.
        second: label of the second method.
        n: number of samples that both have.
        p_value_holm: the p-value corrected (Holm) for all pairs of one call of `compare_methods`.
    """

    first: str
    second: str
    n: int
    p_value_holm: float


def compare_methods(methods: Mapping[str, CellSamples]) -> list[PairedDifference]:
    """Compare every two methods that share samples.

    Args:
        methods: samples of one cell by the method's label.

    Returns:
        The pairs in the order of the methods.
    """
    # Pairs that share the same samples are resampled together, in one product.
    pairs_by_ids: dict[frozenset[Hashable], list[tuple[str, str]]] = {}
    for first, second in combinations(methods, 2):
        shared_ids = frozenset(methods[first].ids) & frozenset(methods[second].ids)
        if shared_ids:
            pairs_by_ids.setdefault(shared_ids, []).append((first, second))

    compared: dict[tuple[str, str], tuple[int, Comparison]] = {}
    for ids, pairs in pairs_by_ids.items():
        for pair, comparison in zip(pairs, _compare_pairs(methods, ids, pairs), strict=True):
            compared[pair] = (len(ids), comparison)

    # grouping by samples has changed the order of the pairs
    order = [pair for pair in combinations(methods, 2) if pair in compared]
    # Within one cell: the comparisons of other tasks and lengths do not count here.
    corrected = holm([compared[pair][1].p_value for pair in order])
    differences: list[PairedDifference] = []
    for (first, second), p_value_holm in zip(order, corrected, strict=True):
        n, numbers = compared[first, second]
        differences.append(
            PairedDifference(
                difference=numbers.difference,
                ci_low=numbers.ci_low,
                ci_high=numbers.ci_high,
                p_value=numbers.p_value,
                first=first,
                second=second,
                n=n,
                p_value_holm=p_value_holm,
            )
        )
    return differences


def _compare_pairs(
    methods: Mapping[str, CellSamples], ids: frozenset[Hashable], pairs: Sequence[tuple[str, str]]
) -> list[Comparison]:
    """Compare pairs of methods that share exactly the samples `ids`."""
    first = np.stack([_parts(methods[name], ids) for name, _ in pairs], axis=1)
    second = np.stack([_parts(methods[name], ids) for _, name in pairs], axis=1)
    samples = methods[pairs[0][0]]
    groups: list[int] = []
    # groups are empty where samples stand alone, hence not strict
    for group, sample_id in zip(samples.estimate.groups, samples.ids, strict=False):
        if sample_id in ids:
            groups.append(group)
    return paired_differences(first, second, samples.estimate.statistic, groups)


def _parts(samples: CellSamples, ids: frozenset[Hashable]) -> Array:
    return samples.estimate.parts[[sample_id in ids for sample_id in samples.ids]]


def paired_differences(
    first: Array, second: Array, statistic: Statistic, groups: Sequence[int] = ()
) -> list[Comparison]:
    """Compare methods pair by pair on the same samples.

    Args:
        first: parts of the first method of each pair, [samples, pairs, parts].
        second: parts of the second method of each pair, in the same order of samples.
        statistic: the score as a function of the parts' means, as in `Estimate`.
        groups: group of each sample, as in `Estimate`.
    """
    first, _ = sum_by_group(first, statistic, groups)
    second, statistic = sum_by_group(second, statistic, groups)
    with np.errstate(all="ignore"):  # a loss may be infinite, and then so is what follows
        differences = statistic(first.mean(0)) - statistic(second.mean(0))
        ci_low, ci_high, p_values = np.full((3, len(differences)), math.nan)
        if len(first) > 1:
            ci_low, ci_high = _intervals(first, second, statistic)
            p_values = _p_values(first, second, statistic, differences)
            p_values = np.where(np.isfinite(differences), p_values, math.nan)
    columns = (differences.tolist(), ci_low.tolist(), ci_high.tolist(), p_values.tolist())
    return [Comparison(*numbers) for numbers in zip(*columns, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by the step-down method of Holm (1979).

    NaN stays NaN, and does not count as a comparison.
    """
    known = [index for index, p_value in enumerate(p_values) if not math.isnan(p_value)]
    order = sorted(known, key=lambda index: p_values[index])
    corrected = [math.nan] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        factor = len(order) - rank
        # a corrected value is never below the one of a smaller p-value
        highest = max(highest, min(1.0, factor * p_values[index]))
        corrected[index] = highest
    return corrected


def _intervals(first: Array, second: Array, statistic: Statistic) -> tuple[Array, Array]:
    """Return both ends of the bootstrap intervals, [pairs] each; NaN where they have no width."""
    # Stacked, so that a resample draws the same samples for both methods.
    replicates = statistic(bootstrap_means(np.stack([first, second], axis=1)))
    tail = 100 * _expanded_tail(len(first))
    percentiles = (tail, 100 - tail)
    low, high = np.percentile(replicates[:, 0] - replicates[:, 1], percentiles, axis=0)
    # Samples that all differ by the same amount show no spread, which is no certainty.
    has_width = high - low > _rounding_error(first, second, statistic)
    return np.where(has_width, low, math.nan), np.where(has_width, high, math.nan)


def _expanded_tail(n: int) -> float:
    """Return the share of the bootstrap beyond each end of the interval of `n` units."""
    from scipy.stats import norm, t  # imported here, since importing it takes a second

    # Hesterberg (arXiv 1411.5279): the bootstrap of a mean is normal with a deviation that is too
    # small by sqrt((n - 1) / n), so the normal quantile is widened to Student's t and by that root.
    width = math.sqrt(n / (n - 1)) * t.ppf((1 + CONFIDENCE) / 2, n - 1)
    return float(norm.cdf(-width))


def _p_values(first: Array, second: Array, statistic: Statistic, differences: Array) -> Array:
    """Return two-sided p-values, [pairs]."""
    n = len(first)
    # Swapping the answers of a sample changes the sign of half the difference of its parts around
    # their middle. So all swaps are one product of signs with these halves.
    middle = (first + second).mean(0) / 2
    half_differences = (first - second) / 2
    # an equal difference counts as extreme, however it was rounded
    threshold = np.abs(differences) - _rounding_error(first, second, statistic)
    extreme = np.zeros(len(differences))
    for signs in _swap_signs(n):
        moved = np.tensordot(signs, half_differences, 1) / n
        swapped = statistic(middle + moved) - statistic(middle - moved)
        extreme += (np.abs(swapped) >= threshold).sum(0)
    if _can_enumerate_swaps(n):
        p_values: Array = extreme / 2**n
        return p_values
    # The observed assignment counts as one of the random ones, so a p-value is never zero.
    return (extreme + 1) / (SWAPS + 1)


def _rounding_error(first: Array, second: Array, statistic: Statistic) -> Array:
    """Return the size below which a difference between these scores is rounding, [pairs]."""
    sizes = np.maximum(np.abs(statistic(first.mean(0))), np.abs(statistic(second.mean(0))))
    return ROUNDING * sizes


def _can_enumerate_swaps(n: int) -> bool:
    # Up to 13 units there are fewer ways to swap (2^13 = 8192) than random ones would be drawn.
    return n < math.log2(SWAPS + 1)


def _swap_signs(n: int) -> Iterator[Array]:
    """Yield batches of signs, [swaps, n]: -1 where the answers of a sample are swapped."""
    if _can_enumerate_swaps(n):
        # the bits of 0 to 2^n - 1 are all ways to swap
        yield np.where(np.arange(2**n)[:, None] >> np.arange(n) & 1, -1.0, 1.0)
        return
    rng = np.random.default_rng(SEED)
    batch_size = max(1, MAX_WEIGHTS // n)
    for begin in range(0, SWAPS, batch_size):
        rows = min(batch_size, SWAPS - begin)
        yield np.where(rng.integers(2, size=(rows, n)), -1.0, 1.0)
