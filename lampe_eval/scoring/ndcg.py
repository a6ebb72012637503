"""Normalised discounted cumulative gain of a ranking, as trec_eval computes it."""

from collections.abc import Mapping
from math import log2


def ndcg(scores: Mapping[str, int], relevance: Mapping[str, int], ranks: int) -> float:
    """Return the normalised discounted cumulative gain of a ranking, with linear gain.

    Args:
        scores: score of each ranked item; the highest comes first.
        relevance: relevance of each judged item; others have none.
        ranks: number of ranks that count.
    """
    ranked = sorted(scores, key=lambda item: scores[item], reverse=True)
    best = _gain(sorted(relevance.values(), reverse=True)[:ranks])
    return _gain([relevance.get(item, 0) for item in ranked[:ranks]]) / best if best else 0.0


def _gain(relevances: list[int]) -> float:
    return sum(value / log2(rank + 1) for rank, value in enumerate(relevances, 1))
