"""Confidence intervals of scores from 0 to 1: Wilson's, at an effective number of samples.

One formula serves every such score. A score of 0 or 1 a sample is a proportion, and its interval is
Wilson's (1927) with a correction for continuity of 0.4 of a sample. Newcombe (1998) corrects by 0.5
and covers more than 99.5 % at ten samples; without a correction 90 % is all there is. With 0.4 the
coverage of 95 % intervals is 94.4 to 99.4 % for every proportion from 0.02 to 0.98 at 10, 50 and
200 samples (`python -m benchmarks.coverage`). It never has zero width.

Other scores have the interval of as many right or wrong answers as would be equally uncertain
(Korn and Graubard 1998 do so for surveys). F1 varies less than right or wrong answers of the same
mean, so it counts more; questions about one document resemble each other, so they count less. Both
ratios are estimated from few units, and drawn towards the cautious end: scores towards right or
wrong, documents towards questions that are all alike. So equal scores are no certainty.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
CONTINUITY = 0.4
"""Part of a sample by which a proportion is moved away from the end that is sought."""
CAUTIOUS_SAMPLES = 1.5
CAUTIOUS_GROUPS = 1
"""Weights of the cautious end, in samples and in groups. With one sample skewed scores of 50
samples are covered in 92 %, with two those that hardly vary in more than 99.5 %."""
ROUNDING = 1e-12
"""Variance below which scores are equal: the mean of equal numbers is not exact."""


class Interval(NamedTuple):
    """Confidence interval; both ends are NaN where there is nothing to compute it from."""

    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


@dataclass(frozen=True)
class Proportion:
    """Mean of scores from 0 to 1 and how certain it is.

    Attributes:
        value: the mean.
        samples: number of right or wrong answers whose mean is as uncertain.
        by_document: by how much the samples about each document move the mean; empty where the
            documents are not known, or are a single one.
    """

    value: float
    samples: float
    by_document: Mapping[int, float] = field(default_factory=dict, compare=False)

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Return the interval of the mean, within 0 to 1."""
        if not (0 <= self.value <= 1 and self.samples > 0):
            return UNKNOWN
        # by symmetry the upper end of a share is the lower end of the rest
        return Interval(
            _wilson_low(self.value, self.samples, confidence),
            1 - _wilson_low(1 - self.value, self.samples, confidence),
        )


def percent_interval(proportion: Proportion, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of a proportion in percent."""
    low, high = proportion.interval(confidence)
    return Interval(100 * low, 100 * high)


def _wilson_low(share: float, samples: float, confidence: float) -> float:
    share -= CONTINUITY / samples
    if share <= 0:
        return 0.0
    ratio = NormalDist().inv_cdf((1 + confidence) / 2) ** 2 / samples
    root = math.sqrt(ratio * (share * (1 - share) + ratio / 4))
    return (share + ratio / 2 - root) / (1 + ratio)


def proportion_of_samples(
    value: float,
    influences: NDArray[np.float64],
    groups: Sequence[int] = (),
    documents: Sequence[int] = (),
) -> Proportion:
    """Return a score with its effective number of samples.

    Args:
        value: the score, from 0 to 1.
        influences: by how much each sample moves the score, times the number of samples; for a mean
            each sample's deviation from it.
        groups: group of each sample, such as its document; empty where each stands alone.
        documents: document of each sample, also where each has its own; empty where not known.
    """
    n = len(influences)
    right_or_wrong = value * (1 - value) * n
    spread = float(np.sum(influences**2))
    # the variance relative to that of right or wrong answers, which have the largest of all
    share = spread / right_or_wrong if right_or_wrong > ROUNDING else 1.0
    share = ((n - 1) * share + CAUTIOUS_SAMPLES) / (n - 1 + CAUTIOUS_SAMPLES)
    by_document: dict[int, float] = {}
    for document, influence in zip(documents, influences.tolist(), strict=False):
        by_document[document] = by_document.get(document, 0.0) + influence / n
    return Proportion(value, n / (share * _design_effect(influences, groups)), by_document)


def _design_effect(
    influences: NDArray[np.float64], groups: Sequence[int], without_spread: float | None = None
) -> float:
    """Return how many times the variance is that of samples that stand alone, at least 1.

    Args:
        influences: by how much each sample moves the score.
        groups: group of each sample; empty where each stands alone.
        without_spread: what it is taken for where no sample moves the score; by default what it is
            if all samples of a group are alike.
    """
    if not len(groups):
        return 1.0
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, weights=influences)
    sizes = np.bincount(index)
    # what the effect is if all samples of a group are alike
    largest = float(np.sum(sizes**2)) / len(influences)
    # groups minus one, since the mean that the influences are relative to is estimated
    known = len(sums) - 1
    effect = without_spread or largest
    spread = float(np.sum(influences**2))
    if spread > ROUNDING:
        effect = float(np.sum(sums**2)) / spread * len(sums) / max(1, known)
    return max(1.0, (known * effect + CAUTIOUS_GROUPS * largest) / (known + CAUTIOUS_GROUPS))


def average(weights: Sequence[float], parts: Sequence[Proportion]) -> Proportion:
    """Return the weighted mean of proportions, such as the tasks of a benchmark.

    They are independent but for documents that several of them share. Each is drawn towards the
    mean with the weight of one sample before its variance is computed: a task without a wrong
    answer is not without variance.
    """
    weight = np.array(weights) / math.fsum(weights)
    values = np.array([part.value for part in parts])
    overlap = _overlap(weights, parts)
    samples = np.array([part.samples / (overlap if part.by_document else 1) for part in parts])
    mean = min(1.0, max(0.0, float(weight @ values)))
    shares = weight**2 / samples
    if mean * (1 - mean) <= ROUNDING:
        return Proportion(mean, 1 / float(np.sum(shares)))
    drawn = (samples * values + mean) / (samples + 1)
    return Proportion(mean, mean * (1 - mean) / float(np.sum(shares * drawn * (1 - drawn))))


def _overlap(weights: Sequence[float], parts: Sequence[Proportion]) -> float:
    """Return how many times the variance is that of parts that share no document, at least 1."""
    influences: list[float] = []
    documents: list[int] = []
    for weight, part in zip(weights, parts, strict=True):
        influences += [weight * influence for influence in part.by_document.values()]
        documents += part.by_document
    # of a single document nothing tells how another would do
    if len(set(documents)) in (1, len(documents)):
        return 1.0
    # an average without a wrong answer is not less certain than one with a few
    return _design_effect(np.array(influences), documents, without_spread=1.0)


def log_interval(
    value: float, logarithms: NDArray[np.float64], confidence: float = CONFIDENCE
) -> Interval:
    """Return Student's t interval of a positive score on the logarithmic scale, by the jackknife.

    There is none for fewer than two units, for units that are all alike, and for infinite losses.

    Args:
        value: the score.
        logarithms: logarithm of the score without each of its independent units.
        confidence: the coverage that is sought.
    """
    from scipy.special import stdtrit  # imported here, since importing it takes time

    n = len(logarithms)
    if n < 2 or not np.isfinite(logarithms).all():
        return UNKNOWN
    error = math.sqrt((n - 1) * float(np.var(logarithms)))
    if error**2 <= ROUNDING:
        return UNKNOWN
    with np.errstate(over="ignore"):
        factor = float(np.exp(stdtrit(n - 1, (1 + confidence) / 2) * error))
    return Interval(value / factor, value * factor)


def weighted_ends(weights: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """Return the interval of a weighted mean of scores whose errors may go together.

    Such are the scores of a task at several lengths, where the samples ask the same questions.
    """
    lows, highs = zip(*intervals, strict=True)
    return Interval(
        math.fsum(weight * low for weight, low in zip(weights, lows, strict=True)),
        math.fsum(weight * high for weight, high in zip(weights, highs, strict=True)),
    )
