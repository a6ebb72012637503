"""LongBench: one metric a task; a sample counts its best reference; a task is the mean in percent, to two decimals.

Sources: arXiv 2308.14508 with ``metrics.py`` and ``eval.py``, and for v2 arXiv 2412.15204 with ``pred.py`` and
``result.py``, all of THUDM/LongBench at 2e00731. Where upstream's code surprises, its numbers are kept, and the
docstring says how.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import fmean
from typing import Any

from lampe_eval.scoring.text_metrics import (
    bag_f1,
    bands,
    normalize_zh,
    percent,
    rouge_l,
    token_f1,
    words_zh,
)

Metric = Callable[..., float]


def token_f1_zh(prediction: str, reference: str) -> float:
    """F1 of the words that jieba cuts, each normalised, empty ones dropped."""
    predicted, expected = (
        [normalize_zh(word) for word in words_zh(text)] for text in (prediction, reference)
    )
    return bag_f1([word for word in predicted if word], [word for word in expected if word])


def rouge_l_zh(prediction: str, reference: str) -> float:
    """ROUGE-L of the words that jieba cuts."""
    return rouge_l(" ".join(words_zh(prediction)), " ".join(words_zh(reference)))


def classification(prediction: str, reference: str, classes: Sequence[str]) -> float:
    """One over the number of classes that the prediction names, if the right one is among them.

    Names that are part of the right name do not count, or would not, had upstream not deleted from the list that it
    walks: after each deletion it skips one. So ``abc`` of the classes ``a``, ``ab``, ``abc`` scores 0.5.
    """
    named = [name for name in classes if name in prediction]
    for name in named:
        if name in reference and name != reference:
            named.remove(name)
    return 1 / len(named) if reference in named else 0.0


def count(prediction: str, reference: str) -> float:
    """Share of the numbers in the prediction that are written as the reference is."""
    numbers = re.findall(r"\d+", prediction)
    return numbers.count(reference) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, reference: str) -> float:
    """Share of the numbers in the prediction that are the paragraph's."""
    return count(prediction, re.findall(r"Paragraph (\d+)", reference)[0])


def retrieval_zh(prediction: str, reference: str) -> float:
    """Share of the numbers in the prediction that are the Chinese paragraph's."""
    return count(prediction, re.findall(r"段落(\d+)", reference)[0])


def code_similarity(prediction: str, reference: str) -> float:
    """Similarity of the first line that is code: the first without a backtick, ``#`` or ``//``.

    It is fuzzywuzzy's ratio in whole percent over difflib. Beside python-Levenshtein fuzzywuzzy gives other numbers
    (LongAlpaca on lcc: 59.82 for 57.61), and so does rapidfuzz; published ones are difflib's.
    """
    lines = prediction.lstrip("\n").split("\n")
    line = next((line for line in lines if not re.search("[`#]|//", line)), "")
    return (
        1.0
        if line == reference
        else round(100 * SequenceMatcher(None, line, reference).ratio()) / 100
    )


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

FIRST_LINE = frozenset({"trec", "triviaqa", "samsum", "lsht"})
"""Few-shot tasks, where a model goes on with examples of its own."""

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
    """Score of a prediction against its best reference, from 0 to 1.

    Of a few-shot task only the first line counts. Nothing but newlines is stripped before it, so that a prediction that
    begins with a space and a newline has an empty first line and scores 0.

    Args:
        extras: ``all_classes`` for trec and lsht, as the data has it.
    """
    if task in FIRST_LINE:
        prediction = prediction.lstrip("\n").split("\n")[0]
    metric = METRICS[task]
    classes = {"classes": extras["all_classes"]} if metric is classification else {}
    return max((metric(prediction, reference, **classes) for reference in references), default=0.0)


def by_length(scores: Iterable[float], lengths: Iterable[int]) -> dict[str, float]:
    """LongBench-E: percentages in three bands of a sample's ``length`` in words; NaN where a band is empty."""
    return {band: percent(values) for band, values in bands(scores, lengths, 4000, 8000).items()}


def flat_mean(results: Mapping[str, float]) -> float:
    """Mean over tasks to four decimals, as LaMPE averages (scar-on/LaMPE, ``eval.py``)."""
    return round(fmean(results.values()), 4)


def category_mean(results: Mapping[str, float], *, chinese: bool = False) -> float:
    """Mean over categories of the mean over their tasks, as the paper averages; categories without a task are left out.

    English and Chinese are averaged apart, and code counts in both. NaN where there is nothing to average.
    """
    code = CATEGORIES["code"]
    wanted = {
        task: value
        for task, value in results.items()
        if task in code or (task in CHINESE) == chinese
    }
    groups = [[wanted[task] for task in tasks if task in wanted] for tasks in CATEGORIES.values()]
    means = [fmean(group) for group in groups if group]
    return fmean(means) if means else math.nan


@dataclass(frozen=True)
class Verdict:
    """A judged question of LongBench v2.

    Attributes:
        credit: as ``credit`` gives it.
        difficulty: ``easy`` or ``hard``.
        length: ``short``, ``medium`` or ``long``.
    """

    credit: float
    difficulty: str
    length: str


def choice(prediction: str) -> str | None:
    """LongBench v2: the letter that the prediction calls correct, in the wording that its prompt asks for."""
    text = prediction.replace("*", "")
    found = re.search(r"The correct answer is \(([A-D])\)", text) or re.search(
        r"The correct answer is ([A-D])", text
    )
    return found and found[1]


def credit(prediction: str, answer: str, *, compensated: bool = False) -> float:
    """LongBench v2: 1 for the right letter; for none 0, or 0.25 where ``compensated`` for a guess that was not made."""
    letter = choice(prediction)
    return 0.25 if letter is None and compensated else float(letter == answer)


def report(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """LongBench v2: accuracy in percent to one decimal, overall, by difficulty, by length; NaN where there is none."""
    groups = {"overall": list(verdicts)}
    groups |= {level: [v for v in verdicts if v.difficulty == level] for level in ("easy", "hard")}
    groups |= {
        length: [v for v in verdicts if v.length == length]
        for length in ("short", "medium", "long")
    }
    return {name: _accuracy(group) for name, group in groups.items()}


def _accuracy(verdicts: Sequence[Verdict]) -> float:
    return round(100 * fmean(v.credit for v in verdicts), 1) if verdicts else math.nan
