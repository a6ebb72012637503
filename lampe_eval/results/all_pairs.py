"""P-values of all pairs of methods, corrected so that any of them is wrong with probability 5 %.

Whoever looks for the best method compares every method with every other one, also if only the
comparisons with the best are looked at, since the best is found on the same samples.

Scores are corrected by the step-down method of Westfall and Young (1993). A pair counts as
different if its difference, relative to its root mean square, is larger than the largest one of all
pairs would be by chance. Chance is that the methods of a pair are swapped on some units, the same
units for all pairs, so that methods that answer alike count once. The error rate is exact where
the differences between equally good methods on a unit are as likely with the opposite signs, as
those of right and wrong answers of two methods are. For many units it nearly holds whatever their
distribution. Holm's correction would always hold, but with ten samples of twelve methods it cannot
tell 0 of 10 from 10 of 10.

Perplexities often have a handful of windows, too few to swap; their t tests are corrected by Holm's
method. A single pair needs no correction.

`benchmarks/paired_coverage.py` has measured error rates.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from lampe_eval.results.paired_tests import ROUNDING, UnitDifferences, holm, paired_test
from lampe_eval.scoring.estimates import MAX_WEIGHTS, Array

SEED = 0
"""Fixed, so that a report that is made again shows the same methods in bold."""
SWAPS = 2048
"""Random choices of units that are swapped. Of up to 12 units all choices are tried."""


def corrected_p_values(pairs: Sequence[UnitDifferences]) -> list[float]:
    """Return the p-value of each pair of methods, corrected for all of them.

    It is NaN where there is no test.

    Args:
        pairs: differences between the two methods of each pair.
    """
    tests = [paired_test(pair) for pair in pairs]
    known = [pair for pair, test in zip(pairs, tests, strict=True) if test]
    if len(known) < 2 or known[0].is_perplexity:
        return holm([test.p_value if test else math.nan for test in tests])
    found = iter(_step_down(known))
    return [next(found) if test else math.nan for test in tests]


def _step_down(pairs: Sequence[UnitDifferences]) -> list[float]:
    """Return corrected p-values of differences between scores."""
    contributions = _contributions(pairs)
    size = np.abs(contributions.sum(0))
    scale = np.sqrt((contributions**2).sum(0))
    # without any difference the statistic is 0
    scale[scale == 0] = 1
    observed = np.where(size < ROUNDING, 0, size / scale)
    order = np.argsort(-observed, kind="stable")
    exceeded = np.zeros(len(pairs))
    swaps = 0
    for signs in _signs(len(contributions)):
        by_chance = np.abs(signs @ contributions[:, order]) / scale[order]
        # each pair is compared with the largest of those that are not larger than itself
        largest = np.maximum.accumulate(by_chance[:, ::-1], axis=1)[:, ::-1]
        exceeded += (largest >= observed[order] - ROUNDING).sum(0)
        swaps += len(signs)
    corrected = np.empty(len(pairs))
    corrected[order] = np.maximum.accumulate(exceeded / swaps)
    return [float(p_value) for p_value in corrected]


def _contributions(pairs: Sequence[UnitDifferences]) -> Array:
    """Return what each unit contributes to the difference of each pair, [units, pairs]."""
    units = dict.fromkeys(chain.from_iterable(pair.values for pair in pairs))
    places = {unit: place for place, unit in enumerate(units)}
    contributions = np.zeros((len(places), len(pairs)))
    for column, pair in enumerate(pairs):
        for unit, value in pair.values.items():
            contributions[places[unit], column] = pair.weights[unit] * value
    return contributions


def _signs(units: int) -> Iterator[Array]:
    """Yield batches of signs, [swaps, units]; the first is that of no swap."""
    # All signs opposite give the same sizes, so that the first unit need not be swapped.
    if 2 ** (units - 1) <= SWAPS:
        bits = np.arange(2 ** (units - 1))[:, None] >> np.arange(units) & 1
        yield np.where(bits, -1.0, 1.0)
        return
    rng = np.random.default_rng(SEED)
    yield np.ones((1, units))
    rows = max(1, MAX_WEIGHTS // units)
    for begin in range(1, SWAPS, rows):
        yield rng.choice([-1.0, 1.0], (min(rows, SWAPS - begin), units))
