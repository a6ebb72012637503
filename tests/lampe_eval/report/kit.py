"""Runs for tests of reports: samples are stored by ``Store``, score tables are written by hand."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lampe_eval.records import SampleRecord
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.method_differences import PAIR_COLUMNS
from lampe_eval.store import Cell, Store
from tests.lampe_eval.stored_runs import configuration

KEYS = ("model", "method", "bench", "task", "length")


def cell(
    method: str = "lampe",
    length: int = 1024,
    task: str = "single",
    bench: str = "niah",
    model: str = "m",
) -> Cell:
    return Cell(model, method, bench, task, length)


def row(key: str, **fields: Any) -> dict[str, Any]:
    """Return the record of a finished sample, without the fields that are None."""
    row = {
        "id": key,
        "prompt_sha256": "e3b0",
        "prompt_tokens": 1008,
        "prompt_start": f"start of {key}",
        "prompt_end": f"end of {key}",
        "prediction": f"prediction of {key}",
        "references": [f"reference of {key}"],
        "score": 1.0,
        **fields,
    }
    return {name: value for name, value in row.items() if value is not None}


def store(
    folder: Path,
    cells: Mapping[Cell, Iterable[dict[str, Any]]],
    config: Mapping[str, Any] | None = None,
) -> Store:
    """Store a run with these samples."""
    record = configuration(**(config or {}))
    # a run describes every model and method that it has cells of
    model = record["models"]["pocket"]
    record["models"] = {cell.model: model for cell in cells} | record["models"]
    record["methods"] = {cell.method: {cell.model: {}} for cell in cells} | record["methods"]
    run = Store.create(folder, record, {"torch": "2"})
    rows = {cell: list(cell_rows) for cell, cell_rows in cells.items()}
    run.save_cells({cell: len(cell_rows) for cell, cell_rows in rows.items()})
    for cell, cell_rows in rows.items():
        for sample in cell_rows:
            run.append(cell, {"length": cell.length, **sample})
    return run


def gathered(
    *stores: Store,
    scores: Mapping[Cell, Mapping[str, Any]] | None = None,
    pairs: Iterable[Any] = (),
) -> GatheredRuns:
    """Gather runs with a row of scores for each of their cells.

    Args:
        stores: the runs.
        scores: fields of a cell's row instead of the default ones.
        pairs: rows of the table of differences between methods.
    """
    records = []
    details = []
    for run in stores:
        for cell, samples in run.cells().items():
            record = _scored(run.folder.name, cell, samples, (scores or {}).get(cell, {}))
            detail = {key: record[key] for key in ("run", "protocol", *KEYS)}
            records.append(record)
            numbers = {"value": 1.0, "stderr": math.nan, "ci_low": 0.0, "ci_high": 2.0, "n": 1}
            details.append({**detail, "name": "depth 0", **numbers, "weights": None})
    defaults = {
        "settings": "",
        "model": "m",
        "window": 256,
        "protocol": "fair",
        "bench": "niah",
        "scope": "cell",
        "task": "single",
        "length": 1024,
        "units": 5,
        "unpaired": 0,
        "unit": "points",
    }
    differences = [{**defaults, **pair} for pair in pairs]
    rows: dict[tuple[str, Cell], Sequence[SampleRecord]] = {}
    for run in stores:
        for cell, cell_rows in run.rows_by_cell(run.cells()).items():
            rows[run.folder.name, cell] = cell_rows
    folders = {run.folder.name: run for run in stores}
    runs = GatheredRuns(folders, pd.DataFrame(records), pd.DataFrame(details), {}, rows)
    # The cached property would be computed from the samples.
    vars(runs)["pairs"] = pd.DataFrame(differences, columns=list(PAIR_COLUMNS))
    return runs


def _scored(run: str, cell: Cell, samples: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": run,
        "settings": "",
        **{key: getattr(cell, key) for key in KEYS},
        "attention_factor": "none",
        "protocol": "fair",
        "metric": "recall",
        "score": 50.0,
        "stderr": math.nan,
        "ci_low": math.nan,
        "ci_high": math.nan,
        "n": samples,
        "independent_units": samples,
        "unit": "sample",
        "scale": "percent",
        **dict.fromkeys(("missing", "errors", "skipped", "cut"), 0),
        "batch_size": 1,
        "largest_position": 255.0,
        "beyond_window": 0,
        "resolved": None,
        "at_most": None,
        "stopping": "",
        "proportion": None,
        "window": 256,
        **fields,
    }
