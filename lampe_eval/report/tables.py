"""Tables in the terminal and in files."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pandas.api.types import is_numeric_dtype
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from lampe_eval.file_io import save_files
from lampe_eval.report.labels import COLUMN_LABEL_WIDTH, ROW_LABEL_WIDTH, wrap_label
from lampe_eval.report.latex import to_latex
from lampe_eval.report.markdown import to_markdown
from lampe_eval.report.report_tables import report_tables
from lampe_eval.report.settings_table import settings_columns, settings_tables
from lampe_eval.report.table_model import ResultTable
from lampe_eval.results.cell_scores import (
    DETAIL_COLUMNS,
    SCORE_COLUMNS,
    scores_by_length,
    tasks_below_card_size,
)
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.method_differences import PAIR_COLUMNS

FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters with which a text begins that a spreadsheet takes for a formula."""
UNLIMITED_WIDTH = 10_000
"""Characters that no table reaches."""


def table_files(gathered: GatheredRuns, tables: Sequence[ResultTable]) -> dict[str, str]:
    """Return the files of runs and of the tables of their scores, by name."""
    frames = {
        "scores.csv": gathered.scores[["run", "settings", *SCORE_COLUMNS]].join(
            settings_columns(gathered.scores)
        ),
        "details.csv": gathered.details[["run", *DETAIL_COLUMNS]],
        "pairs.csv": gathered.pairs[[*PAIR_COLUMNS]],
        "table.csv": scores_by_length(gathered.scores),
    }
    if not gathered.decisions.empty:
        frames["decisions.csv"] = gathered.decisions
    texts = {name: to_csv(gathered.tidy(frame)) for name, frame in frames.items()}
    texts["table.md"] = "\n".join(map(to_markdown, tables))
    texts["table.tex"] = to_latex(tables)
    of_settings = list(settings_tables(gathered))
    if of_settings:
        texts["settings.md"] = "\n".join(map(to_markdown, of_settings))
        texts["settings.tex"] = to_latex(of_settings)
    return texts


def to_csv(frame: pd.DataFrame, number_format: str | None = None) -> str:
    """Return a frame as CSV, with an apostrophe before what a spreadsheet takes for a formula.

    Args:
        frame: the frame.
        number_format: format of numbers such as "%.6g"; by default at most six decimals.
    """
    text_columns = [name for name in frame if not is_numeric_dtype(frame[name])]
    texts = frame[text_columns].map(_without_formula)
    return frame.assign(**texts).to_csv(index=False, float_format=number_format or _decimal)


def _without_formula(value: Any) -> Any:
    # A label or a prediction that begins with = would be run by the spreadsheet that opens it.
    # Only texts: a column may hold numbers and texts, and a number below zero is no formula.
    is_formula = isinstance(value, str) and value.startswith(FORMULA_SIGNS)
    return f"'{value}" if is_formula else value


def _decimal(value: Any) -> str:
    """Return a number with at most six decimals, without trailing zeros: 495, not 495.000000."""
    # z: a value that rounds to zero from below is 0, not -0.
    return f"{value:z.6f}".rstrip("0").rstrip(".")


def print_and_write_tables(gathered: GatheredRuns, folder: Path, console: Console) -> None:
    """Print the tables of runs, write them, and print where they are.

    Raises:
        UserError: if the folder cannot be written.
    """
    tables = report_tables(gathered)
    print_tables(gathered, tables, console)
    files = table_files(gathered, tables)
    save_files(folder, files)
    print_written(folder, files, console)


def print_written(folder: Path, names: Iterable[str], console: Console) -> None:
    """Print which files were written to a folder."""
    console.print(f"written to {folder}: {', '.join(names)}", soft_wrap=True, markup=False)


def print_tables(gathered: GatheredRuns, tables: Sequence[ResultTable], console: Console) -> None:
    """Print the tables of runs, and lines on what is not in them."""
    for table in tables:
        print_table(table, console)
    for line in (*_lines_on_small_tasks(gathered), *gathered.left_out):
        console.print(line, soft_wrap=True, markup=False)


def print_table(table: ResultTable, console: Console) -> None:
    """Print a table with its title and notes."""
    console.print(f"[bold]{escape(table.title)}[/]", soft_wrap=True, highlight=False)
    _print_whole(console, _rich_table(table))
    for note in table.caption:
        console.print(f"[dim]{escape(note)}[/]", soft_wrap=True, highlight=False)


def _rich_table(table: ResultTable) -> Table:
    """Return a table for the terminal, with bold scores."""
    rendered = Table()
    for index, title in enumerate(table.columns):
        justify: Literal["left", "right"] = "right" if index else "left"
        heading = _wrapped(title, COLUMN_LABEL_WIDTH)
        rendered.add_column(heading, no_wrap=True, justify=justify)
    for label, values in table.lines:
        cells = [f"[bold]{value}[/]" if value.best else str(value) for value in values]
        rendered.add_row(_wrapped(label, ROW_LABEL_WIDTH), *cells)
    return rendered


def _wrapped(label: str, width: int) -> str:
    return escape("\n".join(wrap_label(label, width)))


def _print_whole(console: Console, table: Table) -> None:
    """Print a table at its full width."""
    # A narrower terminal then breaks the lines, which loses no digit; rich would cut them.
    unlimited = console.options.update(width=UNLIMITED_WIDTH)
    table.width = Measurement.get(console, unlimited, table).maximum
    console.print(table, crop=False, soft_wrap=True)


def _lines_on_small_tasks(gathered: GatheredRuns) -> Iterator[str]:
    for store in gathered.runs.values():
        for task, samples, expected in tasks_below_card_size(store):
            yield f"{task}: {samples} samples, but its card says {expected}"
