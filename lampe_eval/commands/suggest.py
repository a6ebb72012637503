"""``lampe-eval suggest``."""

from collections.abc import Iterator

import lampe
from lampe_eval import models
from lampe_eval.cards import MethodCard, shipped_card, shipped_names
from lampe_eval.method_specs import MethodSpec
from lampe_eval.models import ModelSource
from lampe_eval.report import tables


def suggest(model: str, length: int, answer: int, window: int | None) -> None:
    """Prints what every method takes for a model and a length, and where each setting comes from."""
    source = models.find_model(model, window=window)
    console = tables.console()
    console.print(
        f"{source.name}, window {source.geometry.window}, a prompt of {length} tokens and an answer of {answer}; "
        "as --method takes them, and why"
    )
    for name in shipped_names("methods"):
        for line in _suggested(name, source, length, answer):
            console.print(line, soft_wrap=True, markup=False, highlight=False)


def _suggested(name: str, source: ModelSource, length: int, answer: int) -> Iterator[str]:
    """A method with its settings and how far it reaches, then a line for the rule of each setting."""
    card, own = shipped_card("methods", name, MethodCard), source.settings.get(name, {})
    method = MethodSpec(name, name, {}).build(source.settings)
    try:
        settings = method.resolved(source.geometry, length).settings
        encoding = method.encode(source.geometry, length)
    except lampe.LampeError as error:
        yield f"\n{name}: not for this model and length: {error}"
        return
    shown = {
        key: settings[key]
        for key in dict.fromkeys((*card.rules, *own))
        if settings[key] is not None
    }
    spec = (
        MethodSpec(name, name, {}).with_settings(**shown) if shown else MethodSpec(name, name, {})
    )
    reach, window = (
        encoding.largest_position(length + answer, source.geometry.rope(length)),
        source.geometry.window,
    )
    place = f"of {window}" if reach < window else f"BEYOND the window of {window}"
    yield f"\n{spec.label}\n    reaches position {reach:.6g} {place}; attention_factor {encoding.effective_attention_factor}"
    for key in shown:
        yield f"    {key:18}  {'from the card of the model' if key in own else card.rule(key, own)}"
