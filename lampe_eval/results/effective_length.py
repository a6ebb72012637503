"""Effective length: the longest length at which a method still does what it can.

A method's base score is what it reaches where length is no difficulty, and it keeps its score at
every length at which it has 85 % of its base (NoLiMa, arXiv 2502.05167). Their base lengths are 250
to 1,000 tokens. Here they are the lengths up to a quarter of the window, or the shortest one where
a run has none of these, and the base is the best score there. A perplexity keeps its score up to
base / 0.85.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

SHARE = 0.85
"""Part of the base score that has to be kept."""
BASE_PART_OF_WINDOW = 4
"""The base lengths are up to the window divided by this."""


@dataclass(frozen=True)
class ScoreAtLength:
    """Score with the ends of its 95 % interval, which are NaN where it has none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EffectiveLength:
    """Longest length at which a score is kept, of the lengths that were run.

    Attributes:
        length: in tokens; 0 where no score is kept.
        low: the longest length at which the score is shown to be kept, or 0.
        high: the longest length at which it is not shown to be lost, or 0.
        longest: the longest length that was run: the true effective length may be beyond it.
    """

    length: int
    low: int
    high: int
    longest: int


def relative_effective_length(
    scores: Mapping[int, ScoreAtLength], *, window: int, higher_is_better: bool
) -> EffectiveLength:
    """Return the longest length at which a method keeps `SHARE` of its own base score.

    Whether it is shown follows from both intervals, the score's and the base's (MOVER, Zou and
    Donner 2008). A base of zero keeps nothing.

    Args:
        scores: scores by length in tokens.
        window: tokens of pretraining.
        higher_is_better: whether a higher score is better; else scores are perplexities.
    """
    shortest = min(scores)
    base_lengths = [n for n in scores if n <= window / BASE_PART_OF_WINDOW] or [shortest]
    best = max if higher_is_better else min
    base_length = best(sorted(base_lengths), key=lambda length: scores[length].value)
    base = scores[base_length]
    margins: dict[int, ScoreAtLength] = {}
    for length, score in scores.items():
        margin = _share_margin(score, base) if higher_is_better else _ratio_margin(score, base)
        if length == base_length:
            # the same samples: no error of the base can part it from itself
            margin = ScoreAtLength(margin.value, margin.value, margin.value)
        margins[length] = margin
    if higher_is_better and base.value <= 0:
        return EffectiveLength(0, 0, 0, max(scores))
    return _longest(margins)


def absolute_effective_length(
    scores: Mapping[int, ScoreAtLength], threshold: float
) -> EffectiveLength:
    """Return the longest length at which a score reaches a threshold, such as RULER's 85.6.

    Args:
        scores: scores by length in tokens; higher is better.
        threshold: the score to reach.
    """
    return _longest(
        {
            length: ScoreAtLength(
                score.value - threshold, score.low - threshold, score.high - threshold
            )
            for length, score in scores.items()
        }
    )


def _longest(margins: Mapping[int, ScoreAtLength]) -> EffectiveLength:
    """Return the longest lengths at which a margin is zero or more."""

    def longest(kept: list[int]) -> int:
        return max(kept, default=0)

    return EffectiveLength(
        length=longest([length for length, margin in margins.items() if margin.value >= 0]),
        low=longest([length for length, margin in margins.items() if margin.low >= 0]),
        # without an interval nothing is shown, neither that it is kept nor that it is lost
        high=longest([length for length, margin in margins.items() if not margin.high < 0]),
        longest=max(margins),
    )


def _share_margin(score: ScoreAtLength, base: ScoreAtLength) -> ScoreAtLength:
    """Return by how much a score exceeds `SHARE` of its base."""
    margin = score.value - SHARE * base.value
    below = math.hypot(score.value - score.low, SHARE * (base.high - base.value))
    above = math.hypot(score.high - score.value, SHARE * (base.value - base.low))
    return ScoreAtLength(margin, margin - below, margin + above)


def _ratio_margin(score: ScoreAtLength, base: ScoreAtLength) -> ScoreAtLength:
    """Return by how much a perplexity is below its base over `SHARE`, as a logarithm."""
    margin = _log(base.value) - _log(score.value) - math.log(SHARE)
    below = math.hypot(_log(score.high) - _log(score.value), _log(base.value) - _log(base.low))
    above = math.hypot(_log(score.value) - _log(score.low), _log(base.high) - _log(base.value))
    return ScoreAtLength(margin, margin - below, margin + above)


def _log(value: float) -> float:
    # a perplexity may be infinite, and is never below 1
    return math.log(value) if value > 0 else math.nan
