"""InfiniteBench: a parser a task; two scorers that must never be mixed, ``official`` and ``lampe``.

Sources: arXiv 2402.13718 with ``src/compute_scores.py`` of OpenBMB/InfiniteBench at 88b3daa; and the same file of
scar-on/LaMPE and HKUNLP/STRING, which reads four tasks more kindly (Claude-2 on code_debug: 33.25, officially 2.28).

A label is what the data file holds: a scalar or a list of them. Which of the two decides scores, as docstrings say.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from lampe_eval.scoring.text_metrics import bag_f1, google_rouge, normalize_zh, token_f1

Scorer = Literal["official", "lampe"]
Metric = Callable[[str, Any], float]

CODE_LEAD_INS = ("answer is:", "is:", "answer:", "correct option is:")
CHOICE_LEAD_INS = ("answer is:", "answer:", "answer is", "option is")
DEBUG_NOISE = re.compile("[\n`'\"\\-*]|[Oo]ption")
CHOICE_NOISE = re.compile("[\n\"'.,?!{}]")
NAME_NOISE = re.compile("[\n:\"'.,?!{}]")
RUN_NOISE = re.compile("[\n.`'\":]")


def _first(label: Any) -> Any:
    return label[0] if isinstance(label, Sequence) and not isinstance(label, str) else label


def _after_lead_in(text: str, lead_ins: Sequence[str]) -> str | None:
    """What follows, past one character, the first of the lead-ins, in their order, that occurs; None if none does."""
    for lead_in in lead_ins:
        _, found, rest = text.partition(lead_in)
        if found:
            return rest[1:]
    return None


def _last_letter(text: str, letters: str) -> str | None:
    """The last of the letters that stands alone, on the first line that has one."""
    found = re.search(rf"\b[{letters}]\b(?!.*\b[{letters}]\b)", text)
    return found and found[0]


def number(prediction: str, label: Any) -> float:
    """1 where the first run of digits is the label, written alike."""
    found = re.search("[0-9]+", prediction)
    return float((found[0] if found else "") == _first(label))


def kv_retrieval(prediction: str, label: Any) -> float:
    """1 where the label is one of the words; 0 for any prediction where it is a list, as in the data since 2024."""
    return float(label in NAME_NOISE.sub(" ", prediction).split())


def kv_retrieval_lampe(prediction: str, label: Any) -> float:
    """1 where the label, or the first of a list, is one of the words."""
    return kv_retrieval(prediction, _first(label))


def code_run(prediction: str, label: Any) -> float:
    """1 where the last word is the number. A stop reads as a space, so that of a decimal the digits after it count."""
    words = RUN_NOISE.sub(" ", prediction).split()
    try:
        return float(int(words[-1]) == _first(label))
    except (IndexError, ValueError):
        return 0.0


def code_debug(prediction: str, label: Sequence[str]) -> float:
    """1 where the prediction begins with the letter and a stop or colon, or gives letter or name after a lead-in.

    The first lead-in that occurs decides. A bare letter scores 0, and so does the name alone.

    Args:
        label: name of the function, letter of the option.
    """
    name, letter = label
    prediction = prediction.strip()
    if prediction.startswith((f"{letter}.", f"{letter}:")):
        return 1.0
    return _stated(_tidy(DEBUG_NOISE, prediction), (letter, name))


def code_debug_lampe(prediction: str, label: Sequence[str]) -> float:
    """1 where the last lone letter A to J is the option, or the prediction gives letter or name at its start or after a
    lead-in.
    """
    name, letter = label
    prediction = prediction.strip()
    text = _tidy(DEBUG_NOISE, prediction)
    if _last_letter(prediction, "A-J") == letter or text.startswith((letter, name)):
        return 1.0
    return _stated(text, (letter, name))


def _tidy(noise: re.Pattern[str], text: str) -> str:
    return re.sub(" +", " ", noise.sub(" ", text))


def _stated(text: str, answers: tuple[str, ...]) -> float:
    return float((_after_lead_in(text, CODE_LEAD_INS) or "").startswith(answers))


def math_find(prediction: str, label: Any) -> float:
    """1 where the first number is the label. Signs are not read, so a negative label never matches.

    Upstream breaks on a decimal where an integer is expected; here that scores 0.
    """
    found, expected = re.search(r"\d+\.\d+|\d+", prediction), _first(label)
    if not found:
        return 0.0
    if isinstance(expected, int):
        return float(found[0].isdigit() and int(found[0]) == expected)
    return float(float(found[0]) == expected)


def math_calc(prediction: str, label: Sequence[Any]) -> float:
    """Share of the values that are right before the first wrong one. Signs are not read."""
    values = label[0] if isinstance(label[0], Sequence) else label
    right = 0
    for found, value in zip(re.findall("[0-9]+", prediction), values, strict=False):
        if int(found) != value:
            break
        right += 1
    return right / len(values)


def longdialogue(prediction: str, label: Sequence[str]) -> float:
    """1 where the first name is one of the words in capitals; a name of two words never is."""
    return float(label[0] in NAME_NOISE.sub(" ", prediction).upper().split())


def longdialogue_lampe(prediction: str, label: Sequence[str]) -> float:
    """1 where any of the names occurs in any case, inside other words too."""
    return float(any(name.upper() in prediction.upper() for name in label))


def choice(prediction: str, label: Sequence[str]) -> float:
    """1 where the prediction begins with the right letter, is one of the label, or gives one of it after a lead-in.

    A prediction that begins with any of A to D is decided by it, be it the article; one with a lead-in by the first of
    them. Failing both, the first word made of neighbouring letters decides.

    Args:
        label: text of the option, its letter.
    """
    prediction = prediction.strip()
    if not prediction:
        return 0.0
    if prediction[0] in "ABCD":
        return float(prediction[0] in label)
    if prediction in label:
        return 1.0
    text = _tidy(CHOICE_NOISE, prediction)
    stated = _after_lead_in(text, CHOICE_LEAD_INS)
    if stated is not None:
        return float(stated.startswith(tuple(label)))
    return float(next((word for word in text.split() if word in "ABCD"), None) in label)


def choice_lampe(prediction: str, label: Sequence[str]) -> float:
    """1 where the last lone letter A to D is the option; else as the official scorer."""
    return 1.0 if _last_letter(prediction.strip(), "A-D") in label else choice(prediction, label)


def qa(prediction: str, label: Sequence[str]) -> float:
    """Token F1 with the best of the labels."""
    return max(token_f1(prediction, reference) for reference in label)


def qa_zh(prediction: str, label: Sequence[str]) -> float:
    """F1 of normalised characters with the best of the labels."""
    text = normalize_zh(prediction)
    return max(bag_f1(text, normalize_zh(reference)) for reference in label)


def summary(prediction: str, label: Any) -> float:
    """ROUGE-Lsum F with the best of the labels, lines for sentences."""
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
    """Score of a prediction, from 0 to 1.

    Args:
        label: as the data file holds it.
        extras: for math_calc ``model``; the prompt of ``gpt4`` makes it repeat the first value, which is dropped.
    """
    if task == "math_calc" and extras.get("model") == "gpt4":
        prediction = re.sub("[0-9]+", "", prediction, count=1)
    return METRICS[scorer][task](prediction, label)
