"""Metrics that several benchmarks share: normalisation, token F1, ROUGE, percentages, length bands.

Two packages compute ROUGE and disagree by several points, so every number belongs to one of them:
LongBench uses `rouge` (here `rouge_l`), L-Eval and InfiniteBench use `rouge_score` (here
`google_rouge`).
"""

import logging
import math
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")
# Punctuation that LongBench and InfiniteBench delete from Chinese text; the two gaps are theirs.
PUNCTUATION_ZH = re.compile(
    f"[{re.escape(string.punctuation)}"
    # full-width forms, except for the full-width full stop
    "\uff01-\uff0d\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff64"
    # Chinese punctuation, except for an opening 《
    "\u3001-\u3003\u300b-\u3011\u3014-\u301f\u3030\u303e\u303f"
    # dashes, quotation marks, dots
    "\u2013\u2014\u2018\u2019\u201b-\u201f\u2026\u2027\ufe4f]"
)


def strip_punctuation(text: str) -> str:
    """Return a text without ASCII punctuation, lower-case articles and runs of spaces."""
    return " ".join(ARTICLES.sub(" ", PUNCTUATION.sub("", text)).split())


def normalize(text: str) -> str:
    """Return a lower-case text without punctuation, articles and runs of spaces.

    Question answering has compared answers in this form since SQuAD.
    """
    return strip_punctuation(text.lower())


def normalize_zh(text: str) -> str:
    """Return a lower-case text without ASCII and Chinese punctuation and without any space."""
    return "".join(PUNCTUATION_ZH.sub("", text.lower()).split())


def bag_f1(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """Return the F1 score of two multisets of tokens, 0 if they share none."""
    shared = sum((Counter(prediction) & Counter(reference)).values())
    if not shared:
        return 0.0
    precision = shared / len(prediction)
    recall = shared / len(reference)
    return 2 * precision * recall / (precision + recall)


def token_f1(prediction: str, reference: str) -> float:
    """Return the F1 score of normalised words.

    A text of articles alone has no words, and scores 0 even against itself.
    """
    return bag_f1(normalize(prediction).split(), normalize(reference).split())


def words_zh(text: str) -> list[str]:
    """Return the words of a Chinese text (jieba, precise mode), with spaces and punctuation."""
    return _jieba_cut()(text)


@cache
def _jieba_cut() -> Callable[[str], list[str]]:
    """Return jieba's function that cuts a text into words."""
    # Importing jieba compiles invalid escape sequences, and it logs each load of its dictionary;
    # both would reach the user's terminal.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jieba  # type: ignore[import-untyped]
    jieba.setLogLevel(logging.WARNING)
    cut: Callable[[str], list[str]] = jieba.lcut
    return cut


def google_rouge(
    kinds: Sequence[str], prediction: str, references: Sequence[str]
) -> dict[str, float]:
    """Return F-measures of the package `rouge_score`, each against its best reference.

    There is no stemming.

    Args:
        kinds: any of `rouge1`, `rouge2`, `rougeL` and `rougeLsum`; the last takes lines as
            sentences.
        prediction: the prediction.
        references: the references.
    """
    scores = _rouge_scorer(tuple(kinds)).score_multi(references, prediction)
    return {kind: scores[kind].fmeasure for kind in kinds}


@cache
def _rouge_scorer(kinds: tuple[str, ...]) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    return RougeScorer(kinds, use_stemmer=False)


def rouge_l(prediction: str, reference: str) -> float:
    """Return the summary-level ROUGE-L F of the package `rouge` 1.0.1, about 20 times as fast.

    The result equals the package's to the last bit. Sentences are separated by full stops and
    words by spaces; case and other punctuation count. The words of the longest common subsequences
    of all pairs of sentences form one set, which is compared with the distinct words of either
    text, so that repeated words count once.

    There is one difference: the package recurses once for each word, and scores 0 when Python's
    stack overflows, which depends on its caller. Here long sentences are scored.
    """
    predicted = _sentences(prediction)
    expected = _sentences(reference)
    if not predicted or not expected:
        return 0.0
    shared: set[str] = set()
    for left in expected:
        for right in predicted:
            shared |= _common_words(left, right)
    recall = len(shared) / len(set().union(*expected))
    precision = len(shared) / len(set().union(*predicted))
    # The package guards the division with 1e-8, so that equal texts score 0.999999995.
    return 2 * (precision * recall / (precision + recall + 1e-8))


def _sentences(text: str) -> list[list[str]]:
    """Return the words of each sentence; a sentence of spaces alone has one empty word."""
    return [piece.split() or [""] for piece in text.split(".") if piece]


def _common_words(left: Sequence[str], right: Sequence[str]) -> set[str]:
    """Return the words of the longest common subsequence that the package's backtracking finds."""
    # At unequal words backtracking drops a word of the left if that keeps the subsequence strictly
    # longer, else a word of the right. So words of the right that the left lacks never matter, and
    # are left out before the table is computed.
    left_words = set(left)
    right = [word for word in right if word in left_words]
    lengths = _subsequence_lengths(left, right)
    common = set()
    i, j = len(left), len(right)
    while i and j:
        if left[i - 1] == right[j - 1]:
            common.add(left[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return common


def _subsequence_lengths(left: Sequence[str], right: Sequence[str]) -> list[list[int]]:
    """Return the lengths of longest common subsequences of the first i and j words, as [i][j]."""
    right_words = set(right)
    rows = [[0] * (len(right) + 1)]
    for word in left:
        above = rows[-1]
        row = above  # a word that the right lacks changes nothing
        if word in right_words:
            row = [0]
            for j, other in enumerate(right):
                row.append(above[j] + 1 if word == other else max(row[j], above[j + 1]))
        rows.append(row)
    return rows


def percent(scores: Sequence[float]) -> float:
    """Return the mean in percent to two decimals, as most benchmarks do; NaN without scores."""
    return round(100 * math.fsum(scores) / len(scores), 2) if scores else math.nan


def bands(
    items: Iterable[T], lengths: Iterable[int], first: int, second: int
) -> dict[str, list[T]]:
    """Return scores or samples in three bands of length: below `first`, `second`, and the rest."""
    by_band: dict[str, list[T]] = {"0-4k": [], "4-8k": [], "8k+": []}
    for item, length in zip(items, lengths, strict=True):
        if length < first:
            by_band["0-4k"].append(item)
        elif length < second:
            by_band["4-8k"].append(item)
        else:
            by_band["8k+"].append(item)
    return by_band
