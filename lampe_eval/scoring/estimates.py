"""Scores of a cell with their standard errors, computed from its samples.

Every score is a function of means: a mean itself, a ratio of means (perplexity), or a geometric
mean of means. The samples of a cell are therefore a table [samples, parts], and each resample is a
product of weights with that table. Samples that depend on each other, such as windows of one
document, are resampled together: the unit of resampling is then their group.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Function from means [..., parts] to scores [...]."""

# Fixed, so that a report that is made again shows the same errors.
SEED = 0
RESAMPLES = 4_000
MAX_WEIGHTS = 2**22
"""Weights held in memory at a time: 32 MiB as float64."""


def first_mean(means: Array) -> Array:
    """Return the mean of the first part."""
    return means[..., 0]


@dataclass(frozen=True)
class Estimate:
    """Score of a cell as a function of its samples.

    Attributes:
        parts: numbers of each sample, [samples, parts].
        statistic: the score, as a function of the parts' means.
        groups: group of each sample where samples are resampled by group; empty where each stands
            alone.
        unit: name of what is resampled: "sample", or what the groups are, such as "document".
    """

    parts: Array
    statistic: Statistic = first_mean
    groups: Sequence[int] = ()
    unit: str = "sample"

    @classmethod
    def mean(cls, values: Sequence[float]) -> "Estimate":
        """Return the mean of one value per sample."""
        return cls(np.array(values, dtype=float)[:, None])

    @property
    def value(self) -> float:
        """Return the score of all samples."""
        # fsum rounds once, so the score does not depend on the order of the samples
        means = [math.fsum(part) / len(self.parts) for part in self.parts.T]
        return float(self.statistic(np.array(means)))

    @property
    def independent_units(self) -> int:
        """Return the number of units that the standard error is computed over."""
        return len(set(self.groups)) or len(self.parts)

    @property
    def stderr(self) -> float:
        """Return the standard error over independent units; NaN for fewer than two.

        The error of a mean comes from the sample standard deviation, every other error from the
        bootstrap.
        """
        parts, statistic = sum_by_group(self.parts, self.statistic, self.groups)
        n = len(parts)
        if n < 2:
            return math.nan
        with np.errstate(all="ignore"):  # a loss may be infinite, and then the error is NaN
            if statistic is first_mean:
                return float(np.std(parts[:, 0], ddof=1)) / math.sqrt(n)
            # The bootstrap divides by n where the sample deviation divides by n - 1. With the
            # factor sqrt(n / (n - 1)) the two agree for a mean.
            replicates = statistic(bootstrap_means(parts))
            return float(np.std(replicates)) * math.sqrt(n / (n - 1))


def sum_by_group(
    parts: Array, statistic: Statistic, groups: Sequence[int]
) -> tuple[Array, Statistic]:
    """Sum parts by group, and adapt the statistic to means of these sums.

    Args:
        parts: numbers of each sample, [samples, ..., parts].
        statistic: function of the parts' means.
        groups: group of each sample; empty to change nothing.

    Returns:
        Sums [groups, ..., parts + 1], whose last part counts the samples of a group, and the
        statistic as a function of the sums' means. Dividing by the mean count makes a large group
        weigh as much as its samples.
    """
    if not len(groups):
        return parts, statistic
    _, index = np.unique(groups, return_inverse=True)
    # A resample of groups has more or fewer samples than the cell, and divides by its own number.
    counted = np.concatenate([parts, np.ones((*parts.shape[:-1], 1))], axis=-1)
    sums = np.zeros((index.max() + 1, *counted.shape[1:]))
    # Not ``sums[index] += counted``, which would add one sample of each group only.
    np.add.at(sums, index, counted)
    return sums, lambda means: statistic(means[..., :-1] / means[..., -1:])


def bootstrap_means(parts: Array) -> Array:
    """Return means of `RESAMPLES` bootstrap samples, [resamples, ...], of parts [samples, ...].

    The resamples depend on nothing but the number of samples, so that every method of a table is
    resampled alike and a repeated report shows the same errors.
    """
    # One matrix product for all pairs of a table; scipy's resamplers gather indices for every pair.
    batches = [np.tensordot(weights, parts, 1) for weights in _bootstrap_weights(len(parts))]
    return np.concatenate(batches)


def _bootstrap_weights(n: int) -> Iterator[Array]:
    """Yield batches of weights, [resamples, n]: how often each sample is drawn, divided by n."""
    rng = np.random.default_rng(SEED)
    batch_size = max(1, MAX_WEIGHTS // n)
    for begin in range(0, RESAMPLES, batch_size):
        rows = min(batch_size, RESAMPLES - begin)
        # shifted by n a row, so that one bincount counts the draws of all rows
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n) / n
