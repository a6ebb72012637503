"""Costs on paper: a table for each length, what they were measured on, and the files of a measurement."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lampe_eval.report.markdown import to_markdown
from lampe_eval.report.table_model import ResultTable, TableLine, TableValue
from lampe_eval.report.tables import save_file
from lampe_eval.speed import speed_plot
from lampe_eval.speed.speed_comparison import PLAIN_ATTENTION, time_growth

HEAD = [
    "",
    "prompt, s",
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


def speed_tables(frame: pd.DataFrame) -> Iterator[ResultTable]:
    """A table for each length: plain attention, and methods beside it."""
    for length, rows in frame.groupby("length", sort=False):
        lines = [_line(row) for row in rows.to_dict("records")]
        notes = [
            f"{_label(row)}: {row['note']}"
            for row in rows.dropna(subset="note").to_dict("records")
            if row["note"]
        ]
        yield ResultTable(
            f"{frame['model'].iloc[0]} · a prompt of {length} tokens", HEAD, lines, notes
        )


def speed_notes(frame: pd.DataFrame) -> list[str]:
    """What the numbers are, what they were measured on, and how they grow with the length."""
    first = frame.iloc[0]
    processor = f"{first['processor']}, {first['threads']} threads, load {first['load']} at the end"
    return [
        f"{_pairs(frame)}; a ratio is to the plain runs that took turns with the method; one random prompt at a time",
        "plain: the model as it is, with transformers' own cache, which is copied for each token; the methods' is not",
        "step: a token of an answer, the first of which turns the prompt's keys; peak: memory beyond the model's; "
        "held: tensors of an answer, with room for some tokens more",
        *_shortened(first),
        f"{first['gpu'] if first['device'] == 'cuda' else processor}; {first['dtype']}; torch {first['torch']}, "
        f"transformers {first['transformers']}, triton {first['triton']}, flash-attn {first['flash-attn']}",
        *_growths(frame),
    ]


def write_speed(frame: pd.DataFrame, folder: Path) -> list[str]:
    """Writes table, numbers and picture; returns the files' names.

    Raises:
        UserError: where the disk refuses.
    """
    text = "\n".join(
        [*map(to_markdown, speed_tables(frame)), *(f"{line}\n" for line in speed_notes(frame))]
    )
    files = {
        "speed.csv": frame.to_csv(index=False, float_format="%.6g").encode(),
        "speed.md": text.encode(),
    }
    if frame["length"].nunique() > 1:
        files["speed.png"] = speed_plot.draw_speed(frame)
    for name, content in files.items():
        save_file(folder / name, content)
    return list(files)


def _pairs(frame: pd.DataFrame) -> str:
    pairs = int(frame.loc[frame["method"] != PLAIN_ATTENTION, "pairs"].max())
    return (
        f"medians of {pairs} pairs (lowest to highest)"
        if pairs > 1
        else "one pair, so no spread is known"
    )


def _shortened(first: pd.Series) -> Iterator[str]:
    """What is not as it would be in a run."""
    if "of its layers" in first["model"]:
        yield f"{first['layers']} layers: what a model does once weighs more here than in a whole one"
    if pd.notna(first["chunk"]):
        yield f"prompts are read in chunks of {first['chunk']:.0f} tokens"


def _growths(frame: pd.DataFrame) -> Iterator[str]:
    groups = frame.groupby(["method", "attention"], sort=False)
    powers = {_label(rows.iloc[0]): time_growth(rows) for _, rows in groups}
    known = [f"{label} {power:.2f}" for label, power in powers.items() if not math.isnan(power)]
    if known:
        lengths = frame["length"].nunique()
        yield f"seconds of a prompt grow with this power of its length (from {lengths} lengths): {', '.join(known)}"


def _line(row: Mapping[Any, Any]) -> TableLine:
    plain = row["method"] == PLAIN_ATTENTION
    cells = [
        _number(row["prefill_s"], 3),
        "" if plain else _spread(row, "prefill"),
        _number(1000 * row["step_s"], 2),
        "" if plain else _spread(row, "step"),
        _number(1000 * row["first_s"], 2),
        "" if plain else _number(row["first_ratio"], 2),
        _number(row["peak_bytes"] / 1e6, 1),
        "" if plain else _number(row["peak_ratio"], 2),
        _number(row["held_bytes"] / 1e6, 1),
        "" if plain else _number(row["held_ratio"], 2),
    ]
    return _label(row), [TableValue(cell) for cell in cells]


def _label(row: Mapping[Any, Any] | pd.Series) -> str:
    """The method, and who attended, or was to."""
    return f"{row['method']} · {row['backend']}"


def _spread(row: Mapping[Any, Any], cost: str) -> str:
    middle, low, high = (row[f"{cost}_{kind}"] for kind in ("ratio", "low", "high"))
    if math.isnan(middle):
        return "-"
    return f"{middle:.2f}" if row["pairs"] == 1 else f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
