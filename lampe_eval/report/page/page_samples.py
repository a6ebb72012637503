"""Every stored sample, compact: texts once however many methods share them, long ones without their middle."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from lampe_eval.report.page.page_tables import Column, number, plain, text
from lampe_eval.results.cell_scores import by_ascending_length
from lampe_eval.store import Store

LONGEST = 4_000
"""Characters of a text; most answers and references are shorter."""

TOLD = {
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
"""Fields of a row that have a place of their own on the page."""

MARKS = {"error": "failed", "skipped": "left out", "cut_tokens": "cut"}
"""Fields that tell why a sample does not count as it is."""


def compact(stores: Mapping[str, Store]) -> dict[str, Any]:
    """Samples of runs by name: ``rows`` refer to ``cells``, ``texts`` and names of ``fields`` by number."""
    cells: list[list[Any]] = []
    rows: list[list[Any]] = []
    texts: defaultdict[str, int] = defaultdict()
    fields: defaultdict[str, int] = defaultdict()
    texts.default_factory, fields.default_factory = texts.__len__, fields.__len__
    for run, store in stores.items():
        for cell in by_ascending_length(store.cells()):
            cells.append([run, cell.model, cell.method, cell.bench, cell.task, cell.length])
            rows += [[len(cells) - 1, *_row(row, texts, fields)] for row in store.rows(cell)]
    return {
        "columns": _columns(cells, rows),
        "cells": cells,
        "rows": rows,
        "texts": list(texts),
        "fields": list(fields),
    }


def _columns(cells: list[list[Any]], rows: list[list[Any]]) -> list[Column]:
    """Those that say something of these samples."""
    several = [len(set(values)) > 1 for values in zip(*cells, strict=True)]
    run, model, _, bench, _, _ = several or [False] * 6
    score, loss = (any(row[place] is not None for row in rows) for place in (2, 3))
    columns = [
        ({"key": "id", "title": "Sample", "kind": "sample"}, True),
        (text("method", "Method"), True),
        (number("score", "Score", 1), score),
        (number("loss", "Loss", 4), loss),
        ({"key": "prediction", "title": "Prediction", "kind": "preview"}, score),
        ({"key": "marks", "title": "Marks", "kind": "marks", "choose": True}, True),
        (text("task", "Task"), True),
        (number("length", "Length", choose=True), True),
        (text("bench", "Benchmark"), bench),
        (text("model", "Model"), model),
        (text("run", "Run"), run),
    ]
    return [column for column, said in columns if said]


def _row(row: Mapping[str, Any], texts: Mapping[str, int], fields: Mapping[str, int]) -> list[Any]:
    """Id, score in percent, loss of a token, marks, prediction, references, head, tail, error, further fields."""
    score, loss, references = row.get("score"), row.get("loss"), row.get("references") or []
    prediction, head, tail, error, skipped = (
        None if row.get(key) is None else texts[_clipped(row[key])]
        for key in ("prediction", "prompt_start", "prompt_end", "error", "skipped")
    )
    return [
        _clipped(row["id"]),
        None if score is None else plain(100 * score),
        None if loss is None else plain(loss / row["scored_tokens"]),
        [[None, word] for key, word in MARKS.items() if key in row],
        prediction,
        [
            texts[_clipped(item)]
            for item in (references if isinstance(references, list) else [references])
        ],
        head,
        tail,
        skipped if error is None else error,
        [
            part
            for key, value in row.items()
            if key not in TOLD and value != {}
            for part in (fields[key], _told(value))
        ],
    ]


def _told(value: Any) -> Any:
    return value if isinstance(value, int | float) and math.isfinite(value) else _clipped(value)


def _clipped(value: Any) -> str:
    """A value as a text; of a long one its first three quarters of ``LONGEST`` and its last quarter."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= LONGEST:
        return text
    ends = LONGEST // 4
    return f"{text[: 3 * ends]}\n[… {len(text) - LONGEST:,} characters …]\n{text[-ends:]}"
