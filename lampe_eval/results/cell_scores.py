"""From stored samples to one row per cell: a pass that reads what is stored alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import SampleRow, Task
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.results.bench_averages import bench_averages
from lampe_eval.results.paired_tests import CellSamples
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.store import Cell, Store

COLUMNS = (
    "model",
    "method",
    "attention_factor",
    "protocol",
    "bench",
    "task",
    "length",
    "metric",
    "score",
    "stderr",
    "n",
    "units",
    "unit",
    "missing",
    "errors",
    "skipped",
    "cut",
    "batch_size",
    "largest_position",
    "window",
)
DETAILS = ("model", "method", "protocol", "bench", "task", "length", "name", "value", "stderr", "n")


def run_scores(store: Store) -> pd.DataFrame:
    """Tidy scores of a run: one row per cell, lengths of a task ascending, else in the order of the run.

    ``units`` is how many of ``unit`` the error is of, ``batch`` the most prompts of a cell that ran together;
    ``details`` holds its further numbers, ``counts`` of how many samples these are where they are of some alone.
    """
    return scores_and_cell_samples(store)[0]


def scores_and_cell_samples(store: Store) -> tuple[pd.DataFrame, dict[Cell, CellSamples]]:
    """The scores, and of every cell that has one what its samples give, by which methods are compared."""
    records, sampled = [], {}
    for cell, samples in by_ascending_length(store.cells()).items():
        rows, good = _rows(store, cell)
        records.append(_record(store, cell, samples, rows, good))
        if good:
            ids = [(row["id"], row["prompt_sha256"]) for row in good]
            sampled[cell] = CellSamples(ids, _estimate(store, cell, good))
    return pd.DataFrame(records).reindex(columns=[*COLUMNS, "details", "counts"]), sampled


def by_ascending_length(cells: Mapping[Cell, int]) -> dict[Cell, int]:
    """A run's cells with the lengths of each task ascending; a run does the longest first."""
    tasks: dict[tuple[str, str, str], int] = {}
    for cell in cells:
        tasks.setdefault((cell.model, cell.bench, cell.task), len(tasks))
    order = sorted(cells, key=lambda cell: (tasks[cell.model, cell.bench, cell.task], cell.length))
    return {cell: cells[cell] for cell in order}


def _rows(store: Store, cell: Cell) -> tuple[list[SampleRow], list[SampleRow]]:
    """What is stored of a cell, and of it what was answered, scored anew."""
    rows, protocol = list[SampleRow](store.rows(cell)), _protocol(store, cell.bench)
    return rows, [
        _scored(cell, row, protocol) for row in rows if "error" not in row and "skipped" not in row
    ]


def score_details(frame: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Further numbers of cells, then averages over tasks (no task) and over lengths (neither), one a row."""
    keys = ["model", "method", "protocol", "bench"]
    records: list[dict[str, Any]] = [
        {
            **{str(key): item for key, item in row.items()},
            "name": name,
            "value": value,
            "n": counts.get(name),
        }
        for row in frame[[*keys, "task", "length", "details", "counts"]].to_dict("records")
        for counts in [row.pop("counts")]
        for name, value in row.pop("details").items()
    ]
    for group, rows in frame.groupby(keys, sort=False):
        head = dict(zip(keys, group, strict=True))
        bench, protocol = BENCHES[str(head["bench"])], _protocol(store, str(head["bench"]))
        records += [{**head, **average} for average in bench_averages(bench, protocol, rows)]
    return pd.DataFrame(records, columns=list(DETAILS)).astype({"length": "Int64", "n": "Int64"})


def _record(
    store: Store, cell: Cell, samples: int, rows: Sequence[SampleRow], good: Sequence[SampleRow]
) -> dict[str, Any]:
    """The row of a cell, its stored rows given, and those of them that were answered."""
    skipped = sum("skipped" in row for row in rows)
    task = _task(store, cell)
    record: dict[str, Any] = {
        "model": cell.model,
        "method": cell.method,
        "protocol": store.config["protocol"],
        "bench": cell.bench,
        "task": cell.task,
        "length": cell.length,
        "metric": task.card.metric,
        "attention_factor": _span(row["attention_factor"] for row in good),
        "n": len(good),
        "units": 0,
        "unit": "sample",
        "missing": samples - len(rows),
        "errors": len(rows) - len(good) - skipped,
        "skipped": skipped,
        "cut": sum("cut_tokens" in row for row in good),
        "batch_size": max((row.get("batch_size", 1) for row in good), default=1),
        "largest_position": max((row["largest_position"] for row in good), default=float("nan")),
        "window": store.config["models"][cell.model]["window"],
        "details": {},
        "counts": BENCHES[cell.bench].detail_counts(good),
    }
    if good:
        score = BENCHES[cell.bench].cell_score(task, good, _protocol(store, cell.bench))
        record |= {
            "score": score.value,
            "stderr": score.stderr,
            "units": score.units,
            "unit": score.unit,
        }
        record["details"] = dict(score.details)
    return record


def _protocol(store: Store, bench: str) -> Protocol:
    return Protocol.model_validate(store.config["protocols"][bench])


def _task(store: Store, cell: Cell) -> Task:
    card = BENCHES[cell.bench].card.model_validate(
        store.config["tasks"][f"{cell.bench}/{cell.task}"]
    )
    return Task(cell.bench, cell.task, card)


def _estimate(store: Store, cell: Cell, rows: Sequence[SampleRow]) -> Estimate:
    return BENCHES[cell.bench].estimate(_task(store, cell), rows, _protocol(store, cell.bench))


def _scored(cell: Cell, row: SampleRow, protocol: Protocol) -> SampleRow:
    """The row with its answer scored anew; a passage has none."""
    if "prediction" not in row:
        return row
    return {**row, "score": BENCHES[cell.bench].score(cell.task, row, protocol)}


def _span(values: Iterable[str]) -> str:
    """The one value, or the ends of what the prompts' lengths made of it."""
    found = sorted(set(values))
    return " to ".join(found[:1] + found[1:][-1:])
