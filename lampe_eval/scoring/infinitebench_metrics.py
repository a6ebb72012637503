"""InfiniteBench's metrics: a parser per task, and two scorers, `official` and `lampe`.

Sources: arXiv 2402.13718 with `src/compute_scores.py` of OpenBMB/InfiniteBench at 88b3daa; and the
same file in scar-on/LaMPE and HKUNLP/STRING, which reads four tasks more leniently. The difference
is large (Claude-2 on code_debug: 33.25, officially 2.28), so scores of the two must never be mixed.

A label is what the data file holds: a scalar or a list. For some metrics the score depends on which
of the two it is; their docstrings say so.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from lampe_eval.scoring.text_metrics import bag_f1, google_rouge, normalize_zh, token_f1

Scorer = Literal["official", "lampe"]
Metric = Callable[[str, Any], float]

MAX_DIGITS = 4300
# Upstream's lists, in upstream's order: the first lead-in of the list that occurs decides.
CODE_LEAD_INS = ("answer is:", "is:", "answer:", "correct option is:")
CHOICE_LEAD_INS = ("answer is:", "answer:", "answer is", "option is")
# Characters that upstream replaces by spaces before it looks for an answer.
DEBUG_NOISE = re.compile("[\n`'\"\\-*]|[Oo]ption")
CHOICE_NOISE = re.compile("[\n\"'.,?!{}]")
NAME_NOISE = re.compile("[\n:\"'.,?!{}]")
RUN_NOISE = re.compile("[\n.`'\":]")


def _first(label: Any) -> Any:
    """Return the first element of a label that is a list, and any other label as it is."""
    return label[0] if isinstance(label, Sequence) and not isinstance(label, str) else label


def _after_lead_in(text: str, lead_ins: Sequence[str]) -> str | None:
    """Return the text after the first lead-in of the list that occurs, or None if none does."""
    for lead_in in lead_ins:
        _, match, rest = text.partition(lead_in)
        if match:
            return rest[1:]  # upstream skips one character, whatever it is
    return None


def _last_letter(text: str, letters: str) -> str | None:
    """Return the last of the letters that stands alone, on the first line that has one."""
    # "." does not match newlines, so the look-ahead ends with the line, as in upstream's pattern.
    match = re.search(rf"\b[{letters}]\b(?!.*\b[{letters}]\b)", text)
    return match and match[0]


def number(prediction: str, label: Any) -> float:
    """Return 1 if the first run of digits is the label, digit for digit."""
    match = re.search("[0-9]+", prediction)
    return float((match[0] if match else "") == _first(label))


def kv_retrieval(prediction: str, label: Any) -> float:
    """Return 1 if the label is one of the words.

    A label that is a list, as in the data since 2024, equals no word: every prediction scores 0.
    """
    return float(label in NAME_NOISE.sub(" ", prediction).split())


def kv_retrieval_lampe(prediction: str, label: Any) -> float:
    """Return 1 if the label, or the first label of a list, is one of the words."""
    return kv_retrieval(prediction, _first(label))


def code_run(prediction: str, label: Any) -> float:
    """Return 1 if the last word is the number."""
    # A full stop reads as a space, so of a decimal number the digits after it count.
    words = RUN_NOISE.sub(" ", prediction).split()
    try:
        return float(int(words[-1]) == _first(label))
    except (IndexError, ValueError):
        return 0.0


def code_debug(prediction: str, label: Sequence[str]) -> float:
    """Return 1 if the prediction begins with the letter, or states the answer after a lead-in.

    The letter at the beginning needs a full stop or a colon behind it. After a lead-in the letter
    or the name counts, and the first lead-in that occurs decides. A bare letter scores 0, and so
    does the bare name.

    Args:
        prediction: the answer.
        label: name of the function, and letter of the option.
    """
    name, letter = label
    prediction = prediction.strip()
    if prediction.startswith((f"{letter}.", f"{letter}:")):
        return 1.0
    return _stated(_clean(DEBUG_NOISE, prediction), (letter, name))


def code_debug_lampe(prediction: str, label: Sequence[str]) -> float:
    """Return 1 for the option's letter or name, in more places than `code_debug` looks.

    The last letter A to J that stands alone counts, a letter or name at the beginning, and those
    after a lead-in.
    """
    name, letter = label
    prediction = prediction.strip()
    text = _clean(DEBUG_NOISE, prediction)
    if _last_letter(prediction, "A-J") == letter or text.startswith((letter, name)):
        return 1.0
    return _stated(text, (letter, name))


def _clean(noise: re.Pattern[str], text: str) -> str:
    return re.sub(" +", " ", noise.sub(" ", text))


def _stated(text: str, answers: tuple[str, ...]) -> float:
    return float((_after_lead_in(text, CODE_LEAD_INS) or "").startswith(answers))


def _integer(digits: str) -> int | None:
    """Return the number that digits spell, None for more digits than Python converts."""
    return int(digits) if len(digits) <= MAX_DIGITS else None


def math_find(prediction: str, label: Any) -> float:
    """Return 1 if the first number is the label.

    Signs are not read, so a negative label never matches.
    """
    match = re.search(r"\d+\.\d+|\d+", prediction)
    expected = _first(label)
    if not match:
        return 0.0
    # Upstream crashes on a decimal number where an integer is expected; here that scores 0.
    if isinstance(expected, int):
        return float(match[0].isdigit() and _integer(match[0]) == expected)
    return float(float(match[0]) == expected)


def math_calc(prediction: str, label: Sequence[Any]) -> float:
    """Return the share of the values that are right before the first wrong one; no sign is read."""
    values = label[0] if isinstance(label[0], Sequence) else label
    right = 0
    for digits, value in zip(re.findall("[0-9]+", prediction), values, strict=False):
        if _integer(digits) != value:
            break
        right += 1
    return right / len(values)


def longdialogue(prediction: str, label: Sequence[str]) -> float:
    """Return 1 if the first name is one of the words in capitals.

    A name of two words is never a word.
    """
    return float(label[0] in NAME_NOISE.sub(" ", prediction).upper().split())


def longdialogue_lampe(prediction: str, label: Sequence[str]) -> float:
    """Return 1 if any of the names occurs, in any case and inside other words as well."""
    return float(any(name.upper() in prediction.upper() for name in label))


def choice(prediction: str, label: Sequence[str]) -> float:
    """Return 1 if the prediction names the right option.

    The first rule that applies decides: the first character if it is A to D, even if it is the
    article; the whole prediction if it equals the letter or the option; the text after a lead-in;
    and the first word that consists of neighbouring letters of "ABCD".

    Args:
        prediction: the answer.
        label: text of the option, and its letter.
    """
    prediction = prediction.strip()
    if not prediction:
        return 0.0
    if prediction[0] in "ABCD":
        return float(prediction[0] in label)
    if prediction in label:
        return 1.0
    text = _clean(CHOICE_NOISE, prediction)
    stated = _after_lead_in(text, CHOICE_LEAD_INS)
    if stated is not None:
        return float(stated.startswith(tuple(label)))
    return float(next((word for word in text.split() if word in "ABCD"), None) in label)


def choice_lampe(prediction: str, label: Sequence[str]) -> float:
    """Return 1 if the last letter A to D that stands alone is right, or if `choice` returns 1."""
    return 1.0 if _last_letter(prediction.strip(), "A-D") in label else choice(prediction, label)


def qa(prediction: str, label: Sequence[str]) -> float:
    """Return token F1 against the best of the labels."""
    return max(token_f1(prediction, reference) for reference in label)


def qa_zh(prediction: str, label: Sequence[str]) -> float:
    """Return the F1 score of normalised characters against the best of the labels."""
    text = normalize_zh(prediction)
    return max(bag_f1(text, normalize_zh(reference)) for reference in label)


def summary(prediction: str, label: Any) -> float:
    """Return the ROUGE-Lsum F score against the best of the labels; lines are sentences."""
    references = [label] if isinstance(label, str) else label
    return google_rouge(["rougeLsum"], prediction, references)["rougeLsum"]


_OFFICIAL: dict[str, Metric] = {
    "passkey": number,
    "number_string": number,
    "kv_retrieval": kv_retrieval,
    "longbook_sum_eng": summary,
    "longbook_choice_eng": choice,
    "longbook_qa_eng": qa,
    "longbook_qa_chn": qa_zh,
    "longdialogue_qa_eng": longdialogue,
    "math_find": math_find,
    "math_calc": math_calc,
    "code_run": code_run,
    "code_debug": code_debug,
}

_LAMPE: dict[str, Metric] = {
    "kv_retrieval": kv_retrieval_lampe,
    "longbook_choice_eng": choice_lampe,
    "longdialogue_qa_eng": longdialogue_lampe,
    "code_debug": code_debug_lampe,
}

METRICS: dict[Scorer, dict[str, Metric]] = {"official": _OFFICIAL, "lampe": _OFFICIAL | _LAMPE}


def score(
    task: str, prediction: str, label: Any, extras: Mapping[str, Any], scorer: Scorer = "official"
) -> float:
    """Return the score of a prediction, from 0 to 1.

    Args:
        task: name of the task.
        prediction: the answer.
        label: the label as the data file holds it.
        extras: for math_calc `model`, the name of the model in upstream's prediction files.
        scorer: which of the two scorers to use.
    """
    # Upstream's prompt for gpt4 makes it repeat the first value, and its scorer drops that again.
    if task == "math_calc" and extras.get("model") == "gpt4":
        prediction = re.sub("[0-9]+", "", prediction, count=1)
    return METRICS[scorer][task](prediction, label)
