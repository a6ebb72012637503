"""Differences that a number of samples can show, by the tests of `paired_tests`.

A difference can be shown if the test finds it with a probability of `POWER`. How much the methods'
answers to one sample differ, the run itself has measured.
"""

import math

from lampe_eval.results.paired_tests import BoundedTest, PairedTest, normal_quantile, t_quantile

POWER = 0.8
USEFUL = {"points": 15.0, "%": 5.0}
"""Difference of scores, and of perplexities, that is worth more samples."""
MAX_UNITS = 10_000_000
BISECTIONS = 30


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
    if not _is_shown(test, high, level, test.n):
        return math.inf
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if _is_shown(test, middle, level, test.n) else (middle, high)
    return high


def units_needed(test: PairedTest, level: float) -> int:
    """Return the number of units that shows a useful difference with a probability of `POWER`.

    Args:
        test: a test of the run, whose variance is taken.
        level: p-value below which a difference is shown.
    """
    useful = USEFUL["points"] / 100
    if not isinstance(test, BoundedTest):
        useful = math.log1p(USEFUL["%"] / 100)
    low, high = 1, MAX_UNITS
    while low < high:
        middle = (low + high) // 2
        if _is_shown(test, useful, level, middle):
            high = middle
        else:
            low = middle + 1
    return low


def _is_shown(test: PairedTest, difference: float, level: float, n: float) -> bool:
    """Return whether `n` units show a difference with a probability of at least `POWER`."""
    if not isinstance(test, BoundedTest):
        if n <= 1:
            return False
        quantiles = t_quantile(level / 2, n - 1) + t_quantile(1 - POWER, n - 1)
        return difference >= quantiles * math.sqrt(test.variance / n)
    z = normal_quantile(level / 2)
    if n <= z**2:
        return False
    # Methods that differ by so much spread at least as if they differed in one direction only.
    variance = max(test.variance, difference * (test.reach - difference))
    rejected_from = max(z * math.sqrt(variance / (n - z**2)), z**2 * test.reach / n)
    return difference - rejected_from >= normal_quantile(1 - POWER) * math.sqrt(variance / n)
