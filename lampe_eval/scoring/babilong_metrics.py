"""BABILong's metrics: the label in the first sentence of an answer, by three scorers.

Sources: arXiv 2406.10149 with `babilong/metrics.py` (`babilong`, which the leaderboard uses) and
`babilong/babilong_utils.py` (`babilong_2024`, of the paper's first tables) of booydar/babilong at
7a6efee. `labels` is our own.

Labels of the two official scorers are found inside of words. "one" is in "none", so `babilong`
never grants a `none` of qa7, whatever the answer; and "no" is in the name "Nora", so a question
about her can never be answered with it.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

ROOMS: Final = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
YES_NO: Final = ("no", "yes")
LABELS: Final[Mapping[str, Collection[str]]] = {
    **dict.fromkeys(("qa1", "qa2", "qa3", "qa4", "qa11", "qa12", "qa13"), ROOMS),
    "qa5": ("Bill", "Fred", "Jeff", "Mary", "apple", "football", "milk"),
    **dict.fromkeys(("qa6", "qa9", "qa17", "qa18"), YES_NO),
    "qa7": ("none", "one", "three", "two"),
    "qa8": ("apple", "football", "milk", "nothing"),
    "qa10": ("maybe", *YES_NO),
    "qa14": ("bedroom", "cinema", "kitchen", "office", "park", "school"),
    "qa15": ("cat", "mouse", "sheep", "wolf"),
    "qa16": ("gray", "green", "white", "yellow"),
    "qa19": tuple("e,e e,n e,s n,e n,n n,w s,e s,s s,w w,n w,s w,w".split()),
    "qa20": ("bedroom", "bored", "garden", "hungry", "kitchen", "thirsty", "tired"),
}
"""Possible answers of each official task."""


def babilong(prediction: str, target: str, question: str, labels: Collection[str]) -> bool:
    """Return whether the first sentence names the target alone, as the leaderboard counts.

    Args:
        prediction: the answer.
        target: the right label; of qa8 several, joined by commas.
        question: the question, whose own labels do not count in the answer.
        labels: possible answers of the task.
    """
    text, target = _first_sentence(prediction), target.lower()
    lowered = [label.lower() for label in labels]
    found = {label for label in lowered if label in text and label not in question.lower()}
    # Directions of qa19, such as "n,e", are labels with a comma of their own.
    has_several = "," in target and len(target) > 3
    return found == (set(target.split(",")) if has_several else {target})


def babilong_2024(prediction: str, target: str, question: str, labels: Collection[str]) -> bool:
    """Return whether the target is in the first sentence; arguments are those of `babilong`."""
    return target.lower() in _first_sentence(prediction)


def labels_alone(prediction: str, target: str, question: str, labels: Collection[str]) -> bool:
    """Return whether the first line names the target alone, in whole words.

    Arguments are those of `babilong`.
    """
    line = prediction.strip().partition("\n")[0].partition(".")[0].lower()
    named = set(re.findall(r"\w+", line)) - set(re.findall(r"\w+", question.lower()))
    return named & {label.lower() for label in labels} == {target.lower()}


SCORERS: Final[Mapping[str, Callable[[str, str, str, Collection[str]], bool]]] = {
    "babilong": babilong,
    "babilong_2024": babilong_2024,
    "labels": labels_alone,
}
"""Scorers by the name that a protocol gives."""


def _first_sentence(prediction: str) -> str:
    # Upstream cuts at "Question" as well, which a lower-cased text never holds.
    text = prediction.lower().partition(".")[0]
    return text.partition("<context>")[0].partition("<example>")[0]
