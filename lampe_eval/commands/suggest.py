"""Command `lampe-eval suggest`: settings of every method for a model and a length."""

from collections.abc import Iterator

import lampe
from lampe_eval import models, terminal
from lampe_eval.cards import ModelCard
from lampe_eval.commands.show import factor_text
from lampe_eval.method_specs import MethodSpec, method_names
from lampe_eval.models import ModelSource


def suggest(card: ModelCard, name: str, length: int, answer: int, window: int | None) -> None:
    """Print the settings of every method for a model and a length, and where each comes from.

    Args:
        card: the model's card.
        name: the model's name in tables.
        length: tokens of the prompt.
        answer: tokens of the answer, whose positions follow those of the prompt.
        window: tokens of pretraining, where the model's configuration is wrong.

    Raises:
        UserError: if the model cannot be used.
    """
    source = models.describe_model(card, name, window=window)
    console = terminal.console()
    console.print(
        f"{source.name}, window {source.geometry.window}, prompt of {length} tokens, answer of "
        f"{answer}; settings as --method takes them, each with its rule"
    )
    for method in method_names():
        for line in _method_lines(method, source, length, answer):
            console.print(line, soft_wrap=True, markup=False, highlight=False)


def _method_lines(name: str, source: ModelSource, length: int, answer: int) -> Iterator[str]:
    """Yield a method with its settings and its largest position, then a line per setting's rule."""
    model_settings = source.settings.get(name, {})
    spec = MethodSpec(name, name, {})
    method = spec.build(source.settings)
    try:
        settings = method.resolved(source.geometry, length).settings
        encoding = method.encode(source.geometry, length)
    except lampe.LampeError as error:
        yield f"\n{name}: cannot be used for this model and length: {error}"
        return
    keys = dict.fromkeys((*method.default_rules(), *model_settings))
    suggested = {key: settings[key] for key in keys if settings[key] is not None}
    if suggested:
        spec = spec.with_settings(**suggested)
    largest = encoding.largest_position(length + answer, source.geometry.rope(length))
    window = source.geometry.window
    place = "inside" if largest < window else "BEYOND"
    factor = factor_text(method, encoding)
    yield f"\n{spec.label}"
    yield f"    largest position {largest:.6g}, {place} the window of {window}; {factor}"
    for key in suggested:
        if key in model_settings:
            rule = "from the card of the model"
        else:
            rule = method.default_rule(key, model_settings)
        yield f"    {key:18}  {rule}"
