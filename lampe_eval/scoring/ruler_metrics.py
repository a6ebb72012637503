"""RULER: the share of expected strings that occur in a prediction; QA counts any one of them.

Sources: arXiv 2404.06654 and ``scripts/eval/synthetic/constants.py`` of NVIDIA/RULER at c3f5e3b. LaMPE and STRING score
alike, but print fractions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

Metric = Callable[[str, Sequence[str]], float]

LLAMA2_AT_4K = 85.6
"""What a length has to score to count as effective: as much as Llama-2-7B at 4K."""


def clean(prediction: str) -> str:
    """Stripped text with newlines for control characters."""
    return re.sub(r"[\x00-\x1f]", "\n", prediction.strip()).strip()


def match_all(prediction: str, references: Sequence[str]) -> float:
    """Share of the references that occur in the prediction in any case, inside other words too."""
    text = prediction.lower()
    return sum(reference.lower() in text for reference in references) / len(references)


def match_part(prediction: str, references: Sequence[str]) -> float:
    """1 where any reference occurs in the prediction in any case, else 0."""
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
    """Score of a prediction, from 0 to 1; ``extras`` go unused."""
    return METRICS[task](clean(prediction), references)


def average(results: Mapping[str, float]) -> float:
    """Plain mean over tasks at one length, the paper's average of 13."""
    return fmean(results.values())


def weighted_average(averages: Mapping[int, float], *, rising: bool) -> float:
    """The paper's wAvg over lengths: weights 1, 2, 3 and on from the shortest if rising, else from the longest."""
    lengths = sorted(averages, reverse=not rising)
    return fmean([averages[length] for length in lengths], weights=range(1, len(lengths) + 1))


def effective_length(averages: Mapping[int, float], threshold: float = LLAMA2_AT_4K) -> int:
    """The longest length whose average reaches the threshold, 0 if none does."""
    return max((length for length, value in averages.items() if value >= threshold), default=0)
