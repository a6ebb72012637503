"""Recall of exact values in an answer."""

import re
from collections.abc import Sequence


def recall(prediction: str, values: Sequence[str]) -> float:
    """Return the share of the values that occur in the prediction as whole words, from 0 to 1."""
    found = [
        re.search(rf"(?<!\w){re.escape(value)}(?!\w)", prediction) is not None for value in values
    ]
    return sum(found) / len(found)
