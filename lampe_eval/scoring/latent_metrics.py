"""Metrics of latent needles: whether an answer names the person.

`one_name` is our own. The others are those of `evaluation/` of adobe-research/NoLiMa at 7532e4e;
its published numbers are of `contains`, by which "Ilsebill" counts for Ilse.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final


def one_name(prediction: str, references: Sequence[str], names: Collection[str]) -> bool:
    """Return whether an answer names the right person in whole words, and nobody else.

    Args:
        prediction: the answer.
        references: the right name.
        names: all names that may stand in the text; else a list of them all would be right.
    """
    named = {name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", prediction)}
    return named == set(references)


def contains(prediction: str, references: Sequence[str], names: Collection[str] = ()) -> bool:
    """Return whether any reference is in the answer, inside of words as well."""
    return any(reference in prediction for reference in references)


def exact_match(prediction: str, references: Sequence[str], names: Collection[str] = ()) -> bool:
    """Return whether the answer is a reference, apart from white space around it."""
    return prediction.strip() in references


def _last_line(prediction: str) -> str:
    return prediction.strip().rpartition("\n")[2]


SCORERS: Final[Mapping[str, Callable[[str, Sequence[str], Collection[str]], bool]]] = {
    "one_name": one_name,
    "contains": contains,
    "EM": exact_match,
    "lastline_contains": lambda text, *others: contains(_last_line(text), *others),
    "lastline_EM": lambda text, *others: exact_match(_last_line(text), *others),
}
"""Scorers by the name that a protocol gives."""
