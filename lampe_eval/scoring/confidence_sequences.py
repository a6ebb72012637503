"""Confidence sequences: intervals of bounded means that hold at every number of samples at once.

An ordinary interval covers the true mean at a number of samples that was fixed before. Whoever
looks after every few samples, and stops when an interval looks good, has many chances to be wrong.
The intervals here cover the true mean at all numbers of samples together with probability
1 - alpha, so that it does not matter when, or why, somebody stops.

The method is betting (Waudby-Smith and Ramdas 2023, arXiv 2010.09686). For a candidate mean m,
gamblers begin with a capital of 1 and bet on each sample that the mean is higher. With the share g
of its capital, a gambler has 1 - g + g * sample / m times as much afterwards. If m is the true
mean, the bets are fair, and a capital ever reaches 1 / alpha with probability at most alpha
(Ville's inequality); so candidates at which it does are excluded. Here gamblers with many shares
play side by side and the mean of their capitals counts ("grid Kelly" of that paper). The shares lie
as those of the universal portfolio do (Orabona and Jun 2021, arXiv 2110.14099), which loses little
against the share that would have been best.

The samples have to be independent draws, or in random order. As every gambler keeps its share, the
capital depends on which samples were drawn, and not on their order. Their means may differ, as
those of tasks do, if every task has as many samples: on average a round of all tasks multiplies a
capital by the product of 1 - g + g * (mean of a task) / m. That is at most 1 where the means are m
on average, since a geometric mean is at most the arithmetic one.
"""

import math
from collections.abc import Sequence

import numpy as np

from lampe_eval.scoring.estimates import Array

GAMBLERS = 64
SHARES = np.sin(math.pi * (np.arange(GAMBLERS) + 0.5) / (2 * GAMBLERS)) ** 2
"""Shares of their capital that gamblers bet: quantiles of the distribution Beta(1/2, 1/2)."""
BISECTIONS = 30
"""Halvings of a bound's interval; the bound is exact to 1e-9."""


def anytime_interval(
    values: Sequence[float] | Array, lowest: float = 0.0, highest: float = 1.0, alpha: float = 0.05
) -> tuple[float, float]:
    """Return the interval of a mean that is valid whenever and for whatever reason one stops.

    Args:
        values: the samples.
        lowest: least value that a sample can have.
        highest: largest value that a sample can have.
        alpha: probability that the intervals of all numbers of samples do not all cover the mean.

    Raises:
        ValueError: for a value that is not between the two.
    """
    width = highest - lowest
    scaled = (np.asarray(values, dtype=float) - lowest) / width
    if not np.all((scaled >= 0) & (scaled <= 1)):
        raise ValueError(f"a value is not between {lowest:g} and {highest:g}")
    # Half of alpha for each end.
    low = _lower_bound(scaled, alpha / 2)
    high = 1 - _lower_bound(1 - scaled, alpha / 2)
    return lowest + width * low, lowest + width * high


def log_capital(values: Array, mean: float) -> Array:
    """Return the logarithm of the capital from bets that a mean is higher, after each sample.

    Args:
        values: samples from 0 to 1, [..., samples].
        mean: the candidate, above 0.
    """
    return _log_mean_exp(np.cumsum(_log_growth(values, mean), axis=-2))


def final_log_capital(values: Array, mean: float) -> float:
    """Return the last of `log_capital`, which takes no time for scores of few distinct values."""
    distinct, counts = np.unique(values, return_counts=True)
    return float(_log_mean_exp(counts @ _log_growth(distinct, mean)))


def _log_growth(values: Array, mean: float) -> Array:
    """Return the logarithm by which each sample multiplies each capital, [..., gamblers]."""
    growth: Array = np.log1p(SHARES * (values[..., None] / mean - 1))
    return growth


def _log_mean_exp(logarithms: Array) -> Array:
    """Return the logarithm of the mean over gamblers."""
    highest = logarithms.max(-1)
    mean: Array = highest + np.log(np.exp(logarithms - highest[..., None]).mean(-1))
    return mean


def _lower_bound(values: Array, alpha: float) -> float:
    """Return the end of the means that are excluded from below; 0 if none is."""
    # The capital falls as the candidate rises, and is at most 1 at the mean of the samples.
    low, high = 0.0, float(values.mean()) if len(values) else 0.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if middle == 0:
            break
        if final_log_capital(values, middle) >= -math.log(alpha):
            low = middle
        else:
            high = middle
    return low
