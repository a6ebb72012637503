"""Effective length: the longest length up to which a method still does what it can.

A method's base score is what it reaches where length is no difficulty, and it keeps its score at
every length at which it has 85 % of its base (NoLiMa, arXiv 2502.05167). Their base lengths are 250
to 1,000 tokens. Here they are the lengths up to a quarter of the window, or the shortest one where
a benchmark has none of these, and the base is the best score there. A perplexity keeps its score up
to base / 0.85, and a share of errors as the share without errors does.

NoLiMa and RULER say the longest length at which a score is kept. A method that loses it at 8K and
has it again at 16K is no method for prompts of up to 16K, so here the score has to be kept at every
length from the base's on; a length at which it is kept again is stated beside it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from lampe_eval.scoring.estimates import Scale

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
    """Longest length up to which a score is kept, of the lengths that were run.

    Attributes:
        length: in tokens; 0 where no score is kept.
        low: the longest length up to which the score is shown to be kept, or 0.
        high: the longest length up to which it is not shown to be lost, or 0.
        longest: the longest length that was run: the true effective length may be beyond it.
        again: the longest length at which the score is kept after it was lost at a shorter one; 0
            where there is none.
    """

    length: int
    low: int
    high: int
    longest: int
    again: int = 0


def base_lengths(lengths: Collection[int], window: int) -> list[int]:
    """Return the lengths of a benchmark that base scores are taken from.

    Args:
        lengths: the lengths in tokens.
        window: tokens of pretraining.
    """
    return sorted(n for n in lengths if n <= window / BASE_PART_OF_WINDOW) or [min(lengths)]


def relative_effective_length(
    scores: Mapping[int, ScoreAtLength],
    *,
    bases: Collection[int],
    scale: Scale,
    higher_is_better: bool,
) -> EffectiveLength | None:
    """Return the longest length up to which a method keeps `SHARE` of its own base score.

    Whether it is shown follows from both intervals, the score's and the base's (MOVER, Zou and
    Donner 2008). A base of zero keeps nothing.

    Args:
        scores: scores by length in tokens.
        bases: lengths that the base score may be taken from, as `base_lengths` returns them.
        scale: whether scores are percentages, or compared by their logarithm as perplexities are.
        higher_is_better: whether a higher score is better.

    Returns:
        None where no score, or nothing but one base score, is known.
    """
    known = sorted(length for length in bases if length in scores)
    if not known or len(scores) < 2:
        return None
    is_percent = scale == "percent"
    if is_percent != higher_is_better:
        mirrored = _complement if is_percent else _reciprocal
        scores = {length: mirrored(score) for length, score in scores.items()}
    best = max if is_percent else min
    base_length = best(known, key=lambda length: scores[length].value)
    base = scores[base_length]
    if is_percent and base.value <= 0:
        return EffectiveLength(0, 0, 0, max(scores))
    margin_of = _share_margin if is_percent else _ratio_margin
    margins = {n: margin_of(score, base) for n, score in scores.items() if n >= base_length}
    # the same samples: no error of the base can part it from itself
    of_base = margins[base_length].value
    margins[base_length] = ScoreAtLength(of_base, of_base, of_base)
    return _longest(margins)


def absolute_effective_length(
    scores: Mapping[int, ScoreAtLength], threshold: float
) -> EffectiveLength:
    """Return the longest length up to which a score reaches a threshold, such as RULER's 85.6.

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
    """Return the longest lengths up to which a margin is zero or more."""
    lengths = sorted(margins)
    kept = [length for length in lengths if margins[length].value >= 0]
    longest_kept = _unbroken(lengths, kept)
    return EffectiveLength(
        length=longest_kept,
        low=_unbroken(lengths, [length for length in lengths if margins[length].low >= 0]),
        # without an interval nothing is shown, neither that it is kept nor that it is lost
        high=_unbroken(lengths, [length for length in lengths if not margins[length].high < 0]),
        longest=lengths[-1],
        again=kept[-1] if kept and kept[-1] > longest_kept else 0,
    )


def _unbroken(lengths: Sequence[int], kept: Sequence[int]) -> int:
    """Return the last of the lengths before the first one that is not kept; 0 if that is none."""
    return max(takewhile(lambda length: length in kept, lengths), default=0)


def _complement(score: ScoreAtLength) -> ScoreAtLength:
    """Return the share without errors of a share of errors, in percent."""
    return ScoreAtLength(100 - score.value, 100 - score.high, 100 - score.low)


def _reciprocal(score: ScoreAtLength) -> ScoreAtLength:
    """Return a score of which more is better as one of which less is, as perplexity."""
    inverse = [1 / end if end else math.inf for end in (score.value, score.high, score.low)]
    return ScoreAtLength(*inverse)


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
