"""L-Eval: exams by parsing an answer out of the prediction, questions by token F1, summaries by ROUGE.

Sources: arXiv 2307.11088 with ``Evaluation/auto_eval.py`` and ``em.py`` of OpenLMLab/LEval at cd34b05; length bands as
in scar-on/LaMPE. Upstream's parsers guess, and their guesses decide published numbers, so they are kept.

A sample has one or more parts, each averaged on its own: the two judgements of sci_fi, the three kinds of ROUGE.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from lampe_eval.scoring.text_metrics import bands, google_rouge, percent, strip_marks, token_f1

Parts = dict[str, float]
Metric = Callable[[str, str], Parts]

LETTERS = frozenset("ABCD")
ROUGES = ("rouge1", "rouge2", "rougeL")
TOPICS = ("first", "second", "third")
CODE_FILLERS = (
    "will be",
    "of the code",
    "is",
    "would be",
    "the value of",
    "the result of",
    "printed",
)
CODE_MARKS = (",", "'", "\\", ".0")
CODE_BRACKETS = {"] [": "][", "[ [": "[[", "] ]": "]]"}


def exact_match(prediction: str, reference: str) -> float:
    """Score of an answer, from 0 to 1: letters are compared as sets, numbers by value, and text is looked for.

    A reference is a choice where nothing but letters A to D is left of it without punctuation and articles. Then an
    equal prediction scores 1, and one that names only letters of it, or none, 0.25. Otherwise it scores 1 where both
    are numbers of one value, or not both are numbers and the reference occurs in the prediction, case and spaces aside.
    """
    expected = strip_marks(reference)
    if LETTERS.issuperset(expected):
        given = strip_marks(prediction)
        return 1.0 if given == expected else 0.25 * set(expected).issuperset(given)
    try:
        return float(float(prediction) == float(reference))
    except ValueError:
        return float(_squeeze(reference) in _squeeze(prediction))


def _squeeze(text: str) -> str:
    return text.lower().replace(" ", "")


def choices(prediction: str, *, several: bool) -> str:
    """Letters that a prediction chooses; ``A`` where it seems to choose none, ``None`` where it is blank.

    A prediction that is nothing but neighbouring letters in order is taken as it is. Where a question has one answer,
    it is the first of the letters anywhere, so that ``Answer: B`` reads as A. Where it may have ``several``, they are
    the letters at the very start (these alone, if more than one) and those before a space, a full stop or a bracket, up
    to the next question; failing these, the first run of letters.
    """
    if not prediction.strip():
        return "None"
    if prediction in "ABCD":
        return prediction
    if not several:
        first = re.search("[A-D]", prediction)
        return first[0] if first else "A"
    return _several(prediction)


def _several(prediction: str) -> str:
    rest = prediction.lstrip("ABCD")
    start = prediction.removesuffix(rest)
    if len(start) > 1:
        return _sorted(start)
    rest = rest.split("Question")[0]
    named = start + "".join(re.findall(r"[A-D](?=[\s.)])", rest))
    run = re.search("[A-D]+", rest)
    return _sorted(named) or (run[0] if run else "A")


def _sorted(letters: str) -> str:
    return "".join(sorted(set(letters)))


def gold_choices(reference: str) -> str:
    """Letters in the first word of a reference, ``A`` if it has none."""
    return re.sub("[^A-D]", "", reference.split()[0]) or "A"


def final_number(text: str) -> str:
    """Digits of the answer to a sum, without sign and decimals.

    They are those of the word after ``The answer is``, else of the last word with a digit before the first blank line.
    """
    stated = re.search(r"The answer is (\S+)", text)
    words = [stated[1]] if stated else text.split("\n\n")[0].split(" ")
    word = next((word for word in reversed(words) if any(char.isdigit() for char in word)), "")
    return "".join(char for char in word.split(".")[0] if char.isdigit())


def tidy_code(text: str) -> str:
    """Output of code in one spacing: no commas, quotes, backslashes, ``.0``, and brackets that touch."""
    text = re.sub(r"\s+", " ", text)
    for mark in CODE_MARKS:
        text = text.replace(mark, "")
    for wide, tight in CODE_BRACKETS.items():
        text = text.replace(wide, tight)
    return text


def code_output(prediction: str, reference: str) -> str:
    """Where a prediction states the output of code: three words more than the reference has.

    They follow the last ``the final output``, or else end the prediction. Filler is deleted first, inside words too, so
    that ``this`` becomes ``th``.
    """
    text = tidy_code(prediction)
    for filler in CODE_FILLERS:
        text = text.replace(filler, "")
    room = len(reference.split()) + 3
    _, stated, output = text.rpartition("the final output")
    words = re.split(r"\s+", output)
    return " ".join(words[:room] if stated else words[-room:])


def gold_judgements(text: str) -> tuple[str, str]:
    """The two halves of ``True [fact: False]``, lower-case; the last character is taken for the bracket."""
    loyalty, fact = text.lower().split("[fact:")[:2]
    return loyalty.strip(), fact[:-1].strip()


def judgements(prediction: str) -> tuple[str, str]:
    """``true`` or ``false`` by the first word of each half that contains either, else ``<error>``.

    So ``untrue`` reads as true. A prediction without a second half, which upstream cannot read, errs in it.
    """
    loyalty, fact = gold_judgements(
        prediction if "[fact:" in prediction.lower() else f"{prediction}[fact:]"
    )
    return _judgement(loyalty), _judgement(fact)


def _judgement(text: str) -> str:
    for word in text.split():
        for verdict in ("true", "false"):
            if verdict in word:
                return verdict
    return "<error>"


def _choice(prediction: str, reference: str, *, several: bool = False) -> Parts:
    return {
        "exact_match": 100
        * exact_match(choices(prediction, several=several), gold_choices(reference))
    }


def _math(prediction: str, reference: str) -> Parts:
    return {"exact_match": 100 * exact_match(final_number(prediction), final_number(reference))}


def _code(prediction: str, reference: str) -> Parts:
    return {
        "exact_match": 100 * exact_match(code_output(prediction, reference), tidy_code(reference))
    }


def _text(prediction: str, reference: str) -> Parts:
    return {"exact_match": 100 * exact_match(prediction, reference)}


def _judge(prediction: str, reference: str) -> Parts:
    pairs = zip(judgements(prediction), gold_judgements(reference), strict=True)
    loyalty, fact = (100 * exact_match(given, expected) for given, expected in pairs)
    return {"loyalty": loyalty, "fact": fact}


def _f1(prediction: str, reference: str) -> Parts:
    return {"f1": 100 * token_f1(prediction, reference)}


def _rouge(prediction: str, reference: str) -> Parts:
    return {
        kind: 100 * value for kind, value in google_rouge(ROUGES, prediction, [reference]).items()
    }


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
"""Values of a row's ``evaluation`` that need no judge; rows of others are not scored."""


def parts(
    task: str, prediction: str, references: Sequence[str], extras: Mapping[str, Any]
) -> Parts:
    """Numbers of a prediction, in percent.

    Args:
        references: one.
        extras: for topic_retrieval_longchat the ``row``; rows ask for the first, second and third topic in turn.
    """
    (reference,) = references
    numbers = METRICS[task](prediction, reference)
    if task == "topic_retrieval_longchat":
        return {TOPICS[extras["row"] % 3]: numbers["exact_match"]}
    return numbers


def score(
    task: str, prediction: str, references: Sequence[str], extras: Mapping[str, Any]
) -> float:
    """One number of a prediction, from 0 to 1: of a summary ROUGE-L, as on the leaderboard, else the mean of its parts.

    Arguments are those of ``parts``.
    """
    numbers = parts(task, prediction, references, extras)
    return numbers.get("rougeL", fmean(numbers.values())) / 100


def total(samples: Sequence[Parts]) -> Parts:
    """The numbers of a task, in percent to four decimals, its headline first where it has several.

    Each part is averaged over the samples that have it. The headline is their mean (sci_fi, topics), or for ROUGE the
    geometric mean of the three averages.
    """
    names = dict.fromkeys(name for sample in samples for name in sample)
    means = {name: fmean(sample[name] for sample in samples if name in sample) for name in names}
    rounded = {name: round(value, 4) for name, value in means.items()}
    if len(means) == 1:
        return rounded
    if "rougeL" in means:
        return {"geometric_mean": round(math.prod(means.values()) ** (1 / 3), 4), **rounded}
    return {"average": fmean(rounded.values()), **rounded}


def by_length(scores: Iterable[float], lengths: Iterable[int]) -> dict[str, float]:
    """LaMPE's percentages in three bands of prompt length in tokens, to two decimals; 0 where a band is empty.

    Args:
        scores: from 0 to 1.
    """
    return {
        band: percent(values) if values else 0.0
        for band, values in bands(scores, lengths, 4097, 8193).items()
    }
