"""Models of tests, described from the names that users give."""

from lampe_eval.cards import find_model_card
from lampe_eval.models import ModelSource, describe_model


def find_model(name: str, *, window: int | None = None, dtype: str | None = None) -> ModelSource:
    """Find a model by name and describe it, as a command does with --model, --window, --dtype."""
    card, label = find_model_card(name)
    return describe_model(card, label, window=window, dtype=dtype)
