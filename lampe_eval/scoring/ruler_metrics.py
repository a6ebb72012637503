"""RULER's metrics: share of expected strings in a prediction; QA counts any one of them.

Sources: arXiv 2404.06654 and `scripts/eval/synthetic/constants.py` of NVIDIA/RULER at c3f5e3b.
LaMPE and STRING score alike, but print fractions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

Metric = Callable[[str, Sequence[str]], float]

# The paper calls a length effective where a model scores as much as Llama-2-7B does at 4K.
LLAMA2_AT_4K = 85.6


def clean(prediction: str) -> str:
    """Return a stripped prediction with newlines in place of control characters."""
    return re.sub(r"[\x00-\x1f]", "\n", prediction.strip()).strip()


def match_all(prediction: str, references: Sequence[str]) -> float:
    """Return the share of the references in the prediction, in any case, inside words as well."""
    text = prediction.lower()
    return sum(reference.lower() in text for reference in references) / len(references)


def match_part(prediction: str, references: Sequence[str]) -> float:
    """Return 1 if any reference is in the prediction, in any case, inside words as well."""
    text = prediction.lower()
    return float(any(reference.lower() in text for reference in references))


METRICS: dict[str, Metric] = {
    "niah_single_1": match_all,
    "niah_single_2": match_all,
    "niah_single_3": match_all,
    "niah_multikey_1": match_all,
    "niah_multikey_2": match_all,
    "niah_multikey_3": match_all,
    "niah_multivalue": match_all,
    "niah_multiquery": match_all,
    "vt": match_all,
    "cwe": match_all,
    "fwe": match_all,
    "qa_1": match_part,
    "qa_2": match_part,
}


def score(
    task: str, prediction: str, references: Sequence[str], extras: Mapping[str, Any]
) -> float:
    """Return the score of a prediction, from 0 to 1.

    Args:
        task: name of the task.
        prediction: the answer.
        references: the expected strings.
        extras: not used; scorers of all benchmarks have the same arguments.
    """
    return METRICS[task](clean(prediction), references)


def average(results: Mapping[str, float]) -> float:
    """Return the plain mean over tasks at one length: the paper's average of 13."""
    return fmean(results.values())


def weighted_average(averages: Mapping[int, float], *, rising: bool) -> float:
    """Return the paper's wAvg over lengths.

    Args:
        averages: the average over tasks at each length.
        rising: whether the weights 1, 2, 3 and so on begin at the shortest length instead of the
            longest.
    """
    lengths = sorted(averages, reverse=not rising)
    return fmean([averages[length] for length in lengths], weights=range(1, len(lengths) + 1))


def effective_length(averages: Mapping[int, float]) -> int:
    """Return the longest length whose average reaches `LLAMA2_AT_4K`, or 0."""
    return max((length for length, value in averages.items() if value >= LLAMA2_AT_4K), default=0)
