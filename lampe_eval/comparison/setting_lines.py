"""Settings of two results side by side: stated, seen in their prompts, or not stated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lampe_eval.comparison import prompt_texts
from lampe_eval.comparison.compared_results import SETTINGS, ComparedResult, ComparedSample, joined
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
        """Whether the values differ, or only one of them is stated."""
        return self.first != self.second


def setting_lines(
    first: ComparedResult, second: ComparedResult, pairs: Sequence[SamplePair]
) -> list[SettingLine]:
    """Return the settings of two results, those that agree as well.

    Results of one kind are compared in every field of their configuration, others in what both
    may state.
    """
    tasks = list(dict.fromkeys(pair.first.task for pair in pairs))
    fields = _fields(first, tasks), _fields(second, tasks)
    if first.kind == second.kind and any(fields):
        names = [*dict.fromkeys([*fields[0], *fields[1]]), *COUNTED]
    else:
        names = list(SETTINGS)
    stated = {**first.settings, **fields[0]}, {**second.settings, **fields[1]}
    seen = _seen(pairs)
    lines: list[SettingLine] = []
    for name in [*names, *(name for name in seen if name not in names)]:
        values = [of_result.get(name, "") for of_result in stated]
        if name in seen:
            values = _with_seen(values, seen[name])
        lines.append(SettingLine(name, *(value or NOT_STATED for value in values)))
    return [*lines, _order_line(pairs)]


def _fields(result: ComparedResult, tasks: Sequence[str]) -> dict[str, str]:
    """Return every field of a result's configuration for its compared tasks and setups."""
    fields: dict[str, str] = {}
    for task in tasks:
        fields |= result.task_fields.get(task, {})
    fields |= result.fields
    setups = list(result.setup_fields.values())
    for name in dict.fromkeys(key for setup in setups for key in setup):
        fields[name] = joined([setup.get(name) for setup in setups])
    return fields


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
    removed: tuple[list[str], list[str]] = ([], [])
    for pair in pairs:
        first, second = pair.first.prompt, pair.second.prompt
        if first is not None and second is not None:
            removed[0].append(prompt_texts.removed_part(first, second))
            removed[1].append(prompt_texts.removed_part(second, first))
    sides = [joined([part for part in parts if part]) for parts in removed]
    if not any(sides):
        return "", ""
    first_side, second_side = (side or "less than the other" for side in sides)
    return first_side, second_side


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
