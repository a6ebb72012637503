"""Tables and files of a speed comparison."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lampe_eval.file_io import save_files
from lampe_eval.report.markdown import to_markdown
from lampe_eval.report.table_model import ResultTable, TableLine, TableValue
from lampe_eval.report.tables import to_csv
from lampe_eval.speed.speed_comparison import PLAIN_ATTENTION, time_growth
from lampe_eval.speed.speed_plot import draw_speed

HEADINGS = [
    "",
    "prefill, s",
    "/ plain",
    "step, ms",
    "/ plain",
    "first step, ms",
    "/ plain",
    "peak, MB",
    "/ plain",
    "held, MB",
    "/ plain",
]


def speed_tables(table: pd.DataFrame) -> Iterator[ResultTable]:
    """Yield a table for each length, with plain attention and the methods beside it.

    Args:
        table: rows as `SpeedComparison.table` has them.
    """
    model = table["model"].iloc[0]
    for length, rows in table.groupby("length", sort=False):
        records = rows.to_dict("records")
        lines = [_line(row) for row in records]
        # an empty note of a file that was read back is NaN
        notes = [f"{_label(row)}: {row['note']}" for row in records if _is_text(row["note"])]
        yield ResultTable(f"{model} · a prompt of {length} tokens", HEADINGS, lines, notes)


def speed_notes(table: pd.DataFrame) -> list[str]:
    """Return notes on the columns, the hardware and software, and the growth with length."""
    first = table.iloc[0]
    hardware = str(first["gpu"])
    if first["device"] != "cuda":
        hardware = (
            f"{first['processor']}, {first['threads']} threads, load {first['load']} at the end"
        )
    return [
        f"{_pairs_note(table)}; a ratio compares a method with the plain runs that alternated with "
        "it; one random prompt at a time",
        "plain: the unpatched model with transformers' own cache, which is copied for each token; "
        "the cache of the methods is not",
        "step: a decode step; the first one also rotates the prompt's keys; peak: memory beyond "
        "the model's; held: tensors kept during an answer, with space for some more tokens",
        *_deviation_notes(first),
        f"{hardware}; {first['dtype']}; torch {first['torch']}, "
        f"transformers {first['transformers']}, triton {first['triton']}, "
        f"flash-attn {first['flash-attn']}",
        *_growth_notes(table),
    ]


def write_speed(table: pd.DataFrame, folder: Path) -> list[str]:
    """Write numbers, tables and, for several lengths, a plot; return the names of the files.

    Raises:
        UserError: if the folder cannot be written.
    """
    paragraphs = [*map(to_markdown, speed_tables(table))]
    paragraphs += [f"{line}\n" for line in speed_notes(table)]
    files: dict[str, str | bytes] = {
        "speed.csv": to_csv(table, "%.6g"),
        "speed.md": "\n".join(paragraphs),
    }
    if table["length"].nunique() > 1:
        files["speed.png"] = draw_speed(table)
    save_files(folder, files, "choose another --output")
    return list(files)


def _pairs_note(table: pd.DataFrame) -> str:
    pairs = int(table.loc[table["method"] != PLAIN_ATTENTION, "pairs"].max())
    if pairs > 1:
        return f"medians of {pairs} pairs (lowest to highest)"
    return "one pair, so no range is known"


def _deviation_notes(first: pd.Series) -> Iterator[str]:
    """Yield how the measurement differs from a run of the whole model."""
    if "of its layers" in first["model"]:
        yield (
            f"{first['layers']} layers: costs that a model has once, whatever its layers, weigh "
            "more here than in a whole model"
        )
    if pd.notna(first["chunk"]):
        yield f"prompts are processed in chunks of {first['chunk']:.0f} tokens"


def _growth_notes(table: pd.DataFrame) -> Iterator[str]:
    """Yield how prefill grows with the length, if there are two lengths or more."""
    powers: list[str] = []
    for _, rows in table.groupby(["method", "attention"], sort=False):
        power = time_growth(rows)
        if not math.isnan(power):
            powers.append(f"{_label(rows.iloc[0])} {power:.2f}")
    if powers:
        yield (
            f"prefill time grows with this power of the length (from {table['length'].nunique()} "
            f"lengths): {', '.join(powers)}"
        )


def _line(row: Mapping[Any, Any]) -> TableLine:
    """Return the line of a method or of plain attention, which has no ratios."""
    ratios = ["", "", "", "", ""]
    if row["method"] != PLAIN_ATTENTION:
        ratios = [
            _ratio_with_range(row, "prefill"),
            _ratio_with_range(row, "step"),
            _number(row["first_ratio"], 2),
            _number(row["peak_ratio"], 2),
            _number(row["held_ratio"], 2),
        ]
    costs = [
        _number(row["prefill_s"], 3),
        _number(1000 * row["step_s"], 2),
        _number(1000 * row["first_s"], 2),
        _number(row["peak_bytes"] / 1e6, 1),
        _number(row["held_bytes"] / 1e6, 1),
    ]
    cells: list[TableValue] = []
    for cost, ratio in zip(costs, ratios, strict=True):
        cells += [TableValue(cost), TableValue(ratio)]
    return _label(row), cells


def _label(row: Mapping[Any, Any] | pd.Series) -> str:
    """Return the method with the backend that answered, or that was to answer."""
    return f"{row['method']} · {row['backend']}"


def _ratio_with_range(row: Mapping[Any, Any], cost: str) -> str:
    ratio, low, high = row[f"{cost}_ratio"], row[f"{cost}_low"], row[f"{cost}_high"]
    if math.isnan(ratio):
        return "-"
    return f"{ratio:.2f}" if row["pairs"] == 1 else f"{ratio:.2f} ({low:.2f} to {high:.2f})"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""
