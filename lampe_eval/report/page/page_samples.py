"""Stored samples of runs in a compact form.

A text is stored once, however many methods share it; a long one loses its middle.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lampe_eval.records import SampleRecord
from lampe_eval.report.page.page_tables import Column, number, plain, text
from lampe_eval.store import Cell

SamplesOfRuns = Mapping[tuple[str, Cell], Sequence[SampleRecord]]
"""Samples by the run's name and the cell."""

MAX_CHARACTERS = 4_000
"""Characters of a text that are kept; most answers and references are shorter."""

SHOWN_FIELDS = {
    "length",
    "id",
    "score",
    "loss",
    "scored_tokens",
    "prediction",
    "references",
    "prompt_start",
    "prompt_end",
    "error",
    "skipped",
}
"""Fields of a sample that have a place of their own on the page; the others are listed by name."""

MARKS = {"error": "failed", "skipped": "left out", "cut_tokens": "cut"}
"""Fields of a sample without a score or with a cut prompt, and words for them."""

# After the number of the cell and the id of the sample.
SCORE_INDEX, LOSS_INDEX = 2, 3
"""Places of score and loss in a row."""


@dataclass
class _Numbering:
    """Values numbered in the order of their first use."""

    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, value: str) -> int:
        """Return the number of a value, a new one for a new value."""
        return self.numbers.setdefault(value, len(self.numbers))


def compact_samples(rows_by_cell: SamplesOfRuns) -> dict[str, Any]:
    """Return the samples of runs in a form that names each cell and text once.

    Args:
        rows_by_cell: samples by run and cell, with the scores that tables show.

    Returns:
        Dictionary with `columns` of the table, `cells`, `rows`, `texts` and names of `fields`; rows
        refer to cells, texts and fields by number.
    """
    cells: list[list[Any]] = []
    rows: list[list[Any]] = []
    texts = _Numbering()
    fields = _Numbering()
    for (run, cell), cell_rows in rows_by_cell.items():
        cell_number = len(cells)
        cells.append([run, cell.model, cell.method, cell.bench, cell.task, cell.length])
        rows += [[cell_number, *_row(row, texts, fields)] for row in cell_rows]
    return {
        "columns": _columns(cells, rows),
        "cells": cells,
        "rows": rows,
        "texts": list(texts.numbers),
        "fields": list(fields.numbers),
    }


def _columns(cells: list[list[Any]], rows: list[list[Any]]) -> list[Column]:
    """Return the columns in which these samples have something to show."""
    # Without cells there is nothing to transpose, and no column.
    varies = [len(set(values)) > 1 for values in zip(*cells, strict=True)] or [False] * 6
    several_runs, several_models, _, several_benches, _, _ = varies
    has_score = any(row[SCORE_INDEX] is not None for row in rows)
    has_loss = any(row[LOSS_INDEX] is not None for row in rows)
    columns: list[tuple[Column, bool]] = [
        ({"key": "id", "title": "Sample", "kind": "sample"}, True),
        (text("method", "Method"), True),
        (number("score", "Score", 1), has_score),
        (number("loss", "Loss", 4), has_loss),
        ({"key": "prediction", "title": "Prediction", "kind": "preview"}, has_score),
        ({"key": "marks", "title": "Marks", "kind": "marks", "choose": True}, True),
        (text("task", "Task"), True),
        (number("length", "Length", choose=True), True),
        (text("bench", "Benchmark"), several_benches),
        (text("model", "Model"), several_models),
        (text("run", "Run"), several_runs),
    ]
    return [column for column, is_shown in columns if is_shown]


def _row(row: SampleRecord, texts: _Numbering, fields: _Numbering) -> list[Any]:
    """Return a sample as sample.js unpacks it.

    The order is: id, score in percent, loss per token, marks, prediction, references, start and end
    of the prompt, error, further fields.
    """

    def text_number(value: Any) -> int | None:
        return None if value is None else texts.number(_clipped(value))

    score = row.get("score")
    loss = row.get("loss")
    # A damaged record may lack it.
    scored_tokens = row.get("scored_tokens")
    prediction = text_number(row.get("prediction"))
    prompt_start = text_number(row.get("prompt_start"))
    prompt_end = text_number(row.get("prompt_end"))
    error = text_number(row.get("error"))
    skipped = text_number(row.get("skipped"))
    references = row.get("references") or []
    if not isinstance(references, list):
        references = [references]
    further_fields: list[Any] = []
    for key, value in row.items():
        if key not in SHOWN_FIELDS and value != {}:
            further_fields += [fields.number(key), _plain_field(value)]
    return [
        _clipped(row["id"]),
        None if score is None else plain(100 * score),
        None if loss is None or not scored_tokens else plain(loss / scored_tokens),
        [[None, word] for key, word in MARKS.items() if key in row],
        prediction,
        [text_number(reference) for reference in references],
        prompt_start,
        prompt_end,
        skipped if error is None else error,
        further_fields,
    ]


def _plain_field(value: Any) -> Any:
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return _clipped(value)


def _clipped(value: Any) -> str:
    """Return a value as text; a long one keeps its start and, a third as long, its end."""
    whole = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(whole) <= MAX_CHARACTERS:
        return whole
    quarter = MAX_CHARACTERS // 4
    left_out = len(whole) - MAX_CHARACTERS
    return f"{whole[: 3 * quarter]}\n[… {left_out:,} characters …]\n{whole[-quarter:]}"
