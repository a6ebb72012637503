"""OOLONG's scores: an answer is equal to the right one, or near it where it is a number.

Source: `src/eval/eval_helpers.py` of abertsch72/oolong at adbf1cb. Its answers to questions about
synthetic data (`synth_score`) and about transcripts (`real_score`) are read by different rules.
"""

import ast
import re
from contextlib import suppress
from datetime import datetime
from typing import Any

DATE = "[datetime.date(%Y, %m, %d)]"
SHORT_ANSWER = 20
"""Letters below which the text after the last colon is the answer as it is."""
PHRASES = ("more common", "less common", "same frequency")
BOXED = (re.compile(r"\\boxed\{\\text\{([^}]*)\}\}"), re.compile(r"\\boxed[{]+([^}]*)[}]+"))
ERROR_FACTOR = 0.75
"""Score of a number that is wrong by one; its powers are those of larger errors."""


def synth_score(prediction: str, answer: str, answer_type: str) -> float:
    """Return the score of an answer about synthetic data.

    Args:
        prediction: the model's answer.
        answer: the right one, a Python list as text.
        answer_type: "ANSWER_TYPE.NUMERIC", "ANSWER_TYPE.DATE" or another type.
    """
    expected = parse_answer(answer)
    found = read_answer(prediction)
    if found == str(expected):
        return 1.0
    if found in PHRASES:
        return float(found in str(expected))
    # Whatever is no number or date is wrong; dateutil raises errors of several kinds.
    if answer_type == "ANSWER_TYPE.NUMERIC":
        with suppress(ValueError, TypeError):
            return float(ERROR_FACTOR ** abs(int(expected) - int(found)))
    elif answer_type == "ANSWER_TYPE.DATE":
        from dateutil import parser  # type: ignore[import-untyped]

        with suppress(ValueError, OverflowError):
            return float(parser.parse(found) == expected)
    return 0.0


def parse_answer(answer: str) -> Any:
    """Return the right answer: the first item of a Python list, or a date.

    Raises:
        ValueError: for a text that is neither.
    """
    if "datetime" in answer:
        return datetime.strptime(answer, DATE)
    try:
        items = ast.literal_eval(answer)
    except (SyntaxError, RecursionError):
        items = None
    if not isinstance(items, list) or not items:
        raise ValueError(f"'answer': must be a Python list with an item, got {answer!r}")
    return items[0]


def read_answer(prediction: str) -> str:
    """Return the part of a prediction that is compared: its last word, or what a colon leads to."""
    if ":" not in prediction:
        is_short = len(prediction) < SHORT_ANSWER
        # Only white space can be long and have no word; upstream stops at it.
        return prediction if is_short else (prediction.split() or [""])[-1]
    found = re.sub(r"[*\[\]]", "", prediction.rpartition(":")[2].strip())
    if len(found) < SHORT_ANSWER:
        return found
    return next((phrase for phrase in PHRASES if phrase in found), found)


def real_score(prediction: str, answer: str) -> float:
    """Return the score of an answer about transcripts, which stands in a LaTeX box.

    Of a list the items that are found count, and further ones cost nothing.
    """
    expected = _typed(answer)
    found = _boxed(prediction)
    match expected, found:
        case int(), int():
            return float(ERROR_FACTOR ** abs(expected - found))
        case str(), str():
            return float(expected.strip().lower() == found.strip().lower())
        case list(), list() if expected:
            return len({*expected} & {*found}) / len(expected)
    return 0.0


def _boxed(prediction: str) -> int | str | list[str]:
    """Return what stands in the first box, or a prediction without one as text."""
    for box in BOXED:
        match = box.search(prediction)
        if match:
            return _typed(match[1])
    return prediction


def _typed(text: str) -> int | str | list[str]:
    """Return a text as a number, as a list if it has commas, or as it is."""
    with suppress(ValueError):
        return int(text)
    if "," in text:
        return [item.strip() for item in text.split(",") if item.strip()]
    return text
