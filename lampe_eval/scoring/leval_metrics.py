"""L-Eval's metrics: answers parsed from exams, token F1 of questions, ROUGE of summaries.

Sources: arXiv 2307.11088 with `Evaluation/auto_eval.py` and `em.py` of OpenLMLab/LEval at cd34b05;
length bands as in scar-on/LaMPE. Upstream's parsers guess what a prediction means, and published
numbers contain their guesses, so they are reproduced here.

A sample has one or more parts, and each part is averaged on its own: the two judgements of sci_fi,
the three kinds of ROUGE.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any, TypeVar

import numpy as np

from lampe_eval.scoring.estimates import Array, Estimate
from lampe_eval.scoring.text_metrics import (
    bands,
    google_rouge,
    percent,
    strip_punctuation,
    token_f1,
)

T = TypeVar("T")

Parts = dict[str, float]
"""Numbers of a sample or a task by name, in percent."""

Metric = Callable[[str, str], Parts]

LETTERS = frozenset("ABCD")
ROUGES = ("rouge1", "rouge2", "rougeL")
TOPICS = ("first", "second", "third")
# Text that upstream deletes from, or replaces in, an answer that states the output of code.
CODE_FILLERS = (
    "will be",
    "of the code",
    "is",
    "would be",
    "the value of",
    "the result of",
    "printed",
)
CODE_PUNCTUATION = (",", "'", "\\", ".0")
CODE_BRACKETS = {"] [": "][", "[ [": "[[", "] ]": "]]"}


def exact_match(prediction: str, reference: str) -> float:
    """Return the score of an answer, from 0 to 1.

    A reference is a choice if nothing but letters A to D is left of it without punctuation and
    articles. An equal prediction then scores 1, and one that names only letters of the reference,
    or none at all, 0.25. Numbers are compared by value. Any other reference scores 1 if the
    prediction contains it, whatever the case and the spaces.
    """
    expected = strip_punctuation(reference)
    if LETTERS.issuperset(expected):
        chosen = strip_punctuation(prediction)
        return 1.0 if chosen == expected else 0.25 * set(expected).issuperset(chosen)
    try:
        return float(float(prediction) == float(reference))
    except ValueError:
        return float(_squeeze(reference) in _squeeze(prediction))


def _squeeze(text: str) -> str:
    return text.lower().replace(" ", "")


def choices(prediction: str, *, several: bool) -> str:
    """Return the letters that a prediction chooses.

    A blank prediction chooses `None`, one that seems to choose no letter `A`. A prediction that is
    nothing but neighbouring letters in order is returned unchanged.

    Args:
        prediction: the answer.
        several: whether a question may have several right letters. If not, the choice is the first
            of the letters anywhere, so that `Answer: B` reads as A. If so, it is the letters at
            the very beginning if there is more than one, else those letters and all before white
            space, a full stop or a bracket, up to the next question, else the first run of letters.
    """
    if not prediction.strip():
        return "None"
    # A test for substrings, as upstream's: AB, BCD and CD pass, AC does not.
    if prediction in "ABCD":
        return prediction
    if several:
        return _several_choices(prediction)
    first = re.search("[A-D]", prediction)
    return first[0] if first else "A"


def _several_choices(prediction: str) -> str:
    rest = prediction.lstrip("ABCD")
    start = prediction.removesuffix(rest)
    if len(start) > 1:
        return _sorted(start)
    rest = rest.split("Question")[0]  # models continue with the next question
    named = start + "".join(re.findall(r"[A-D](?=[\s.)])", rest))
    run = re.search("[A-D]+", rest)
    return _sorted(named) or (run[0] if run else "A")


def _sorted(letters: str) -> str:
    return "".join(sorted(set(letters)))


def gold_choices(reference: str) -> str:
    """Return the letters in the first word of a reference, `A` if it has none."""
    return re.sub("[^A-D]", "", reference.split()[0]) or "A"


def final_number(text: str) -> str:
    """Return the digits of the answer to a sum, without sign and decimals.

    They are those of the word after `The answer is`, or else of the last word with a digit before
    the first blank line.
    """
    stated = re.search(r"The answer is (\S+)", text)
    words = [stated[1]] if stated else text.split("\n\n")[0].split(" ")
    last_word = next((word for word in reversed(words) if _digits(word)), "")
    # So 3.50 gives 3, -5 gives 5 and $1,250. gives 1250, as upstream.
    return _digits(last_word.split(".")[0])


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def tidy_code(text: str) -> str:
    """Return the output of code in one spacing.

    Commas, quotes, backslashes and `.0` are removed, and spaces between brackets.
    """
    text = re.sub(r"\s+", " ", text)
    for characters in CODE_PUNCTUATION:
        text = text.replace(characters, "")
    for spaced, unspaced in CODE_BRACKETS.items():
        text = text.replace(spaced, unspaced)
    return text


def code_output(prediction: str, reference: str) -> str:
    """Return the words of a prediction that state the output of code.

    They are three more than the reference has, after the last `the final output` or else at the
    end of the prediction.
    """
    text = tidy_code(prediction)
    for filler in CODE_FILLERS:
        text = text.replace(filler, "")  # inside words as well: `this` becomes `th`
    word_limit = len(reference.split()) + 3
    _, stated, output = text.rpartition("the final output")
    words = re.split(r"\s+", output)
    return " ".join(words[:word_limit] if stated else words[-word_limit:])


def gold_judgements(text: str) -> tuple[str, str]:
    """Return the two halves of `True [fact: False]` in lower case."""
    loyalty, fact = text.lower().split("[fact:")[:2]
    # Upstream takes the last character for the closing bracket, whatever it is.
    return loyalty.strip(), fact[:-1].strip()


def judgements(prediction: str) -> tuple[str, str]:
    """Return `true`, `false` or `<error>` for each half of a prediction.

    The first word that contains either decides, so `untrue` reads as true.
    """
    # Upstream crashes on a prediction without a second half; here that half is an error.
    if "[fact:" not in prediction.lower():
        prediction = f"{prediction}[fact:]"
    loyalty, fact = gold_judgements(prediction)
    return _judgement(loyalty), _judgement(fact)


def _judgement(text: str) -> str:
    for word in text.split():
        for verdict in ("true", "false"):
            if verdict in word:
                return verdict
    return "<error>"


def _choice(prediction: str, reference: str, *, several: bool = False) -> Parts:
    chosen = choices(prediction, several=several)
    return {"exact_match": 100 * exact_match(chosen, gold_choices(reference))}


def _math(prediction: str, reference: str) -> Parts:
    return {"exact_match": 100 * exact_match(final_number(prediction), final_number(reference))}


def _code(prediction: str, reference: str) -> Parts:
    output = code_output(prediction, reference)
    return {"exact_match": 100 * exact_match(output, tidy_code(reference))}


def _text(prediction: str, reference: str) -> Parts:
    return {"exact_match": 100 * exact_match(prediction, reference)}


def _judge(prediction: str, reference: str) -> Parts:
    loyalty, fact = judgements(prediction)
    gold_loyalty, gold_fact = gold_judgements(reference)
    return {
        "loyalty": 100 * exact_match(loyalty, gold_loyalty),
        "fact": 100 * exact_match(fact, gold_fact),
    }


def _f1(prediction: str, reference: str) -> Parts:
    return {"f1": 100 * token_f1(prediction, reference)}


def _rouge(prediction: str, reference: str) -> Parts:
    scores = google_rouge(ROUGES, prediction, [reference])
    return {kind: 100 * value for kind, value in scores.items()}


METRICS: dict[str, Metric] = {
    "coursera": partial(_choice, several=True),
    "quality": _choice,
    "tpo": _choice,
    "gsm100": _math,
    "codeU": _code,
    "topic_retrieval_longchat": _text,
    "sci_fi": _judge,
    "financial_qa": _f1,
    "legal_contract_qa": _f1,
    "multidoc_qa": _f1,
    "narrative_qa": _f1,
    "natural_question": _f1,
    "scientific_qa": _f1,
    "gov_report_summ": _rouge,
    "meeting_summ": _rouge,
    "news_summ": _rouge,
    "paper_assistant": _rouge,
    "patent_summ": _rouge,
    "review_summ": _rouge,
    "tv_show_summ": _rouge,
}

SCORED = frozenset({"exam", "f1", "rouge"})
"""Values of a row's `evaluation` that need no judge; rows with other values are not scored."""


def parts(
    task: str, prediction: str, references: Sequence[str], extras: Mapping[str, Any]
) -> Parts:
    """Return the numbers of a prediction, in percent.

    Args:
        task: name of the task.
        prediction: the answer.
        references: the only reference.
        extras: for topic_retrieval_longchat `row`, the number of the question in the data.
    """
    (reference,) = references
    numbers = METRICS[task](prediction, reference)
    if task == "topic_retrieval_longchat":
        # The data's questions ask for the first, second and third topic in turn.
        return {TOPICS[extras["row"] % 3]: numbers["exact_match"]}
    return numbers


def score(
    task: str, prediction: str, references: Sequence[str], extras: Mapping[str, Any]
) -> float:
    """Return one number for a prediction, from 0 to 1.

    For a summary it is ROUGE-L, as on the leaderboard, else the mean of its parts. The arguments
    are those of `parts`.
    """
    numbers = parts(task, prediction, references, extras)
    return numbers.get("rougeL", fmean(numbers.values())) / 100


def total(samples: Sequence[Parts]) -> Parts:
    """Return the numbers of a task, in percent to four decimals, its headline first.

    Each part is averaged over the samples that have it. If there are several parts, the headline
    is their mean (sci_fi, topics) or, for ROUGE, the geometric mean of the three averages.
    """
    means = {name: fmean(values) for name, values in values_by_part(samples).items()}
    rounded = {name: round(mean, 4) for name, mean in means.items()}
    if len(means) == 1:
        return rounded
    # Upstream rounds before it averages, but not before it takes the geometric mean.
    if "rougeL" in means:
        return {"geometric_mean": round(math.prod(means.values()) ** (1 / 3), 4), **rounded}
    return {"average": fmean(rounded.values()), **rounded}


def values_by_part(samples: Sequence[Parts]) -> dict[str, list[float]]:
    """Return the numbers of each part, of the samples that have it."""
    values: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in sample.items():
            values.setdefault(name, []).append(value)
    return values


def estimate(samples: Sequence[Parts]) -> Estimate:
    """Return the headline of a task as a function of its samples, of which there is one or more."""
    if "rougeL" in samples[0]:
        return Estimate(np.array([list(sample.values()) for sample in samples]), _geometric_mean)
    return Estimate.mean([fmean(sample.values()) for sample in samples])


def _geometric_mean(means: Array) -> Array:
    return np.asarray(np.prod(means, axis=-1) ** (1 / means.shape[-1]))


def by_length(scores: Iterable[float], lengths: Iterable[int]) -> dict[str, float]:
    """Return LaMPE's percentages in three bands of length, to two decimals; 0 for an empty band.

    Args:
        scores: scores from 0 to 1.
        lengths: tokens of each prompt.
    """
    by_band = length_bands(scores, lengths)
    return {band: percent(values) if values else 0.0 for band, values in by_band.items()}


def length_bands(items: Iterable[T], lengths: Iterable[int]) -> dict[str, list[T]]:
    """Return scores or samples by LaMPE's bands of length."""
    # They include their upper ends, 4096 and 8192 tokens; LongBench-E's do not.
    return bands(items, lengths, 4097, 8193)
