"""Exact recall of values in an answer."""

import re
from collections.abc import Sequence


def recall(prediction: str, values: Sequence[str]) -> float:
    """Share of the values that stand in the prediction as whole words."""
    found = [
        re.search(rf"(?<!\w){re.escape(value)}(?!\w)", prediction) is not None for value in values
    ]
    return sum(found) / len(found)
