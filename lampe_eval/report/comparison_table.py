"""Comparison of a run with a published table, as CSV, as Markdown and in the terminal."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from lampe_eval.report.markdown import escape_markdown, markdown_row
from lampe_eval.report.table_model import interval_text
from lampe_eval.report.tables import to_csv
from lampe_eval.results.published_comparison import (
    MatchedNumber,
    PublishedComparison,
    compare_with_published,
)
from lampe_eval.results.published_tables import PublishedTable, find_table
from lampe_eval.store import Store

COLUMN_TITLES = (
    "published as",
    "ours",
    "quantity",
    "length",
    "published",
    "ours [95 % interval]",
    "difference",
    "within 95 %",
    "samples",
    "notes",
)
TEXT_COLUMNS = 3
"""Columns that are aligned to the left; the others have numbers."""

MAX_LISTED = 3
"""Names or reasons that a line of the terminal lists."""


@dataclass(frozen=True)
class ComparisonTable:
    """Comparison as text.

    Attributes:
        title: run and table.
        lines: cells by `COLUMN_TITLES`.
        notes: what the letters in the last column stand for.
        unmatched: by heading, the numbers that only the table or only the run has.
        about_table: what is known of the published table.
        summary: the unmatched numbers in a few lines, for the terminal.
    """

    title: str
    lines: list[tuple[str, ...]]
    notes: list[str]
    unmatched: dict[str, list[str]]
    about_table: list[str]
    summary: list[str]


def print_comparison(run: Path, against: str, console: Console) -> None:
    """Compare a run with a published table, write both files into the run's folder, and print it.

    Args:
        run: folder of the run.
        against: name of a shipped table, or a file.
        console: where to print.

    Raises:
        UserError: if the folder holds no run, if the table does not exist or is wrong, or if a file
            cannot be written.
    """
    store = Store(run)
    table = find_table(against)
    name = Path(against).stem
    comparison = compare_with_published(store, table)
    comparison_table = _comparison_table(name, table, comparison)
    csv_name, markdown_name = f"leaderboard-{name}.csv", f"leaderboard-{name}.md"
    store.write(csv_name, to_csv(comparison.frame()))
    store.write(markdown_name, _markdown(comparison_table))
    _print(comparison_table, console)
    files = f"{csv_name}, {markdown_name} (which also lists what has no match)"
    console.print(
        f"written to {store.folder}: {files}", soft_wrap=True, markup=False, highlight=False
    )


def _comparison_table(
    name: str, table: PublishedTable, comparison: PublishedComparison
) -> ComparisonTable:
    notes = list(dict.fromkeys(_note(match) for match in comparison.matches if _note(match)))
    # one published number may match several methods of the run
    matched = len({id(match.published) for match in comparison.matches})
    total = matched + len(comparison.missing)
    return ComparisonTable(
        title=f"{name}: {matched} of {total} published numbers · {table.source_line}",
        lines=[_line(match, notes) for match in comparison.matches],
        notes=[f"{_letter(index)}: {note}" for index, note in enumerate(notes)],
        unmatched={
            "published, but not in the run": list(_missing(comparison)),
            "in the run, but not published": list(_unused(comparison)),
        },
        about_table=[*table.deviations, f"read in: {table.source.read}"],
        summary=list(_summary(comparison)),
    )


def _line(match: MatchedNumber, notes: list[str]) -> tuple[str, ...]:
    number = match.published.number
    decimals = match.published.decimals
    ours = f"{match.value:.{decimals}f} {interval_text(*match.interval)}".rstrip()
    samples = str(match.n)
    if match.n < match.published_samples:
        samples = f"{match.n} of {match.published_samples}"
    return (
        match.published.row.printed,
        f"{match.model} · {match.method}",
        match.published.column,
        "" if match.length is None else str(match.length),
        str(number) if number.is_lower_bound else f"{number.value:.{decimals}f}",
        ours,
        "" if number.is_lower_bound else f"{match.difference:+z.{decimals}f}",
        match.verdict,
        samples,
        _letter(notes.index(_note(match))) if _note(match) else "",
    )


def _note(match: MatchedNumber) -> str:
    """Return what differs, without the number of samples, which has a column of its own."""
    return "; ".join((*match.setting_differences, *match.doubts))


def _letter(index: int) -> str:
    """Return the letter of a note: a to z, then aa, ab and so on."""
    last = chr(ord("a") + index % 26)
    return _letter(index // 26 - 1) + last if index >= 26 else last


def _missing(comparison: PublishedComparison) -> Iterator[str]:
    """Yield published numbers without a match, those of a row with one reason together."""
    # ``groupby`` joins neighbours only, and the numbers of a row are neighbours.
    groups = groupby(comparison.missing, key=lambda item: (item[0].row.printed, item[1]))
    for (printed, reason), group in groups:
        yield f"{printed} ({', '.join(published.column for published, _ in group)}): {reason}"


def _unused(comparison: PublishedComparison) -> Iterator[str]:
    """Yield cells of the run without a published number, those of a bench and length together."""
    keys = ["model", "method", "bench", "length"]
    for (model, method, bench, length), rows in comparison.unused.groupby(keys, sort=False):
        yield f"{model} · {method} · {bench} at {length}: {', '.join(rows['task'])}"


def _summary(comparison: PublishedComparison) -> Iterator[str]:
    """Yield how much has no match, and where nothing matches, what the table and the run have."""
    missing = [published for published, _ in comparison.missing]
    unused = comparison.unused
    if not comparison.matches:
        models = _listed(published.row.model for published in missing)
        ours = "nothing"
        if not unused.empty:
            ours = f"{_listed(unused['model'])} on {_listed(unused['bench'])}"
        published_benches = _listed(_benches(comparison))
        yield f"nothing matches: published is {models} on {published_benches}; in the run is {ours}"
    if missing:
        reasons = Counter(reason for _, reason in comparison.missing).most_common()
        listed = _listed((f"{reason} ({count})" for reason, count in reasons), "; ")
        yield f"published, but not in the run: {len(missing)} numbers: {listed}"
    if comparison.matches and not unused.empty:
        yield f"in the run, but not published: {len(unused)} cells of {_listed(unused['bench'])}"


def _benches(comparison: PublishedComparison) -> Iterator[str]:
    """Yield the benches of published numbers without a match."""
    for published, _ in comparison.missing:
        for cell in published.cells:
            yield cell.task.partition("/")[0]


def _listed(names: Iterable[str], separator: str = ", ") -> str:
    """Return the first few different names, and how many more there are."""
    different = list(dict.fromkeys(names))
    listed = different[:MAX_LISTED]
    if len(different) > MAX_LISTED:
        listed.append(f"and {len(different) - MAX_LISTED} more")
    return separator.join(listed)


def _print(comparison_table: ComparisonTable, console: Console) -> None:
    table = Table()
    for index, title in enumerate(COLUMN_TITLES):
        justify: Literal["left", "right"] = "left" if index < TEXT_COLUMNS else "right"
        table.add_column(title, justify=justify, overflow="fold")
    for line in comparison_table.lines:
        table.add_row(*line)
    console.print(
        comparison_table.title, soft_wrap=True, markup=False, highlight=False, style="bold"
    )
    texts = [*comparison_table.notes, *comparison_table.summary]
    if comparison_table.lines:
        console.print(table)
        texts += [f"about the table: {item}" for item in comparison_table.about_table]
    for text in texts:
        console.print(text, soft_wrap=True, markup=False, highlight=False)


def _markdown(comparison_table: ComparisonTable) -> str:
    lines = [f"# {escape_markdown(comparison_table.title)}", ""]
    if comparison_table.lines:
        alignment = "|---" * TEXT_COLUMNS + "|" + "---:|" * (len(COLUMN_TITLES) - TEXT_COLUMNS)
        lines += [markdown_row(COLUMN_TITLES), alignment]
        for cells in comparison_table.lines:
            lines.append(markdown_row(map(escape_markdown, cells)))
        lines.append("")
    lines += [f"- {escape_markdown(note)}" for note in comparison_table.notes]
    sections = {**comparison_table.unmatched, "about the table": comparison_table.about_table}
    for title, items in sections.items():
        lines += ["", f"## {title.capitalize()}", ""]
        lines += [f"- {escape_markdown(item)}" for item in items or ["nothing"]]
    return "\n".join([*lines, ""])
