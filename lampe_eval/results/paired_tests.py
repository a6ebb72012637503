"""Paired tests of two methods: difference, interval and p-value, all from one procedure.

A test compares independent units: samples, or documents where several samples share one. A cell is
a single stratum. A pooled test takes the mean over strata (cells), each of the same weight. Scores:
what shares a question or a document in any of the strata is one unit. Perplexity: windows of
several lengths overlap in part, so its error is the mean of the strata's errors, which the error of
a mean never exceeds, however the strata depend on each other.

Scores from 0 to 100: `BoundedTest`, the score interval of Tango (1998) for 0/1 pairs, in a form
for weighted units and partial credit. Perplexity: `StudentTest` of differences of its logarithm.
`benchmarks/paired_coverage.py` has measured coverage and error rates.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain
from statistics import NormalDist

import numpy as np

from lampe_eval.scoring.estimates import Array, Estimate, sum_by_group
from lampe_eval.scoring.intervals import CONFIDENCE

LEVEL = 1 - CONFIDENCE
"""Corrected p-value below which a difference counts as shown."""
ROUNDING = 1e-6
"""Difference of scores (share of the scale, or of a perplexity) that is rounding: losses are of
single precision."""


@dataclass(frozen=True)
class CellSamples:
    """Estimate of a cell with the identity of each of its samples.

    Attributes:
        ids: id and prompt hash of each sample, in the order of the estimate's parts.
        estimate: the estimate of the cell.
        documents: hash of the document of each sample, "" for one without; empty where none has.
    """

    ids: Sequence[tuple[str, str]]
    estimate: Estimate
    documents: Sequence[str] = ()


@dataclass(frozen=True)
class UnitDifferences:
    """Differences between two methods by independent unit.

    Attributes:
        values: difference of each unit by its key, as a share of the scale or of log perplexity.
        weights: weight of each unit in the difference; they sum to 1.
        n: number of paired samples.
        is_perplexity: whether these are differences of log perplexity.
        documents: hashes of the documents that a unit's samples are about, if any.
        strata: strata of a pooled perplexity with their shares; empty for anything else.
    """

    values: Mapping[Hashable, float]
    weights: Mapping[Hashable, float]
    n: int
    is_perplexity: bool
    documents: Mapping[Hashable, Set[str]] = field(default_factory=dict)
    strata: Sequence[tuple[float, "UnitDifferences"]] = ()

    @property
    def difference(self) -> float:
        """Return the weighted mean of the units."""
        return math.fsum(self.weights[key] * value for key, value in self.values.items())

    @property
    def independent_units(self) -> int:
        """Return the number of units that the test counts: of strata that overlap, the fewest."""
        counts = [stratum.independent_units for _, stratum in self.strata]
        return min(counts, default=len(self.values))


@dataclass(frozen=True)
class BoundedTest:
    """Test of differences between scores that have a lowest and a highest value.

    A mean difference d is rejected at z if n (difference - d)^2 > z^2 v(d). The variance v(d) is
    the second moment around d (for 0/1 pairs and d = 0 this is McNemar's test), but at least that
    of the differences `difference` and `reach` alone with mean d: an outcome that was never seen
    may still occur. The latter makes Wilson's interval where all differences are alike. It is at
    most 1 - d^2, the largest variance that scores can have.

    Attributes:
        difference: observed difference as a share of the scale, from -1 to 1.
        variance: variance of the units.
        n: effective number of independent units.
        reach: largest difference that a unit may have.
    """

    difference: float
    variance: float
    n: float
    reach: float

    @property
    def p_value(self) -> float:
        """Return the two-sided p-value of no difference."""
        size = abs(self.difference)
        if size < ROUNDING:
            return 1.0
        variance = max(self.variance + size**2, self.reach * size)
        return math.erfc(size * math.sqrt(self.n / variance / 2))

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the lowest and the highest difference that the test does not reject."""
        z = normal_quantile((1 - confidence) / 2)
        spread = math.inf
        if self.n > z**2:
            spread = z * math.sqrt(self.variance / (self.n - z**2))
        unseen = z**2 / (self.n + z**2)
        below = max(spread, unseen * (self.reach + self.difference))
        above = max(spread, unseen * (self.reach - self.difference))
        # No variance is larger than that of the outcomes -1 and 1 alone, which bounds few units.
        center = self.n * self.difference / (self.n + z**2)
        largest = max(0.0, 1 - self.difference**2)
        width = z * math.sqrt(self.n * largest + z**2) / (self.n + z**2)
        low = max(-1.0, center - width, self.difference - below)
        high = min(1.0, center + width, self.difference + above)
        return min(low, self.difference), max(high, self.difference)


@dataclass(frozen=True)
class StudentTest:
    """Student's t test of differences of log perplexity.

    Attributes:
        difference: observed difference.
        variance: variance of the units, unbiased.
        n: effective number of independent units, more than 1.
    """

    difference: float
    variance: float
    n: float

    @property
    def p_value(self) -> float:
        """Return the two-sided p-value of no difference."""
        from scipy.special import stdtr  # imported here, since importing it takes time

        if abs(self.difference) < ROUNDING:
            return 1.0
        return float(2 * stdtr(self.n - 1, -abs(self.difference) / self._error))

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the lowest and the highest difference that the test does not reject."""
        width = t_quantile((1 - confidence) / 2, self.n - 1) * self._error
        # A difference within rounding is never rejected.
        if abs(self.difference) < ROUNDING:
            width = max(width, ROUNDING)
        return self.difference - width, self.difference + width

    @property
    def _error(self) -> float:
        return max(math.sqrt(self.variance), ROUNDING) / math.sqrt(self.n)


PairedTest = BoundedTest | StudentTest


def unit_differences(
    method: CellSamples,
    reference: CellSamples,
    *,
    is_perplexity: bool,
    task: str = "",
    length: int = 0,
) -> UnitDifferences | None:
    """Compare two methods on the samples of a cell that both have, by independent unit.

    Args:
        method: samples of the method.
        reference: samples of the reference.
        is_perplexity: whether scores are perplexities, which are compared by their logarithm, or
            percent, which become shares.
        task: the cell's task.
        length: the cell's length. Units of a task with the same group, or the same id but for the
            length that it begins with, are the same unit at all lengths.

    Returns:
        Method minus reference, or None if they share no sample.
    """
    places = {sample_id: index for index, sample_id in enumerate(method.ids)}
    rows = [index for index, sample_id in enumerate(reference.ids) if sample_id in places]
    if not rows:
        return None
    method_rows = [places[reference.ids[row]] for row in rows]
    # Groups are empty where samples stand alone; an older or foreign result may not know them.
    if len(reference.estimate.groups):
        groups = [reference.estimate.groups[row] for row in rows]
    else:
        groups = [method.estimate.groups[row] for row in method_rows if len(method.estimate.groups)]
    names: list[Hashable] = [reference.ids[row][0].removeprefix(f"{length}/") for row in rows]
    # sums by group are in the order of the sorted groups
    sizes: dict[Hashable, int] = dict(sorted(Counter(groups).items())) or dict.fromkeys(names, 1)
    scores = [
        _unit_scores(samples.estimate, of_samples, groups, is_perplexity=is_perplexity)
        for samples, of_samples in ((method, method_rows), (reference, rows))
    ]
    with np.errstate(invalid="ignore"):  # a loss may be infinite, and so is what follows
        differences = (scores[0] - scores[1]).tolist()
    values: dict[Hashable, float] = {}
    weights: dict[Hashable, float] = {}
    for (unit, size), value in zip(sizes.items(), differences, strict=True):
        values[task, unit] = value
        weights[task, unit] = size / len(rows)
    documents: dict[Hashable, set[str]] = defaultdict(set)
    for samples, of_samples in ((method, method_rows), (reference, rows)):
        if samples.documents:
            for row, unit in zip(of_samples, groups or names, strict=True):
                documents[task, unit] |= {samples.documents[row]} - {""}
    return UnitDifferences(values, weights, len(rows), is_perplexity, dict(documents))


def pool(strata: Sequence[UnitDifferences], shares: Sequence[float] = ()) -> UnitDifferences:
    """Return the differences over strata, of which some may share units.

    Args:
        strata: differences in each stratum.
        shares: weight of each stratum; equal ones by default.
    """
    if len(strata) == 1:
        return strata[0]
    weighted = list(zip(shares or [1 / len(strata)] * len(strata), strata, strict=True))
    is_perplexity = strata[0].is_perplexity
    whole = {} if is_perplexity else _joined_units(strata)
    totals: dict[Hashable, float] = defaultdict(float)
    weights: dict[Hashable, float] = defaultdict(float)
    for number, (share, stratum) in enumerate(weighted):
        for unit, value in stratum.values.items():
            weight = share * stratum.weights[unit]
            key = (number, unit) if is_perplexity else whole[unit]
            weights[key] += weight
            totals[key] += weight * value
    values = {unit: total / weights[unit] for unit, total in totals.items()}
    n = sum(stratum.n for stratum in strata)
    overlapping = weighted if is_perplexity else ()
    return UnitDifferences(values, dict(weights), n, is_perplexity, strata=overlapping)


def _joined_units(strata: Sequence[UnitDifferences]) -> Mapping[Hashable, Hashable]:
    """Return for each unit of scores the key of the unit that it is a part of.

    Units with the same key are one, and so are those that share a document, also by way of others.
    Where that makes a single unit of all, nothing tells how other documents would differ; then keys
    alone decide, as they do for samples whose documents are not known.
    """
    parents: dict[Hashable, Hashable] = {}

    def first(node: Hashable) -> Hashable:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    units = dict.fromkeys(chain.from_iterable(stratum.values for stratum in strata))
    parents.update((unit, unit) for unit in units)
    by_document: dict[str, Hashable] = {}
    for stratum in strata:
        for unit, documents in stratum.documents.items():
            for document in documents:
                parents[first(unit)] = first(by_document.setdefault(document, unit))
    joined = {unit: first(unit) for unit in units}
    return joined if len(set(joined.values())) > 1 else {unit: unit for unit in units}


def paired_test(units: UnitDifferences) -> PairedTest | None:
    """Return the test of differences by unit; None where there is none.

    That is where a loss is infinite, and for the perplexity of a single unit.
    """
    if units.strata:
        return _test_of_overlapping(units)
    values = np.array(list(units.values.values()))
    weights = np.array([units.weights[unit] for unit in units.values])
    if not np.isfinite(values).all() or (units.is_perplexity and len(values) < 2):
        return None
    difference = units.difference
    # Kish's effective number: what as many units of equal weight would tell.
    n = float(1 / np.sum(weights**2))
    variance = float(np.sum(weights**2 * (values - difference) ** 2) * n)
    if units.is_perplexity:
        return StudentTest(difference, variance * n / (n - 1), n)
    # Where differences are alike, they do not show how far others may reach.
    reach = float(np.abs(values).max()) if variance > ROUNDING**2 else 1.0
    return BoundedTest(difference, variance, n, reach)


def _test_of_overlapping(units: UnitDifferences) -> StudentTest | None:
    """Return the test of a perplexity over strata that may depend on each other in any way."""
    error, n = 0.0, math.inf
    for share, stratum in units.strata:
        test = paired_test(stratum)
        if not isinstance(test, StudentTest):
            return None
        error += share * math.sqrt(test.variance / test.n)
        n = min(n, test.n)
    return StudentTest(units.difference, error**2 * n, n)


def normal_quantile(tail: float) -> float:
    """Return the value that a standard normal variable exceeds with probability `tail`."""
    return -NormalDist().inv_cdf(tail)


def t_quantile(tail: float, degrees: float) -> float:
    """Return the value that Student's t with so many degrees of freedom exceeds at `tail`."""
    from scipy.special import stdtrit

    return -float(stdtrit(degrees, tail))


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


def _unit_scores(
    estimate: Estimate, rows: Sequence[int], groups: Sequence[int], *, is_perplexity: bool
) -> Array:
    """Return the score of each unit, such that their mean by size is the score of the cell.

    For a mean these are the units' own means. Another score is a function of means, of which these
    are the jackknife's pseudo-values.
    """
    sums, statistic = sum_by_group(estimate.parts[rows], estimate.statistic, groups)
    weights = sums[:, -1] / len(rows) if groups else np.full(len(sums), 1 / len(rows))
    with np.errstate(all="ignore"):  # a loss may be infinite, and so is what follows
        means = np.vstack([sums.mean(0), (sums.sum(0) - sums) / max(1, len(sums) - 1)])
        scores = statistic(means)
        scores = np.log(scores) if is_perplexity else scores / 100
        if len(sums) == 1:
            return scores[:1]
        return np.asarray(scores[0] + (1 / weights - 1) * (scores[0] - scores[1:]))
