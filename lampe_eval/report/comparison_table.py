"""A comparison on paper: leaderboard-<table>.csv and leaderboard-<table>.md of a run, and the same in the terminal."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lampe_eval.report.markdown import escape_markdown, markdown_row
from lampe_eval.report.tables import to_csv
from lampe_eval.results.published_comparison import (
    MatchedNumber,
    PublishedComparison,
    compare_with_published,
)
from lampe_eval.results.published_tables import PublishedTable, find_table
from lampe_eval.store import Store

HEAD = (
    "published as",
    "ours",
    "number",
    "length",
    "published",
    "ours ± error",
    "difference",
    "within 95 %",
    "samples",
    "differs",
)

FEW = 3
"""Names or reasons in a row that a reader of the terminal takes in."""


@dataclass(frozen=True)
class ComparisonTable:
    """A comparison as text.

    Attributes:
        title: what is beside what.
        lines: cells by ``HEAD``.
        notes: what the letters in the last column stand for.
        alone: what either side has alone.
        known: of the table.
        summary: of what either side has alone, for the terminal.
    """

    title: str
    lines: list[tuple[str, ...]]
    notes: list[str]
    alone: dict[str, list[str]]
    known: list[str]
    summary: list[str]


def print_comparison(run: Path, against: str, console: Console) -> None:
    """Puts a run beside a table, writes both files into its folder, and prints the comparison.

    Raises:
        UserError: for a folder that holds no run, a table that does not exist or is wrong, and a disk that refuses.
    """
    store, table, name = Store(run), find_table(against), Path(against).stem
    comparison = compare_with_published(store, table)
    sheet = _sheet(name, table, comparison)
    store.write(f"leaderboard-{name}.csv", to_csv(comparison.frame()))
    store.write(f"leaderboard-{name}.md", _markdown(sheet))
    _print(sheet, console)
    files = f"leaderboard-{name}.csv, leaderboard-{name}.md; the latter lists what either has alone"
    console.print(
        f"written to {store.folder}: {files}", soft_wrap=True, markup=False, highlight=False
    )


def table_source(table: PublishedTable) -> str:
    """Where a table is from, in a line."""
    source = table.source
    places = [f"arXiv {source.arxiv}"] * bool(source.arxiv) + [source.repository] * bool(
        source.repository
    )
    return f"{source.title} ({', '.join(places)}), {source.table}"


def _sheet(name: str, table: PublishedTable, comparison: PublishedComparison) -> ComparisonTable:
    notes = list(dict.fromkeys(note for match in comparison.matches if (note := _note(match))))
    lines = [_line(match, notes) for match in comparison.matches]
    alone = {
        "published, but not in the run": list(_missing(comparison)),
        "in the run, but not published": list(_unused(comparison)),
    }
    known = [*table.deviations, f"read in: {table.source.read}"]
    found = len({id(match.figure) for match in comparison.matches})
    title = f"{name}: {found} of {found + len(comparison.missing)} published numbers · {table_source(table)}"
    lettered = [f"{_letter(index)}: {note}" for index, note in enumerate(notes)]
    return ComparisonTable(title, lines, lettered, alone, known, list(_summary(comparison)))


def _line(match: MatchedNumber, notes: list[str]) -> tuple[str, ...]:
    number, decimals, error = match.figure.number, match.figure.decimals, match.stderr
    bound = f">{number.value:g}" if number.above else f"{number.value:.{decimals}f}"
    return (
        match.figure.row.printed,
        f"{match.model} · {match.method}",
        match.figure.column,
        "" if match.length is None else str(match.length),
        bound,
        f"{match.value:.{decimals}f}" + ("" if math.isnan(error) else f" ± {error:.{decimals}f}"),
        "" if number.above else f"{match.difference:+.{decimals}f}",
        match.verdict,
        str(match.n) if match.n >= match.wanted else f"{match.n} of {match.wanted}",
        _letter(notes.index(_note(match))) if _note(match) else "",
    )


def _note(match: MatchedNumber) -> str:
    """What differs but for the samples, which have a column of their own."""
    return "; ".join((*match.differs, *match.doubts))


def _letter(index: int) -> str:
    """a to z, then aa, ab and so on."""
    return (_letter(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def _missing(comparison: PublishedComparison) -> Iterator[str]:
    """Published numbers without ours, those of a row that lack for one reason together."""
    for (printed, why), group in groupby(
        comparison.missing, key=lambda item: (item[0].row.printed, item[1])
    ):
        yield f"{printed} ({', '.join(figure.column for figure, _ in group)}): {why}"


def _unused(comparison: PublishedComparison) -> Iterator[str]:
    """Cells of the run without a published number, those of a bench at a length together."""
    keys = ["model", "method", "bench", "length"]
    for (model, method, bench, length), rows in comparison.unused.groupby(keys, sort=False):
        yield f"{model} · {method} · {bench} at {length}: {', '.join(rows['task'])}"


def _summary(comparison: PublishedComparison) -> Iterator[str]:
    """How much either side has alone, and where nothing matches what each is about."""
    figures, unused = [figure for figure, _ in comparison.missing], comparison.unused
    if not comparison.matches:
        benches = (cell.task.partition("/")[0] for figure in figures for cell in figure.cells)
        published = f"{_few(figure.row.model for figure in figures)} on {_few(benches)}"
        ours = "nothing" if unused.empty else f"{_few(unused['model'])} on {_few(unused['bench'])}"
        yield f"nothing matches: published is {published}; in the run is {ours}"
    if figures:
        reasons = Counter(why for _, why in comparison.missing).most_common()
        told = _few((f"{why} ({count})" for why, count in reasons), "; ")
        yield f"published, but not in the run: {len(figures)} numbers: {told}"
    if comparison.matches and not unused.empty:
        yield f"in the run, but not published: {len(unused)} cells of {_few(unused['bench'])}"


def _few(names: Iterable[str], comma: str = ", ") -> str:
    """The first few of some names, each once, and how many more there are."""
    distinct = list(dict.fromkeys(names))
    more = [f"and {len(distinct) - FEW} more"] if len(distinct) > FEW else []
    return comma.join([*distinct[:FEW], *more])


def _print(sheet: ComparisonTable, console: Console) -> None:
    table = Table()
    for index, title in enumerate(HEAD):
        table.add_column(title, justify="left" if index < 3 else "right", overflow="fold")
    for line in sheet.lines:
        table.add_row(*line)
    console.print(sheet.title, soft_wrap=True, markup=False, highlight=False, style="bold")
    if sheet.lines:
        console.print(table)
    known = [f"known of the table: {item}" for item in sheet.known] if sheet.lines else []
    for text in (*sheet.notes, *sheet.summary, *known):
        console.print(text, soft_wrap=True, markup=False, highlight=False)


def _markdown(sheet: ComparisonTable) -> str:
    lines = [f"# {escape_markdown(sheet.title)}", ""]
    if sheet.lines:
        rows = (markdown_row(map(escape_markdown, line)) for line in sheet.lines)
        lines += [markdown_row(HEAD), "|---|---|---|" + "---:|" * (len(HEAD) - 3), *rows, ""]
    lines += [f"- {escape_markdown(note)}" for note in sheet.notes]
    for title, items in {**sheet.alone, "known of the table": sheet.known}.items():
        lines += [
            "",
            f"## {title.capitalize()}",
            "",
            *(f"- {escape_markdown(item)}" for item in items or ["nothing"]),
        ]
    return "\n".join([*lines, ""])
