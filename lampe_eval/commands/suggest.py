"""``lampe-eval suggest``."""

from collections.abc import Iterator

import lampe
from lampe_eval import models
from lampe_eval.method_specs import MethodSpec, method_names
from lampe_eval.models import ModelSource
from lampe_eval.report import tables


def suggest(model: str, length: int, answer: int, window: int | None) -> None:
    """Print the settings of every method for a model and a length, and where each comes from.

    Args:
        model: card, folder or hub id.
        length: tokens of the prompt.
        answer: tokens of the answer.
        window: tokens of pretraining, where the model's configuration is wrong about it.
    """
    source = models.find_model(model, window=window)
    console = tables.console()
    console.print(
        f"{source.name}, window {source.geometry.window}, "
        f"a prompt of {length} tokens and an answer of {answer}; as --method takes them, and why"
    )
    for name in method_names():
        for line in _suggestion(name, source, length, answer):
            console.print(line, soft_wrap=True, markup=False, highlight=False)


def _suggestion(name: str, source: ModelSource, length: int, answer: int) -> Iterator[str]:
    """Yield a method with its settings and largest position, then the rule of each setting."""
    from_card = source.settings.get(name, {})
    spec = MethodSpec(name, name, {})
    method = spec.build(source.settings)
    try:
        settings = method.resolved(source.geometry, length).settings
        encoding = method.encode(source.geometry, length)
    except lampe.LampeError as error:
        yield f"\n{name}: not for this model and length: {error}"
        return
    keys = dict.fromkeys((*method.default_rules(), *from_card))
    shown = {key: settings[key] for key in keys if settings[key] is not None}
    label = spec.with_settings(**shown).label if shown else name
    window = source.geometry.window
    largest = encoding.largest_position(length + answer, source.geometry.rope(length))
    place = f"of {window}" if largest < window else f"BEYOND the window of {window}"
    factor = encoding.effective_attention_factor
    yield f"\n{label}\n    reaches position {largest:.6g} {place}; attention_factor {factor}"
    for key in shown:
        rule = "from the card of the model"
        if key not in from_card:
            rule = method.default_rule(key, from_card)
        yield f"    {key:18}  {rule}"
