"""LongBench Pro's metrics that need no model: lines of the answer, compared with the right lines.

Source: `LongBench-Pro/modules` of caskcsg/longcontext at 88fbeb8. Summaries are compared by an
embedding model, so that their two tasks are not here.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from lampe_eval.scoring.graphwalks_metrics import set_f1
from lampe_eval.scoring.ndcg import ndcg

MARKERS = ("[Answer]", "[答案]")
"""Texts before the answer; the second counts only where the first is missing."""

Lines = Sequence[str]


def score(metric: str, prediction: str, references: Sequence[str]) -> float:
    """Return the score of a prediction by the metric of a task.

    Args:
        metric: a name in `METRICS`.
        prediction: the answer.
        references: the right lines, in their order.
    """
    # Upstream strips an answer when it comes, and gives an empty one 0 before any metric.
    if not prediction.strip():
        return 0.0
    return METRICS[metric](answer_lines(prediction), [_normalized(line) for line in references])


def answer_lines(prediction: str) -> list[str]:
    """Return the normalised lines after the last marker, or all lines without one.

    A blank line counts as a line.
    """
    for marker in MARKERS:
        if marker in prediction:
            prediction = prediction.rpartition(marker)[2]
            break
    return [_normalized(line) for line in prediction.strip().split("\n")]


def _normalized(line: str) -> str:
    return " ".join(line.lower().split())


def accuracy(predicted: Lines, expected: Lines) -> float:
    """Return whether the first lines are equal."""
    return float(bool(expected) and predicted[0] == expected[0])


def lines_f1(predicted: Lines, expected: Lines) -> float:
    """Return the F1 score of the sets of lines."""
    return set_f1(set(predicted), set(expected))


def share_found(predicted: Lines, expected: Lines) -> float:
    """Return the share of the right lines that are there."""
    return sum(line in predicted for line in expected) / len(expected) if expected else 0.0


def ranking(predicted: Lines, expected: Lines) -> float:
    """Return NDCG of the lines as a ranking, at as many ranks as there are right lines."""
    relevance = {line: len(expected) - place for place, line in enumerate(expected)}
    scores = {line: len(predicted) - place for place, line in enumerate(predicted)}
    return ndcg(scores, relevance, len(expected))


def pair_order(predicted: Lines, expected: Lines) -> float:
    """Return the pairs in the right order, as a share of all pairs of predicted lines."""
    if len(expected) < 2 or len(predicted) < 2:
        return 0.0
    places = {line: place for place, line in enumerate(predicted)}
    pairs = combinations([line for line in expected if line in places], 2)
    ordered = sum(places[first] < places[second] for first, second in pairs)
    return ordered / (len(predicted) * (len(predicted) - 1) // 2)


METRICS: Mapping[str, Callable[[Lines, Lines], float]] = {
    "Accuracy": accuracy,
    "F1_Score": lines_f1,
    "SubEM": share_found,
    "NDCG": ranking,
    "Pairwise_Accuracy": pair_order,
}
"""Metrics by upstream's names."""
