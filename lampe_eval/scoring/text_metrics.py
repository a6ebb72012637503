"""What several benchmarks score with: normalised words, the F1 of two bags of them, both kinds of ROUGE, percentages.

Two packages called ROUGE disagree by several points, so a number belongs to one of them: LongBench counts with
``rouge`` (here ``rouge_l``), L-Eval and InfiniteBench with ``rouge_score`` (here ``google_rouge``).
"""

import logging
import math
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

ARTICLES = re.compile(r"\b(a|an|the)\b")
MARKS = re.compile(f"[{re.escape(string.punctuation)}]")
MARKS_ZH = re.compile(
    f"[{re.escape(string.punctuation)}"
    "\uff01-\uff0d\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff64"  # full-width forms, but for the full-width full stop
    "\u3001-\u3003\u300b-\u3011\u3014-\u301f\u3030\u303e\u303f"  # Chinese marks, but for an opening 《
    "\u2013\u2014\u2018\u2019\u201b-\u201f\u2026\u2027\ufe4f]"  # dashes, quotes, dots
)
"""Marks that LongBench and InfiniteBench delete from Chinese text."""


def strip_marks(text: str) -> str:
    """Text without ASCII punctuation, lower-case articles and runs of space."""
    return " ".join(ARTICLES.sub(" ", MARKS.sub("", text)).split())


def normalize(text: str) -> str:
    """Lower-case text without punctuation, articles and runs of space, as answers are compared since SQuAD."""
    return strip_marks(text.lower())


def normalize_zh(text: str) -> str:
    """Lower-case text without ASCII and Chinese punctuation and without any space."""
    return "".join(MARKS_ZH.sub("", text.lower()).split())


def bag_f1(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of two multisets of tokens, 0 where they share none."""
    shared = sum((Counter(prediction) & Counter(reference)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(prediction), shared / len(reference)
    return 2 * precision * recall / (precision + recall)


def token_f1(prediction: str, reference: str) -> float:
    """F1 of normalised words. An answer of articles alone has none, and scores 0 even against itself."""
    return bag_f1(normalize(prediction).split(), normalize(reference).split())


def words_zh(text: str) -> list[str]:
    """Chinese text cut into words (jieba, precise mode), spaces and marks among them."""
    return _jieba_cut()(text)


@cache
def _jieba_cut() -> Callable[[str], list[str]]:
    """jieba's cutter, silenced: its import compiles outdated escapes, and it reports each load of its dictionary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jieba  # type: ignore[import-untyped]
    jieba.setLogLevel(logging.WARNING)
    cut: Callable[[str], list[str]] = jieba.lcut
    return cut


def google_rouge(
    kinds: Sequence[str], prediction: str, references: Sequence[str]
) -> dict[str, float]:
    """F-measures of ``rouge_score`` without stemming, each against its best reference.

    Args:
        kinds: of ``rouge1``, ``rouge2``, ``rougeL`` and ``rougeLsum``; the last takes lines for sentences.
    """
    scores = _scorer(tuple(kinds)).score_multi(references, prediction)
    return {kind: scores[kind].fmeasure for kind in kinds}


@cache
def _scorer(kinds: tuple[str, ...]) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    return RougeScorer(kinds, use_stemmer=False)


def rouge_l(prediction: str, reference: str) -> float:
    """Summary-level ROUGE-L F of the package ``rouge`` 1.0.1, to the last bit and some twenty times as fast.

    Sentences are what stands between full stops, words what stands between spaces, case and marks kept. The words of
    the longest common subsequences of all pairs of sentences make one set, which is measured against the distinct words
    of either text, so that repeats count once. The 1e-8 that guards the division keeps equal texts at 0.999999995.

    One difference: the package recurses once a word and gives up, for a score of 0, where Python's stack ends, which
    depends on its caller. Here long sentences are scored.
    """
    predicted, expected = _sentences(prediction), _sentences(reference)
    if not predicted or not expected:
        return 0.0
    shared: set[str] = set()
    for left in expected:
        for right in predicted:
            shared |= _common(left, right)
    recall = len(shared) / len(set().union(*expected))
    precision = len(shared) / len(set().union(*predicted))
    return 2 * (precision * recall / (precision + recall + 1e-8))


def _sentences(text: str) -> list[list[str]]:
    """Words of each sentence; one of spaces alone holds the empty word."""
    return [piece.split() or [""] for piece in text.split(".") if piece]


def _common(left: Sequence[str], right: Sequence[str]) -> set[str]:
    """Words of the longest common subsequence that a walk back from the ends finds.

    At unequal words the walk drops one of the left where that keeps the subsequence strictly longer, else one of the
    right. So words of the right that the left lacks never matter, and are left out before the table is made.
    """
    known = set(left)
    right = [word for word in right if word in known]
    rows = _lengths(left, right)
    found, i, j = set(), len(left), len(right)
    while i and j:
        if left[i - 1] == right[j - 1]:
            found.add(left[i - 1])
            i, j = i - 1, j - 1
        elif rows[i - 1][j] > rows[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


def _lengths(left: Sequence[str], right: Sequence[str]) -> list[list[int]]:
    """Lengths of longest common subsequences: entry ``[i][j]`` is of the first i and the first j words."""
    known, rows = set(right), [[0] * (len(right) + 1)]
    for word in left:
        above = rows[-1]
        row = above
        if word in known:
            row = [0]
            for j, other in enumerate(right):
                row.append(above[j] + 1 if word == other else max(row[j], above[j + 1]))
        rows.append(row)
    return rows


def percent(scores: Sequence[float]) -> float:
    """Mean in percent to two decimals, as most benchmarks report a task; NaN of none."""
    return round(100 * math.fsum(scores) / len(scores), 2) if scores else math.nan


def bands(
    scores: Iterable[float], lengths: Iterable[int], first: int, second: int
) -> dict[str, list[float]]:
    """Scores in three bands of length: below ``first``, below ``second``, and beyond."""
    groups: dict[str, list[float]] = {"0-4k": [], "4-8k": [], "8k+": []}
    for value, length in zip(scores, lengths, strict=True):
        groups["0-4k" if length < first else "4-8k" if length < second else "8k+"].append(value)
    return groups
