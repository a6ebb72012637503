"""Differences that a number of samples can show, by the tests of `paired_tests`.

A difference can be shown if the test finds it with a probability of `POWER`. How much the methods'
answers to one sample differ, the run itself has measured.
"""

import math

import numpy as np

from lampe_eval.results.paired_tests import (
    BoundedTest,
    PairedTest,
    normal_quantile,
    t_quantile,
)

POWER = 0.8
USEFUL_POINTS = 15.0
"""Difference of scores that is worth more samples."""
USEFUL_PERCENT = 5.0
"""Difference of perplexities that is worth more samples."""
MAX_UNITS = 2**20
MAX_EXACT = 1000
"""Units up to which the power is a sum over their outcomes; beyond, a normal distribution."""
BISECTIONS = 25


def detectable_difference(test: PairedTest, level: float) -> float:
    """Return the smallest difference that is shown with a probability of `POWER`.

    Args:
        test: a test of the run, whose number of units and variance are taken.
        level: p-value below which a difference is shown.

    Returns:
        The difference in the unit of the test; infinity if these units cannot show any.
    """
    # A perplexity has no highest difference; e^100 times as much is beyond any.
    low, high = 0.0, 1.0 if isinstance(test, BoundedTest) else 100.0
    if power(test, high, level, round(test.n)) < POWER:
        return math.inf
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        is_shown = power(test, middle, level, round(test.n)) >= POWER
        low, high = (low, middle) if is_shown else (middle, high)
    return high


def units_needed(test: PairedTest, level: float) -> int | None:
    """Return the number of units that shows a useful difference with a probability of `POWER`.

    It is None where that takes more than `MAX_UNITS`.

    Args:
        test: a test of the run, whose variance is taken.
        level: p-value below which a difference is shown.
    """
    useful = USEFUL_POINTS / 100
    if not isinstance(test, BoundedTest):
        useful = math.log1p(USEFUL_PERCENT / 100)
    low, high = 1, MAX_UNITS
    if power(test, useful, level, high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        if power(test, useful, level, middle) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low


def power(test: PairedTest, difference: float, level: float, n: int) -> float:
    """Return the probability that `n` units show a difference.

    Args:
        test: a test of the run, whose variance is taken.
        difference: the true difference.
        level: p-value below which a difference is shown.
        n: number of independent units.
    """
    if not isinstance(test, BoundedTest):
        return _power_of_student(test.variance, difference, level, n)
    # Units that differ at all differ by the reach, in either direction: as 0/1 pairs do.
    reach = max(test.reach, difference)
    share = max(difference / reach, (test.variance + difference**2) / reach**2)
    return _power_of_steps(min(1.0, share), difference / reach, level, n)


def _power_of_steps(share: float, difference: float, level: float, n: int) -> float:
    """Return the power for units of which a share is -1 or 1, the others 0, with this mean."""
    z = normal_quantile(level / 2)
    if n > MAX_EXACT:
        deviation = math.sqrt(share - difference**2)
        distance = difference * math.sqrt(n) - z * math.sqrt(share)
        return 0.5 * math.erfc(-distance / math.sqrt(2) / max(deviation, 1e-9))
    from scipy.special import bdtrc, gammaln, xlog1py, xlogy  # importing it takes time

    differing = np.arange(n + 1)
    ways = gammaln(n + 1) - gammaln(differing + 1) - gammaln(n - differing + 1)
    chances = np.exp(ways + xlogy(differing, share) + xlog1py(n - differing, -share))
    # The test is McNemar's: of k units that differ, more than (k + z sqrt(k)) / 2 go one way.
    most = np.floor((differing + z * np.sqrt(differing)) / 2)
    positive = (1 + difference / share) / 2
    shown = bdtrc(np.minimum(most, differing), differing, positive)
    return float(chances @ np.where(most < differing, shown, 0.0))


def _power_of_student(variance: float, difference: float, level: float, n: int) -> float:
    """Return the power of Student's t test."""
    if n < 2:
        return 0.0
    from scipy.special import nctdtr

    distance = difference / max(math.sqrt(variance / n), 1e-9)
    not_shown = float(nctdtr(n - 1, distance, t_quantile(level / 2, n - 1)))
    # scipy has no number for the far tail
    return 1.0 if math.isnan(not_shown) else 1 - not_shown
