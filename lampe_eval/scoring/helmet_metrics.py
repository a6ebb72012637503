"""HELMET's metrics that need no judge.

A prediction is scored whole and as the line that answers, and the better of the two counts, except
for labels, of which only the line counts. Source: `utils.py` and `data.py` of princeton-nlp/HELMET
at 4526dfb.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from lampe_eval.scoring.ndcg import ndcg
from lampe_eval.scoring.ruler_metrics import match_all
from lampe_eval.scoring.text_metrics import normalize, token_f1

CUES: Mapping[str, str] = {
    "qa": "Answer:",
    "choice": "Answer:",
    "novel_qa": "Answer:",
    "json_kv": "corresponding value:",
    "icl": "label:",
}
"""Words before the answer by kind of task."""

BARE_WORDS = frozenset({"yes", "no", "noanswer"})
"""Answers that share nothing with any other one."""

ROUGES = ("rougeL", "rougeLsum")
RANKS = re.compile(r"\d+(?:\s*>\s*\d+)*")
DIGITS = 5
"""Digits to which scores of rankings are rounded."""


def scores(kind: str, prediction: str, references: str | Sequence[str]) -> dict[str, float]:
    """Return the scores of a prediction by name of the metric, each against its best reference.

    Args:
        kind: kind of the task: "qa", "novel_qa", "json_kv", "icl" or "choice".
        prediction: the answer.
        references: the right answers; for "choice" the letter, then the letter with its text.
    """
    answers = [references] if isinstance(references, str) else list(references)
    line = answer_line(prediction, CUES[kind])
    texts = [line] if kind == "icl" else [prediction, line]
    by_text = [text_scores(text, answers) for text in texts]
    best = {name: max(values[name] for values in by_text) for name in by_text[0]}
    if kind == "choice":
        # The text of the option is right as well, wherever it stands, but the letter must not be
        # found in any word.
        named = float(answers[1].lower() in prediction.lower())
        best |= {"substring_exact_match": named, "exact_match": max(best["exact_match"], named)}
    return best


def answer_line(prediction: str, cue: str) -> str:
    """Return the rest of the first line with a cue, or else the first line, without a second cue.

    Case does not matter. After a cue at the end of a line stands nothing, even if the next line
    answers.
    """
    # The cues hold nothing that means something in a regular expression.
    match = re.search(f"{cue}(.*)", prediction, re.IGNORECASE)
    line = match[1] if match else prediction.split("\n")[0]
    return re.sub(f"^{cue}", "", line.strip(), flags=re.IGNORECASE).strip()


def text_scores(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """Return exact match, token F1, whether a reference is in the text, and ROUGE-L."""
    text = normalize(prediction)
    expected = [normalize(reference) for reference in references]
    found = {
        "exact_match": float(text in expected),
        "f1": max(answer_f1(prediction, reference) for reference in references),
        "substring_exact_match": float(any(reference in text for reference in expected)),
    }
    by_reference = [
        _stemming_scorer().score(target=reference, prediction=prediction)
        for reference in references
    ]
    for rouge in ROUGES:
        found[f"{rouge}_f1"] = max(values[rouge].fmeasure for values in by_reference)
        found[f"{rouge}_recall"] = max(values[rouge].recall for values in by_reference)
    return found


def answer_f1(prediction: str, reference: str) -> float:
    """Return the F1 score of normalised words; "yes" or "no" is equal to itself alone."""
    texts = {normalize(prediction), normalize(reference)}
    return 0.0 if len(texts) == 2 and texts & BARE_WORDS else token_f1(prediction, reference)


@cache
def _stemming_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    return RougeScorer(ROUGES, use_stemmer=True)


def ranked_ids(prediction: str) -> dict[str, int]:
    """Return the ids of the longest ranking in a text with their scores, the highest for the first.

    A text without digits is one id. Of an id that is there twice the first place counts.
    """
    # Upstream deletes "id" everywhere, so that "no idea" becomes "no ea".
    text = re.sub(r"[\[\]:]", "", prediction).lower().replace("id", "")
    runs = [match[0] for match in RANKS.finditer(text)]
    longest = max(runs, key=len, default=None)
    ids = [text] if longest is None else [part.strip() for part in longest.split(">")]
    ranking: dict[str, int] = {}
    for place, item in enumerate(ids):
        ranking.setdefault(item, len(ids) - place)
    return ranking


def ranking_score(prediction: str, relevance: Mapping[str, int], ranks: int = 10) -> float:
    """Return NDCG of the ranking in a prediction, rounded as upstream rounds it."""
    return round(ndcg(ranked_ids(prediction), relevance, ranks), DIGITS)


def score(metric: str, kind: str, prediction: str, references: Any) -> float:
    """Return the score of a prediction by a task's metric.

    Args:
        metric: name of the metric that HELMET reports for the task.
        kind: kind of the task.
        prediction: the answer.
        references: what the metric compares it with; for NDCG the relevance of each id.
    """
    whole: Mapping[str, Callable[[str, Any], float]] = {
        "NDCG@10": partial(ranking_score, ranks=10),
        "ruler_recall": match_all,
    }
    if metric in whole:
        return whole[metric](prediction, references)
    return scores(kind, prediction, references)[metric]
