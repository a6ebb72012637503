"""LongBench's metrics: one metric per task, the best reference per sample, means in percent.

Sources: arXiv 2308.14508 with `metrics.py` and `eval.py`, and for v2 arXiv 2412.15204 with
`pred.py` and `result.py`, all of THUDM/LongBench at 2e00731. Published numbers contain the quirks
of that code, so they are reproduced here; comments mark them.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import fmean
from typing import Any, TypeVar

from lampe_eval.scoring.text_metrics import (
    bag_f1,
    bands,
    normalize_zh,
    percent,
    rouge_l,
    token_f1,
    words_zh,
)

T = TypeVar("T")

Metric = Callable[..., float]


def token_f1_zh(prediction: str, reference: str) -> float:
    """Return the F1 score of the words that jieba finds, normalised, without empty ones."""
    return bag_f1(_normalized_words_zh(prediction), _normalized_words_zh(reference))


def _normalized_words_zh(text: str) -> list[str]:
    words = [normalize_zh(word) for word in words_zh(text)]
    return [word for word in words if word]


def rouge_l_zh(prediction: str, reference: str) -> float:
    """Return ROUGE-L of the words that jieba finds."""
    return rouge_l(" ".join(words_zh(prediction)), " ".join(words_zh(reference)))


def classification(prediction: str, reference: str, classes: Sequence[str]) -> float:
    """Return 1 / (number of classes named in the prediction) if the right one is named, else 0.

    A class whose name is part of the right name is not meant to count.
    """
    named = [name for name in classes if name in prediction]
    # metrics.py removes from the list it iterates over, and so skips the name after each removed
    # one: `abc` of the classes `a`, `ab`, `abc` scores 0.5.
    for name in named:
        if name in reference and name != reference:
            named.remove(name)
    return 1 / len(named) if reference in named else 0.0


def count(prediction: str, reference: str | int) -> float:
    """Return the share of the numbers in the prediction that are written like the reference.

    metrics.py compares both as text, so a reference may be a number.
    """
    numbers = re.findall(r"\d+", prediction)
    return numbers.count(str(reference)) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, reference: str) -> float:
    """Return the share of the numbers in the prediction that are the paragraph's number."""
    return count(prediction, re.findall(r"Paragraph (\d+)", reference)[0])


def retrieval_zh(prediction: str, reference: str) -> float:
    """Return the share of the numbers in the prediction that are the Chinese paragraph's number."""
    return count(prediction, re.findall(r"段落(\d+)", reference)[0])


def code_similarity(prediction: str, reference: str) -> float:
    """Return the similarity of the prediction's first line of code and the reference.

    The first line of code is the first one without a backtick, `#` or `//`.
    """
    lines = prediction.lstrip("\n").split("\n")
    line = next((line for line in lines if not re.search("[`#]|//", line)), "")
    if line == reference:
        return 1.0
    # fuzzywuzzy's ratio, in whole percent, over difflib. If python-Levenshtein is installed,
    # fuzzywuzzy gives other numbers (LongAlpaca on lcc: 59.82 instead of 57.61), and so does
    # rapidfuzz; the published ones are difflib's.
    return round(100 * SequenceMatcher(None, line, reference).ratio()) / 100


METRICS: dict[str, Metric] = {
    "narrativeqa": token_f1,
    "qasper": token_f1,
    "multifieldqa_en": token_f1,
    "multifieldqa_zh": token_f1_zh,
    "hotpotqa": token_f1,
    "2wikimqa": token_f1,
    "musique": token_f1,
    "dureader": rouge_l_zh,
    "gov_report": rouge_l,
    "qmsum": rouge_l,
    "multi_news": rouge_l,
    "vcsum": rouge_l_zh,
    "trec": classification,
    "triviaqa": token_f1,
    "samsum": rouge_l,
    "lsht": classification,
    "passage_count": count,
    "passage_retrieval_en": retrieval,
    "passage_retrieval_zh": retrieval_zh,
    "lcc": code_similarity,
    "repobench-p": code_similarity,
}

# In few-shot tasks models continue with examples of their own, so eval.py scores the first line.
FIRST_LINE_TASKS = frozenset({"trec", "triviaqa", "samsum", "lsht"})

# The paper's categories; the code tasks count for English and for Chinese.
CATEGORIES: dict[str, tuple[str, ...]] = {
    "single-document QA": ("narrativeqa", "qasper", "multifieldqa_en", "multifieldqa_zh"),
    "multi-document QA": ("hotpotqa", "2wikimqa", "musique", "dureader"),
    "summarisation": ("gov_report", "qmsum", "multi_news", "vcsum"),
    "few-shot": ("trec", "triviaqa", "samsum", "lsht"),
    "synthetic": ("passage_count", "passage_retrieval_en", "passage_retrieval_zh"),
    "code": ("lcc", "repobench-p"),
}

CHINESE = frozenset({"multifieldqa_zh", "dureader", "vcsum", "lsht", "passage_retrieval_zh"})


def score(
    task: str, prediction: str, references: Sequence[str], extras: Mapping[str, Any]
) -> float:
    """Return the score of a prediction against its best reference, from 0 to 1.

    Args:
        task: name of the task.
        prediction: the answer; in few-shot tasks only its first line counts.
        references: the references.
        extras: `all_classes` for trec and lsht, as the data has it.
    """
    if task in FIRST_LINE_TASKS:
        # eval.py strips newlines only: a space before the first newline is an empty first line,
        # which scores 0.
        prediction = prediction.lstrip("\n").split("\n")[0]
    metric = METRICS[task]
    classes = {"classes": extras["all_classes"]} if metric is classification else {}
    return max((metric(prediction, reference, **classes) for reference in references), default=0.0)


def by_length(scores: Iterable[float], lengths: Iterable[int]) -> dict[str, float]:
    """Return LongBench-E's percentages in three bands of length; NaN for an empty band.

    Args:
        scores: scores from 0 to 1.
        lengths: the data's `length` of each sample: words, or characters of Chinese.
    """
    return {band: percent(values) for band, values in length_bands(scores, lengths).items()}


def length_bands(items: Iterable[T], lengths: Iterable[int]) -> dict[str, list[T]]:
    """Return scores or samples by LongBench-E's bands of length."""
    return bands(items, lengths, 4000, 8000)


def flat_mean(results: Mapping[str, float]) -> float:
    """Return the mean over tasks to four decimals, as `eval.py` of scar-on/LaMPE does."""
    return round(fmean(results.values()), 4)


def category_mean(results: Mapping[str, float], *, chinese: bool = False) -> float:
    """Return the mean over categories of the mean over their tasks, as the paper averages.

    Categories without a task are left out. English and Chinese have separate means, and the code
    tasks count in both.

    Args:
        results: the score of each task in percent.
        chinese: whether to return the Chinese mean.

    Returns:
        The mean, NaN if there is no task.
    """
    code = CATEGORIES["code"]
    of_language = {
        task: value
        for task, value in results.items()
        if task in code or (task in CHINESE) == chinese
    }
    means = []
    for tasks in CATEGORIES.values():
        values = [of_language[task] for task in tasks if task in of_language]
        if values:
            means.append(fmean(values))
    return fmean(means) if means else math.nan


@dataclass(frozen=True)
class JudgedAnswer:
    """Answer to a question of LongBench v2, judged.

    Attributes:
        score: as `choice_score` returns it.
        difficulty: `easy` or `hard`.
        length: `short`, `medium` or `long`.
    """

    score: float
    difficulty: str
    length: str


def chosen_letter(prediction: str) -> str | None:
    """Return the letter that a prediction of LongBench v2 calls correct, or None.

    Only the wording that the prompt asks for counts, with or without brackets.
    """
    text = prediction.replace("*", "")
    match = re.search(r"The correct answer is \(([A-D])\)", text)
    match = match or re.search(r"The correct answer is ([A-D])", text)
    return match and match[1]


def choice_score(prediction: str, answer: str, *, compensated: bool = False) -> float:
    """Return the score of an answer to a question of LongBench v2: 1 for the right letter.

    Args:
        prediction: the answer.
        answer: the right letter.
        compensated: whether an answer without a letter scores 0.25, as a guess would on average.
    """
    letter = chosen_letter(prediction)
    return 0.25 if letter is None and compensated else float(letter == answer)


def accuracies(answers: Sequence[JudgedAnswer]) -> dict[str, float]:
    """Return LongBench v2's accuracies in percent to one decimal, NaN for an empty group."""
    return {name: _accuracy(scores) for name, scores in scores_by_group(answers).items()}


def scores_by_group(answers: Sequence[JudgedAnswer]) -> dict[str, list[float]]:
    """Return the scores of all answers, of each difficulty and of each length."""
    groups = {"overall": [answer.score for answer in answers]}
    for difficulty in ("easy", "hard"):
        groups[difficulty] = [item.score for item in answers if item.difficulty == difficulty]
    for length in ("short", "medium", "long"):
        groups[length] = [item.score for item in answers if item.length == length]
    return groups


def _accuracy(scores: Sequence[float]) -> float:
    return round(100 * fmean(scores), 1) if scores else math.nan
