"""Scores of a cell with their standard errors and intervals, computed from its samples.

Every score is a function of means: a mean itself, a ratio of means (perplexity), or a geometric
mean of means. The samples of a cell are therefore a table [samples, parts], and each resample is a
product of weights with that table. Samples that depend on each other, such as windows of one
document, are resampled together: the unit of resampling is then their group.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lampe_eval.records import SampleRecord
from lampe_eval.scoring.intervals import (
    CONFIDENCE,
    Interval,
    Proportion,
    log_interval,
    percent_interval,
    proportion_of_samples,
)

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Function from means [..., parts] to scores [...]."""

Scale = Literal["percent", "log"]
"""Scale of a score: from 0 to 100, or the logarithm of a positive score such as perplexity."""

SHARE_DIGITS = 12
"""Decimals of a score as a share: a root may be 100 percent and a little more."""

ONE_DOCUMENT = "sample of one document"
"""Unit of samples that all share a document, which counts as a part of their task."""

# Fixed, so that a report that is made again shows the same errors.
SEED = 0
RESAMPLES = 4_000
MAX_WEIGHTS = 2**22
"""Weights held in memory at a time: 32 MiB as float64."""


def first_mean(means: Array) -> Array:
    """Return the mean of the first part."""
    return means[..., 0]


def perplexity(means: Array) -> Array:
    """Return exp of the ratio of the first part, a loss, to the second, what it is over."""
    with np.errstate(over="ignore"):  # of a large loss it is infinite
        return np.asarray(np.exp(means[..., 0] / means[..., 1]))


@dataclass(frozen=True)
class Estimate:
    """Score of a cell as a function of its samples.

    Attributes:
        parts: numbers of each sample, [samples, parts].
        statistic: the score, as a function of the parts' means.
        groups: group of each sample where samples are resampled by group; empty where each stands
            alone.
        unit: name of what is resampled: "sample", or what the groups are, such as "document".
        scale: scale of the score, by which its interval is computed, methods are compared, and
            tables and exports state the unit; the same for tasks that are averaged.
        documents: document of each sample, by which averages know what tasks have in common; empty
            where it is not known, or where all samples share one.
    """

    parts: Array
    statistic: Statistic = first_mean
    groups: Sequence[int] = ()
    unit: str = "sample"
    scale: Scale = "percent"
    documents: Sequence[int] = ()

    @classmethod
    def mean(cls, values: Sequence[float]) -> "Estimate":
        """Return the mean of one value per sample."""
        return cls(np.array(values, dtype=float)[:, None])

    def by_document(self, rows: Sequence[SampleRecord]) -> "Estimate":
        """Return the estimate with documents as units, where some of the samples share one.

        Samples that all share one stay units, since nothing tells how other documents would differ.
        So do those of runs that did not store which document they are about.

        Args:
            rows: the samples in the order of the parts.
        """
        # From the hash, so that a document is the same group in cells of any length.
        groups = [int(row["document_sha256"][:15], 16) for row in rows if "document_sha256" in row]
        documents = len(set(groups))
        if len(groups) < len(rows):
            return self
        if documents == len(rows):
            return replace(self, documents=groups)
        if documents == 1:
            return replace(self, unit=ONE_DOCUMENT)
        return replace(self, groups=groups, unit="document", documents=groups)

    @property
    def value(self) -> float:
        """Return the score of all samples."""
        # fsum rounds once, so the score does not depend on the order of the samples
        means = [math.fsum(part) / len(self.parts) for part in self.parts.T]
        return float(self.statistic(np.array(means)))

    @property
    def is_on_scale(self) -> bool:
        """Return whether the score is one that its scale has; else it has no interval."""
        # Comparisons with NaN are false: what is not known is not off the scale.
        if self.scale == "log":
            return not self.value <= 0
        share = round(self.value / 100, SHARE_DIGITS)
        return not (share < 0 or share > 1)

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

    @property
    def proportion(self) -> Proportion:
        """Return a score in percent as a proportion, with its effective number of samples."""
        n, means = len(self.parts), self.parts.mean(0)
        # By the jackknife, which for a mean gives each sample's deviation from it.
        influences = (n - 1) * (self.statistic(means) - _without_each(self.parts, self.statistic))
        value = round(self.value / 100, SHARE_DIGITS)
        return proportion_of_samples(value, influences / 100, self.groups, self.documents)

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Return the score's interval; its ends are NaN where nothing says how certain it is."""
        if self.scale == "log":
            with np.errstate(all="ignore"):  # a loss may be infinite, and then there is no interval
                units = sum_by_group(self.parts, self.statistic, self.groups)
                logarithms = np.log(_without_each(units[0], units[1]))
            return log_interval(self.value, logarithms, confidence)
        return percent_interval(self.proportion, confidence)


def _without_each(parts: Array, statistic: Statistic) -> Array:
    """Return the score without each of the parts, [samples]."""
    n = len(parts)
    # a single sample leaves none; it is not moved, and no interval comes from that
    return statistic((parts.sum(0) - parts) / (n - 1) if n > 1 else parts)


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
