"""Numbers of a cell from its samples, with their standard errors.

Every number here is a function of means: the mean itself, a ratio of means (perplexity), a geometric mean of means. So
the samples of a cell are a table of parts, and whatever is resampled is a product of weights with it. Samples that
tell of each other, such as windows of one document, are drawn together: their group is the unit of what is resampled.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
"""Of means [..., parts]."""

SEED = 0
RESAMPLES = 4_000
MAX_HELD = 2**22
"""Weights that are held at a time."""


def first_mean(means: Array) -> Array:
    """The mean of the only part."""
    return means[..., 0]


@dataclass(frozen=True)
class Estimate:
    """A number from samples.

    Attributes:
        parts: what each sample gives, [samples, parts].
        of: the number, given means [..., parts] of the parts.
        groups: the group of each sample, where those of one are drawn together; none where each is drawn alone.
        unit: what is drawn: "sample", or what groups are.
    """

    parts: Array
    of: Function = first_mean
    groups: Sequence[int] = ()
    unit: str = "sample"

    @classmethod
    def mean(cls, values: Sequence[float]) -> "Estimate":
        """The mean of a value each."""
        return cls(np.array(values, dtype=float)[:, None])

    @property
    def value(self) -> float:
        """The number of all samples."""
        return float(
            self.of(np.array([math.fsum(part) for part in self.parts.T]) / len(self.parts))
        )

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(set(self.groups)) or len(self.parts)

    @property
    def stderr(self) -> float:
        """Its standard error, NaN below two units: of a mean from the sample deviation, of others by bootstrap.

        The bootstrap is scaled by the root of n / (n - 1), which makes it what the sample deviation gives for a mean.
        """
        parts, of = sum_by_group(self.parts, self.of, self.groups)
        n = len(parts)
        if n < 2:
            return math.nan
        with np.errstate(all="ignore"):  # a loss may be infinite, and then this is NaN
            if of is first_mean:
                return float(np.std(parts[:, 0], ddof=1)) / math.sqrt(n)
            return float(np.std(of(bootstrap_means(parts)))) * math.sqrt(n / (n - 1))


def sum_by_group(parts: Array, of: Function, groups: Sequence[int]) -> tuple[Array, Function]:
    """Parts [samples, ..., parts] summed by group, and what makes of the means of these what ``of`` makes of theirs.

    The sums are [groups, ..., parts + 1]: the last counts a group's samples. Without groups nothing changes.
    """
    if not len(groups):
        return parts, of
    _, index = np.unique(groups, return_inverse=True)
    counted = np.concatenate([parts, np.ones((*parts.shape[:-1], 1))], axis=-1)
    sums = np.zeros((index.max() + 1, *counted.shape[1:]))
    np.add.at(sums, index, counted)
    return sums, lambda means: of(means[..., :-1] / means[..., -1:])


def bootstrap_means(parts: Array) -> Array:
    """Means of ``RESAMPLES`` bootstrap samples, [resamples, ...], of parts [samples, ...]; the same whenever asked."""
    return np.concatenate([np.tensordot(weights, parts, 1) for weights in _weights(len(parts))])


def _weights(n: int) -> Iterator[Array]:
    """How often each sample is drawn, over n: [resamples, n], a piece at a time."""
    rng = np.random.default_rng(SEED)
    step = max(1, MAX_HELD // n)
    for begin in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - begin)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n) / n
