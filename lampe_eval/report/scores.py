"""From stored samples to one row per cell: a separate pass that can be repeated and reads what is stored alone."""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.benches.base import Bench, Row, Score, Task
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.store import Cell, Store

COLUMNS = (
    "model",
    "method",
    "temperature",
    "protocol",
    "bench",
    "task",
    "length",
    "metric",
    "score",
    "stderr",
    "n",
    "missing",
    "errors",
    "skipped",
    "cut",
    "largest_position",
    "window",
)
DETAILS = ("model", "method", "protocol", "bench", "task", "length", "name", "value")


def scores(store: Store) -> pd.DataFrame:
    """Tidy scores of a run: one row per cell, in the order of the run; ``details`` holds a cell's further numbers."""
    frame = pd.DataFrame([_record(store, cell, samples) for cell, samples in store.cells().items()])
    return frame.reindex(columns=[*COLUMNS, "details"])


def details(frame: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Further numbers of cells, then averages over tasks (no task) and over lengths (neither), one a row."""
    keys = ["model", "method", "protocol", "bench"]
    records: list[dict[str, Any]] = [
        {**{str(key): item for key, item in row.items()}, "name": name, "value": value}
        for row in frame[[*keys, "task", "length", "details"]].to_dict("records")
        for name, value in row.pop("details").items()
    ]
    for group, rows in frame.groupby(keys, sort=False):
        head = dict(zip(keys, group, strict=True))
        bench, protocol = BENCHES[str(head["bench"])], _protocol(store, str(head["bench"]))
        records += [{**head, **average} for average in _averages(bench, protocol, rows)]
    return pd.DataFrame(records, columns=list(DETAILS)).astype({"length": "Int64"})


def _averages(bench: Bench, protocol: Protocol, rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What a bench reports over its tasks at each length, and over lengths; of complete cells alone."""
    firsts: dict[int, float] = {}
    for length, at in rows.groupby("length"):
        if (at["n"] > 0).all() and not at[["missing", "errors", "skipped"]].any(axis=None):
            cells: Any = at[["task", "score", "stderr", "n", "details"]].itertuples(index=False)
            scores = {task: Score(*numbers) for task, *numbers in cells}
            found = bench.averages(scores, protocol)
            firsts |= {int(str(length)): value for value in list(found.values())[:1]}
            yield from ({"length": length, "name": name, "value": value} for name, value in found.items())
    if 1 < len(firsts) == rows["length"].nunique():
        yield from ({"name": name, "value": value} for name, value in bench.across(firsts).items())


def _record(store: Store, cell: Cell, samples: int) -> dict[str, Any]:
    rows = store.rows(cell)
    skipped = [row for row in rows if "skipped" in row]
    good = [row for row in rows if "error" not in row and "skipped" not in row]
    bench, protocol = BENCHES[cell.bench], _protocol(store, cell.bench)
    card = bench.card.model_validate(store.config["tasks"][f"{cell.bench}/{cell.task}"])
    task = Task(cell.bench, cell.task, card)
    record: dict[str, Any] = {
        "model": cell.model,
        "method": cell.method,
        "protocol": store.config["protocol"],
        "bench": cell.bench,
        "task": cell.task,
        "length": cell.length,
        "metric": card.metric,
        "temperature": _span(row["temperature"] for row in good),
        "n": len(good),
        "missing": samples - len(rows),
        "errors": len(rows) - len(good) - len(skipped),
        "skipped": len(skipped),
        "cut": sum("cut" in row for row in good),
        "largest_position": max((row["largest_position"] for row in good), default=float("nan")),
        "window": store.config["models"][cell.model]["window"],
        "details": {},
    }
    if good:
        score = bench.reduce(task, [_scored(task, row, protocol) for row in good], protocol)
        record |= {"score": score.value, "stderr": score.stderr, "details": dict(score.details)}
    return record


def _protocol(store: Store, bench: str) -> Protocol:
    return Protocol.model_validate(store.config["protocols"][bench])


def _scored(task: Task, row: Row, protocol: Protocol) -> Row:
    """The row with its answer scored anew; a passage has none."""
    if "prediction" not in row:
        return row
    return {**row, "score": BENCHES[task.bench].score(task.name, row, protocol)}


def _span(values: Iterable[str]) -> str:
    """The one value, or the ends of what the prompts' lengths made of it."""
    found = sorted(set(values))
    return " to ".join(found[:1] + found[1:][-1:])
