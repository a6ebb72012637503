"""Tables in the terminal and in files."""

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from lampe_eval.errors import UserError
from lampe_eval.report.labels import COLUMN_LABEL_WIDTH, ROW_LABEL_WIDTH, wrap_label
from lampe_eval.report.latex import to_latex
from lampe_eval.report.markdown import to_markdown
from lampe_eval.report.table_model import ResultTable, result_tables
from lampe_eval.results.cell_scores import COLUMNS
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.store import Store

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_tables(gathered: GatheredRuns, folder: Path) -> list[str]:
    """Writes the tables of runs to a folder; returns the files' names.

    Raises:
        UserError: where the folder cannot be written.
    """
    tables = list(result_tables(gathered))
    frames = {
        "scores.csv": gathered.scores[["run", "settings", *COLUMNS]],
        "details.csv": gathered.details,
        "pairs.csv": gathered.pairs,
        "table.csv": _wide(gathered.scores),
    }
    texts = {name: to_csv(gathered.tidy(frame)) for name, frame in frames.items()} | {
        "table.md": "\n".join(map(to_markdown, tables)),
        "table.tex": to_latex(tables),
    }
    for name, text in texts.items():
        save_file(folder / name, text.encode())
    return list(texts)


def save_file(path: Path, content: bytes) -> None:
    """Writes a file of a report whole or not at all, and its folder where there is none.

    Raises:
        UserError: where the disk refuses.
    """
    draft = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def to_csv(frame: pd.DataFrame) -> str:
    """A frame as CSV; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    texts = [name for name in frame if not is_numeric_dtype(frame[name])]
    guarded = frame[texts].map(lambda text: f"'{text}" if str(text).startswith(FORMULA) else text)
    return frame.assign(**guarded).to_csv(index=False, float_format=_decimal)


def _decimal(value: Any) -> str:
    """A number without zeros that say nothing: 495, not 495.000000."""
    return f"{value:z.6f}".rstrip("0").rstrip(".")


def console() -> Console:
    """The terminal; in a pipe, where nothing limits the width, wide enough for any table."""
    found = Console()
    return found if found.is_terminal or "COLUMNS" in os.environ else Console(width=200)


def print_and_write_tables(gathered: GatheredRuns, folder: Path, console: Console) -> None:
    """Prints the tables of runs, writes them, and says where.

    Raises:
        UserError: where the folder cannot be written.
    """
    print_tables(gathered, console)
    written = f"written to {folder}: {', '.join(write_tables(gathered, folder))}"
    console.print(written, soft_wrap=True, markup=False)


def print_tables(gathered: GatheredRuns, console: Console) -> None:
    """Prints the tables of runs, and what they do not say."""
    for block in result_tables(gathered):
        print_block(block, console)
    for line in (*chain(*map(_short_of, gathered.runs.values())), *gathered.left_out):
        console.print(line, soft_wrap=True, markup=False)


def print_block(block: ResultTable, console: Console) -> None:
    """Prints a table with its notes."""
    console.print(f"[bold]{escape(block.title)}[/]", soft_wrap=True, highlight=False)
    _print_whole(console, _rich(block))
    for note in block.notes:
        console.print(f"[dim]{escape(note)}[/]", soft_wrap=True, highlight=False)


def _rich(block: ResultTable) -> Table:
    """A block for the terminal, best scores bold."""
    table = Table()
    for index, title in enumerate(block.columns):
        table.add_column(
            _lines(title, COLUMN_LABEL_WIDTH), no_wrap=True, justify="right" if index else "left"
        )
    for label, values in block.lines:
        table.add_row(
            _lines(label, ROW_LABEL_WIDTH),
            *(f"[bold]{value}[/]" if value.place == 1 else str(value) for value in values),
        )
    return table


def _lines(label: str, width: int) -> str:
    return escape("\n".join(wrap_label(label, width)))


def _print_whole(console: Console, table: Table) -> None:
    """Prints a table as wide as it is: a terminal that is narrower breaks its lines, which loses no digit."""
    table.width = Measurement.get(console, console.options.update(width=10_000), table).maximum
    console.print(table, crop=False, soft_wrap=True)


def _short_of(store: Store) -> Iterator[str]:
    """Tasks of which there were fewer samples than they have, though nobody limited them."""
    if store.config["limit"] is None:
        counts = {f"{cell.bench}/{cell.task}": samples for cell, samples in store.cells().items()}
        for task, samples in counts.items():
            whole = store.config["tasks"][task]["samples"]
            if samples < whole:
                yield f"{task}: {samples} samples, where its card says {whole}"


def _wide(frame: pd.DataFrame) -> pd.DataFrame:
    """By length the score, its standard error, of how many samples it is, how many it lacks and how many were cut."""
    keys = ["run", "settings", "model", "protocol", "bench", "task", "metric", "method"]
    frame = frame.assign(lacking=frame[["missing", "errors", "skipped"]].sum(axis=1))
    frame = frame.astype(dict.fromkeys(["n", "lacking", "cut"], "Int64"))
    kinds = {"score": "", **{kind: f" {kind}" for kind in ("stderr", "n", "lacking", "cut")}}
    pivots = [
        frame.pivot(index=keys, columns="length", values=kind).add_suffix(kinds[kind])
        for kind in kinds
    ]
    wide = pd.concat(pivots, axis=1)
    order = frame[keys].drop_duplicates()
    return order.merge(wide.reset_index(), on=keys)
