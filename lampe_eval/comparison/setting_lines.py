"""Settings of two results side by side: stated, seen in their prompts, or not stated."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from lampe_eval.comparison import prompt_texts
from lampe_eval.comparison.compared_results import (
    SETTINGS,
    ComparedResult,
    ComparedSample,
    StatedSettings,
    joined,
    task_names,
)
from lampe_eval.comparison.prompt_texts import PromptText
from lampe_eval.comparison.sample_pairs import SamplePair

NOT_STATED = "not stated"
COUNTED = ("scorer", "number of samples")
"""Settings that follow from the samples rather than from a configuration."""


@dataclass(frozen=True)
class SettingLine:
    """Setting of two results.

    Attributes:
        name: its name.
        first: its value in the first result.
        second: its value in the second result.
    """

    name: str
    first: str
    second: str

    @property
    def differs(self) -> bool:
        """Return whether the values differ, or only one of them is stated."""
        return self.first != self.second


def setting_lines(
    first: ComparedResult, second: ComparedResult, pairs: Sequence[SamplePair] = ()
) -> list[SettingLine]:
    """Return the settings of two results, those that agree as well.

    Results of one kind are compared in every field of their configuration, others in what both
    may state.

    Args:
        first: the first result.
        second: the second result.
        pairs: samples that both have; settings are those of their tasks, or of all without any.
    """
    tasks = {pair.first.task for pair in pairs}
    stated = [_stated(result, tasks) for result in (first, second)]
    if first.kind == second.kind and any(of_result.fields for of_result in stated):
        names = list(dict.fromkeys(chain(*(of_result.fields for of_result in stated), COUNTED)))
    else:
        names = list(SETTINGS)
    seen = _seen(pairs)
    lines: list[SettingLine] = []
    for name in dict.fromkeys([*names, *seen]):
        values = [_value(of_result, name) for of_result in stated]
        if name in seen:
            values = _with_seen(values, seen[name])
        lines.append(SettingLine(name, values[0] or NOT_STATED, values[1] or NOT_STATED))
    return [*lines, _order_line(pairs)] if pairs else lines


def _value(stated: StatedSettings, name: str) -> str:
    return stated.fields.get(name) or stated.settings.get(name, "")


def _stated(result: ComparedResult, tasks: Collection[str]) -> StatedSettings:
    """Return the settings of a result's samples of some tasks, with what they count."""
    samples = [sample for sample in result.samples if not tasks or sample.task in tasks]
    stated = result.settings_of(samples)
    counted = {
        "scorer": joined([result.scorers[task].name for task in task_names(samples)]),
        "number of samples": str(len(samples)),
    }
    return replace(stated, settings={**stated.settings, **counted})


def _seen(pairs: Sequence[SamplePair]) -> Mapping[str, tuple[str, str]]:
    """Return what the prompts of both results show of settings, empty where they show nothing."""
    first = _prompts([pair.first for pair in pairs])
    second = _prompts([pair.second for pair in pairs])
    seen = {
        "begin of text": (prompt_texts.begin_of_text(first), prompt_texts.begin_of_text(second)),
        "chat template": (prompt_texts.chat_markers(first), prompt_texts.chat_markers(second)),
        "line breaks": (prompt_texts.line_breaks(first), prompt_texts.line_breaks(second)),
        "wording": _seen_wording(pairs),
        "truncation": _seen_truncation(pairs),
    }
    return {name: values for name, values in seen.items() if any(values)}


def _prompts(samples: Sequence[ComparedSample]) -> list[PromptText]:
    return [sample.prompt for sample in samples if sample.prompt is not None]


def _seen_wording(pairs: Sequence[SamplePair]) -> tuple[str, str]:
    """Return the wording of the first task whose prompts begin or end otherwise."""
    by_task: dict[str, list[SamplePair]] = {}
    for pair in pairs:
        by_task.setdefault(pair.first.task, []).append(pair)
    wordings = []
    for of_task in by_task.values():
        first = prompt_texts.wording(_prompts([pair.first for pair in of_task]))
        second = prompt_texts.wording(_prompts([pair.second for pair in of_task]))
        wordings.append((first, second))
    different = [(first, second) for first, second in wordings if first != second]
    return [*different, *wordings, ("", "")][0]


def _seen_truncation(pairs: Sequence[SamplePair]) -> tuple[str, str]:
    """Return the sides from which one result removed text that the other one has."""
    removed: tuple[list[str | None], list[str | None]] = ([], [])
    for pair in pairs:
        first, second = pair.first.prompt, pair.second.prompt
        if first is not None and second is not None:
            removed[0].append(prompt_texts.removed_part(first, second) or None)
            removed[1].append(prompt_texts.removed_part(second, first) or None)
    sides = [joined(parts) for parts in removed]
    if not any(sides):
        return "", ""
    return sides[0] or "none", sides[1] or "none"


def _with_seen(stated: Sequence[str], seen: Sequence[str]) -> list[str]:
    """Return values as prompts show them, where both do or nothing is stated."""
    if all(seen):
        return [f"{value} (seen in prompts)" for value in seen]
    values = []
    for of_result, in_prompts in zip(stated, seen, strict=True):
        values.append(of_result or (f"{in_prompts} (seen in prompts)" if in_prompts else ""))
    return values


def _order_line(pairs: Sequence[SamplePair]) -> SettingLine:
    """Return the order of the samples, in that of the first result."""
    by_group: dict[tuple[str, str, int | None], list[int]] = {}
    for pair in pairs:
        group = (pair.first.setup, pair.first.task, pair.first.length)
        by_group.setdefault(group, []).append(pair.places[1])
    for places in by_group.values():
        if places != sorted(places):
            ranks = [str(sorted(places).index(place) + 1) for place in places[:5]]
            return SettingLine("order of samples", "1, 2, ...", f"{', '.join(ranks)}, ...")
    return SettingLine("order of samples", "the same", "the same")
