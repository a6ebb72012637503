"""Report on two compared results, as tables and lines for the terminal and in Markdown."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lampe_eval.comparison.result_comparison import (
    ComparedGroup,
    ComparedMean,
    ResultComparison,
)
from lampe_eval.comparison.score_split import PARTS, ScoreSplit
from lampe_eval.comparison.setting_lines import NOT_STATED, SettingLine
from lampe_eval.report.markdown import escape_markdown, markdown_row
from lampe_eval.report.table_model import difference_text, interval_text
from lampe_eval.scoring.reported_scores import ReportedScore

PART_WORDS = {
    "samples": "samples that only one result has",
    "prompt": "answers to other prompts",
    "answer": "other answers to the same prompts",
    "prompt or answer": "other answers, where prompts are not stored by both",
    "scorer": "the same answers by the other scorer",
}
"""What each part of a difference is."""
IN_BRACKETS = "In brackets: the 95 % interval."
NO_NUMBER = "-"
LEAST_P = 0.0001
"""Smaller p-values are given as less than this."""
SHOWN_NAMES = 20
"""Settings that are the same, of which the names are shown rather than the number."""
SHOWN_VALUE = 60
"""Characters of a setting's value that are shown around its first difference."""


@dataclass(frozen=True)
class ReportSection:
    """Section of the report.

    Attributes:
        title: its title.
        columns: titles of the table's columns; empty if there is no table.
        rows: rows of the table.
        lines: lines below it.
        is_literal: whether the lines stand below each other, character by character.
    """

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()
    is_literal: bool = False


def comparison_sections(comparison: ResultComparison) -> Iterator[ReportSection]:
    """Yield the sections of the report on two results."""
    yield ReportSection("Why do two results differ?", lines=list(_samples(comparison)))
    yield _settings(comparison.settings)
    yield _scores(comparison)
    yield _split(comparison)
    yield _prompts(comparison)
    yield _tests(comparison.groups)


def print_sections(sections: Sequence[ReportSection], console: Console) -> None:
    """Print sections on the terminal."""
    for section in sections:
        if section.columns:
            table = Table(title=escape(section.title), title_justify="left", title_style="bold")
            for column in section.columns:
                table.add_column(escape(column), overflow="fold")
            for row in section.rows:
                table.add_row(*map(escape, row))
            console.print(table)
        else:
            console.print(section.title, style="bold", markup=False, highlight=False)
        for line in section.lines:
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        console.print()


def sections_to_markdown(sections: Sequence[ReportSection]) -> str:
    """Return sections in Markdown."""
    lines: list[str] = []
    for section in sections:
        lines += [f"## {section.title}", ""]
        if section.columns:
            lines.append(markdown_row(map(escape_markdown, section.columns)))
            lines.append(f"|{'---|' * len(section.columns)}")
            for row in section.rows:
                lines.append(markdown_row(map(escape_markdown, row)))
            lines.append("")
        if section.is_literal:
            lines += ["```text", *section.lines, "```", ""]
        else:
            for line in section.lines:
                lines += [escape_markdown(line), ""]
    return "\n".join(lines)


def _samples(comparison: ResultComparison) -> Iterator[str]:
    first, second, pairs = comparison.first, comparison.second, comparison.pairs
    for letter, result in (("A", first), ("B", second)):
        yield f"{letter}: {result.name} ({result.kind}), {len(result.samples)} scored samples"
    by = ", ".join(f"{count} by {name}" for name, count in comparison.paired_by.items())
    yield f"{len(pairs)} samples pair: {by}"
    prompts = {
        True: "pairs with the same prompt",
        False: "pairs with different prompts",
        None: "pairs whose prompts are not stored by both",
    }
    for same, words in prompts.items():
        count = sum(pair.same_prompt is same for pair in pairs)
        if count:
            yield f"{words}: {count}"


def _settings(settings: Sequence[SettingLine]) -> ReportSection:
    """Return the settings that differ, or that only one result states."""
    lines: list[str] = []
    differing = [line for line in settings if line.differs]
    both = sorted(differing, key=lambda line: NOT_STATED in (line.first, line.second))
    rows = [(line.name, *_around_difference(line.first, line.second)) for line in both]
    same = [line.name for line in settings if not line.differs and line.first != NOT_STATED]
    neither = [line.name for line in settings if line.first == line.second == NOT_STATED]
    if not rows:
        lines.append("No stated setting differs.")
    if same:
        names = ", ".join(same) if len(same) <= SHOWN_NAMES else str(len(same))
        lines.append(f"Settings that are the same: {names}.")
    if neither:
        lines.append(f"Stated by neither: {', '.join(neither)}.")
    columns = ("setting", "A", "B") if rows else ()
    return ReportSection("Settings that differ", columns, rows, lines)


def _around_difference(first: str, second: str) -> tuple[str, str]:
    """Return long values from a little before the place where they differ."""
    if max(len(first), len(second)) <= 2 * SHOWN_VALUE:
        return first, second
    same = 0
    while first[same : same + 1] == second[same : same + 1] != "":
        same += 1
    begin = max(0, same - SHOWN_VALUE // 2)
    shown = []
    for value in (first, second):
        part = value[begin : begin + 2 * SHOWN_VALUE]
        before = "... " if begin else ""
        shown.append(f"{before}{part}{' ...' if len(value) > begin + len(part) else ''}")
    return shown[0], shown[1]


def _scores(comparison: ResultComparison) -> ReportSection:
    """Return the scores of both results by both scorers, on the samples that both have."""
    rows: list[list[str]] = []
    for group in comparison.groups:
        for scorer in dict.fromkeys(scorer for _, scorer in group.split.crossed):
            first, second = (group.split.crossed[result, scorer] for result in ("A", "B"))
            numbers = [_score(first), _score(second)]
            rows.append([_name(group), str(len(group.pairs)), scorer, *numbers])
    columns = ("task", "samples", "scorer", "A", "B")
    lines = [IN_BRACKETS]
    if any(NO_NUMBER in row for row in rows):
        lines.append(
            "A dash: this scorer cannot score these answers, of which it has stored no score."
        )
    return ReportSection("Scores of the shared samples, by both scorers", columns, rows, lines)


def _split(comparison: ResultComparison) -> ReportSection:
    """Return the difference of both scores in parts, by task and as means of benchmarks."""
    splits: list[tuple[str, str, ScoreSplit]] = []
    for group in comparison.groups:
        splits.append((_name(group), "{} and {}".format(*group.counts), group.split))
    for mean in comparison.means:
        splits.append((_mean_name(mean), "", mean.split))
    known = set(chain.from_iterable(split.parts for _, _, split in splits))
    names = [name for name in PARTS if name in known]
    rows: list[list[str]] = []
    for task, counts, split in splits:
        missing = 0.0 if split.parts else math.nan
        parts = [_signed(split.parts.get(name, missing)) for name in names]
        scores = [_score(split.first), _score(split.second), _signed(split.difference)]
        rows.append([task, counts, *scores, *parts])
    lines = [
        IN_BRACKETS,
        "The parts sum to A - B.",
        *(f"{name}: {PART_WORDS[name]}." for name in names),
    ]
    if not all(split.parts for _, _, split in splits):
        lines.append("A dash: no scorer scores both results, so that nothing can be split.")
    columns = ("task", "samples", "A", "B", "A - B", *names)
    return ReportSection("Where the difference comes from", columns, rows, lines)


def _prompts(comparison: ResultComparison) -> ReportSection:
    """Return the first different prompt with the differing characters."""
    title = "First prompt that differs"
    difference = comparison.prompt
    if difference is None:
        return ReportSection(title, lines=["No difference between stored prompts is known."])
    sample = difference.pair.first
    length = f" at {sample.length}" if sample.length else ""
    name = f"{sample.task}{length}, sample {difference.sample_name}"
    if difference.text is None:
        where = "their hashes differ, but not the beginning and the end that are stored"
        return ReportSection(title, lines=[f"{name}: {where}"])
    text = difference.text
    lines = [
        f"{name}, {text.where}:",
        f"A: {text.first}",
        f"B: {text.second}",
        f"   {' ' * text.column}^",
    ]
    return ReportSection(title, lines=lines, is_literal=True)


def _tests(groups: Sequence[ComparedGroup]) -> ReportSection:
    """Return the paired tests of samples whose prompts are not known to differ."""
    title = "Paired test of the same samples"
    rows: list[list[str]] = []
    for group in groups:
        if group.test is None:
            continue
        test = group.test
        interval = NO_NUMBER
        if test.interval:
            _, interval = difference_text(test.difference, *test.interval)
        rows.append(
            [
                _name(group),
                str(test.n),
                "the same" if test.same_prompts else "not stored by both",
                test.scorer,
                _signed(test.difference),
                interval,
                _p_value(test.p_value),
            ]
        )
    if not rows:
        return ReportSection(title, lines=["No sample has the same prompt and a common scorer."])
    columns = ("task", "samples", "prompts", "scorer", "A - B", "95 % interval", "p")
    return ReportSection(title, columns, rows)


def _p_value(p_value: float | None) -> str:
    if p_value is None:
        return NO_NUMBER
    return f"{p_value:.4f}" if p_value >= LEAST_P else f"< {LEAST_P}"


def _name(group: ComparedGroup) -> str:
    return _place(group.setup, group.task, group.length)


def _mean_name(mean: ComparedMean) -> str:
    return _place(mean.setup, f"mean of {mean.tasks} tasks of {mean.bench}", mean.length)


def _place(setup: str, task: str, length: int | None) -> str:
    at_length = f" at {length}" if length else ""
    return f"{setup} · {task}{at_length}" if setup else f"{task}{at_length}"


def _score(score: ReportedScore) -> str:
    if math.isnan(score.value):
        return NO_NUMBER
    return f"{score.value:.2f} {interval_text(*score.interval)}".rstrip()


def _signed(value: float) -> str:
    # Rounded first, so that nothing is "-0.00".
    return NO_NUMBER if math.isnan(value) else f"{round(value, 2) + 0.0:+.2f}"
