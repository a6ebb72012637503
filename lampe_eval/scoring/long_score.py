"""LongScore: the change of a score with the length, whatever it is at the shortest.

Source: uservan/100-LongBench at 1254aae.
"""

from collections.abc import Mapping
from statistics import fmean


def long_score(averages: Mapping[int, float]) -> dict[str, float]:
    """Return the mean change from the score at the shortest length, in percent of that score.

    Nothing is returned for a single length, or where that score is 0.

    Args:
        averages: the score at each length in tokens.
    """
    shortest, *longer = sorted(averages)
    base = averages[shortest]
    if not longer or not base:
        return {}
    changes = [(averages[length] - base) / base for length in longer]
    return {f"LongScore from {shortest}, percent": 100 * fmean(changes)}
