"""Scores as programs report and round them, with the intervals of what they are computed from."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from lampe_eval.scoring.estimates import Estimate
from lampe_eval.scoring.intervals import UNKNOWN, Interval, Proportion, average, percent_interval
from lampe_eval.scoring.text_metrics import percent

ROUNDING = 1e-9
"""Percent by which a score may pass 100 or 0 because it is a sum of fractions."""


class ReportedScore(NamedTuple):
    """Score as it is reported.

    Attributes:
        value: the number, rounded as its program rounds it.
        interval: its 95 % interval; both ends are NaN where nothing says how certain it is.
        proportion: the score as a proportion, if it is one.
    """

    value: float
    interval: Interval = UNKNOWN
    proportion: Proportion | None = None


NO_SCORE = ReportedScore(math.nan)

ReportedScores = dict[str, ReportedScore]
"""Numbers of a task by name, the headline first."""


def reported_score(estimate: Estimate, value: float | None = None) -> ReportedScore:
    """Return a score with its interval.

    Numbers outside 0 to 100, such as differences and lengths, have none.

    Args:
        estimate: what it is computed from.
        value: the number where it is rounded; by default that of the estimate.
    """
    value = estimate.value if value is None else value
    if estimate.scale != "percent":
        return ReportedScore(value, estimate.interval())
    if estimate.parts.min() < -ROUNDING or estimate.parts.max() > 100 + ROUNDING:
        return ReportedScore(value)
    return ReportedScore(value, estimate.interval(), estimate.proportion)


def mean_percent(scores: Sequence[float], value: float) -> ReportedScore:
    """Return the mean of scores from 0 to 1 in percent.

    Args:
        scores: the scores; there may be none.
        value: the number as its program rounds it.
    """
    if not scores:
        return ReportedScore(value)
    return reported_score(Estimate.mean([100 * score for score in scores]), value)


def percentages(scores_by_name: Mapping[str, Sequence[float]]) -> ReportedScores:
    """Return the mean of each group of scores in percent, to two decimals; NaN for an empty one."""
    return {name: mean_percent(scores, percent(scores)) for name, scores in scores_by_name.items()}


def mean_score(scores: Sequence[ReportedScore]) -> ReportedScore:
    """Return the plain mean of independent scores, such as those of tasks.

    It has no interval where one of them is no proportion: the mean of perplexities is no score.
    """
    value = fmean(score.value for score in scores)
    proportions = [score.proportion for score in scores if score.proportion is not None]
    if len(proportions) < len(scores):
        return ReportedScore(value)
    mean = average([1.0] * len(proportions), proportions)
    return ReportedScore(value, percent_interval(mean), mean)
