"""Command `lampe-eval suggest`: settings of every method for a model and a length."""

from collections.abc import Iterable

import lampe
from lampe_eval import models, terminal
from lampe_eval.cards import ModelCard
from lampe_eval.commands.show import factor_text
from lampe_eval.method_specs import FORGOTTEN, MethodSpec
from lampe_eval.models import ModelSource

MIN_NAME_WIDTH = 18
"""Letters of the column of settings: most methods then have it in one place."""


def suggest(
    card: ModelCard,
    name: str,
    specs: Iterable[MethodSpec],
    length: int,
    answer: int,
    window: int | None,
) -> None:
    """Print the settings of methods for a model and a length, and where each comes from.

    Methods plan for prompt and answer together, as protocol `fair` does.

    Args:
        card: the model's card.
        name: the model's name in tables.
        specs: the methods.
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
    beyond: list[str] = []
    for spec in specs:
        lines, leaves_window = _method_lines(spec, source, length + answer)
        for line in lines:
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        if leaves_window:
            beyond.append(spec.label)
    if beyond:
        console.print(
            f"\nbeyond the window of {source.geometry.window} at {length + answer} tokens, answer "
            f"included: {', '.join(beyond)}; take another method, or settings that reach less far",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )


def _method_lines(spec: MethodSpec, source: ModelSource, tokens: int) -> tuple[list[str], bool]:
    """Return the lines about a method, and whether its positions leave the window.

    Lines are its settings, its largest position, and the rule of each setting.
    """
    method = spec.build(source.settings)
    try:
        settings = method.resolved(source.geometry, tokens).settings
        encoding = method.encode(source.geometry, tokens)
    except lampe.LampeError as error:
        return [f"\n{spec.label}: cannot be used for this model and length: {error}"], False
    model_settings = spec.settings_of_model(source.settings)
    rules = method.setting_rules({*model_settings, *spec.settings})
    keys = dict.fromkeys((*rules, *model_settings))
    suggested = {
        key: settings[key] for key in keys if settings[key] is not None and key not in spec.settings
    }
    label = spec.with_settings(**suggested).label if suggested else spec.label
    largest = encoding.largest_position(tokens, source.geometry.rope(tokens))
    window = source.geometry.window
    place = "inside" if largest < window else "BEYOND"
    factor = factor_text(method, encoding)
    lines = [
        f"\n{label}",
        f"    largest position {largest:.6g}, {place} the window of {window}; {factor}",
    ]
    if visible := encoding.plan.visible:
        lines.append(f"    sees {visible.describe(tokens)}; {FORGOTTEN}")
    width = max(MIN_NAME_WIDTH, *map(len, suggested), 0)
    for key in suggested:
        rule = "from the card of the model" if key in model_settings else rules[key]
        lines.append(f"    {key:{width}}  {rule}")
    if _has_factor_within_window(method, source.geometry):
        alternative = spec.with_settings(attention_factor_from="window").label
        lines.append(
            f"    instead, for short prompts: {alternative}; the released factor then acts beyond "
            "the window only, which is not what the authors run"
        )
    return lines, largest >= window


def _has_factor_within_window(method: lampe.Method, geometry: lampe.Geometry) -> bool:
    """Return whether the released attention factor changes prompts that fit the window."""
    released = method.settings.get("attention_factor") == "released"
    begins = method.settings.get("attention_factor_from") == "start"
    within = method.attention_factor_of(geometry, geometry.window)
    return released and begins and within.factor != 1
