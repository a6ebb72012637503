"""Scores of cells, computed from stored samples alone, in one pass.

The rows of a cell are scored again, and one estimate of them gives everything: the score, its
standard error, the details, and the parts of each sample by which methods are compared.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import pandas as pd
from pydantic import ValidationError

from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import CellScore, Task
from lampe_eval.cards import Card, plain_message
from lampe_eval.errors import UserError, describe_error
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.records import SampleRecord
from lampe_eval.results.bench_averages import bench_averages
from lampe_eval.results.decisions import ALPHA, describe_rule
from lampe_eval.results.paired_tests import CellSamples
from lampe_eval.results.ranking import UNSCORED
from lampe_eval.scoring.confidence_sequences import anytime_interval
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.store import Cell, Store

C = TypeVar("C", bound=Card)

SCORE_COLUMNS = (
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
    "ci_low",
    "ci_high",
    "n",
    "independent_units",
    "unit",
    "missing",
    "errors",
    "skipped",
    "cut",
    "batch_size",
    "largest_position",
    "window",
    "beyond_window",
)
"""Columns of scores.csv, a row per cell; `settings_table.settings_columns` has further ones.

`stderr` and the 95 % interval from `ci_low` to `ci_high` are computed over `independent_units`,
each a `unit`, such as "document"; a perplexity of a single unit has no interval; `cut` counts
prompts from which tokens were removed; `batch_size` is the most prompts that ran together;
`beyond_window` counts samples whose `largest_position`, which counts the answer, is the window or
more.
"""
DETAIL_KEYS = ["model", "method", "protocol", "bench"]
DETAIL_COLUMNS = (
    *DETAIL_KEYS,
    "task",
    "length",
    "name",
    "value",
    "stderr",
    "ci_low",
    "ci_high",
    "n",
)
"""Columns of details.csv, a row per further number of a cell, and per average.

The 95 % interval is empty for what is no score, such as an effective length.
"""


@dataclass(frozen=True)
class ScoredRun:
    """Scores of a run.

    Attributes:
        scores: a row per cell with `SCORE_COLUMNS`, `scale` (of the score's estimate; None without
            a scored sample), `proportion` (a score in percent with its effective number of samples;
            None for others and for cells that a rule stops), `details` (further numbers by name),
            `detail_estimates` (of those that are scores of samples), `resolved` (settings of the
            method at the cell's length; None in older runs), `at_most` (samples that the cell
            could have had, if it stopped early) and `stopping` (the run's rule in words).
        cell_samples: by cell that has a score, what its samples contribute to it.
        rows: by cell, its stored samples, scored again; lengths of a task ascend.
        left_out: a line for each cell with stored samples that belong to no cell, or another one.
    """

    scores: pd.DataFrame
    cell_samples: Mapping[Cell, CellSamples]
    rows: Mapping[Cell, Sequence[SampleRecord]]
    left_out: Sequence[str] = ()


def score_run(store: Store) -> ScoredRun:
    """Score the stored samples of a run; the lengths of each task ascend."""
    records: list[dict[str, Any]] = []
    cell_samples: dict[Cell, CellSamples] = {}
    cells = by_ascending_length(store.cells())
    _refuse_unknown(store)
    rows_by_cell, left_out = store.planned_rows(cells)
    rows_by_cell = _with_documents(rows_by_cell)
    resolved, at_most = store.resolved_settings(), store.at_most()
    for cell, planned_samples in cells.items():
        rows = _rescored(store, cell, rows_by_cell[cell])
        try:
            evaluated, score = _evaluated(store, cell, _scored(rows))
        # A stored sample may be another task's, or lack what this task's scorer reads.
        except Exception:
            rows = [_with_own_error(store, cell, row) for row in rows]
            evaluated, score = _evaluated(store, cell, _scored(rows))
        rows_by_cell[cell] = rows
        scored_rows = _scored(rows)
        counts = _counts(rows, scored_rows, planned_samples)
        described = {**_description(store, cell), **counts, **evaluated}
        records.append({**described, "resolved": resolved.get(cell), "at_most": at_most.get(cell)})
        if score is not None:
            # The hash belongs to the identity: methods may get different prompts of one sample.
            ids = [(row["id"], row["prompt_sha256"]) for row in scored_rows]
            documents = [row.get("document_sha256", "") for row in scored_rows]
            cell_samples[cell] = CellSamples(ids, score.estimate, documents)
    further = ("scale", "proportion", "details", "detail_estimates", "resolved", "at_most")
    scores = pd.DataFrame(records).reindex(columns=[*SCORE_COLUMNS, *further])
    rule = store.config.get("stopping")
    scores["stopping"] = describe_rule(rule) if rule else ""
    return ScoredRun(scores, cell_samples, rows_by_cell, left_out)


def _with_documents(
    rows_by_cell: Mapping[Cell, Sequence[SampleRecord]],
) -> dict[Cell, list[SampleRecord]]:
    """Return samples with their document where another sample of the same prompt stores it.

    A run that an older version began does not store the documents of the methods that it had then.
    """
    documents: dict[tuple[str, str, str, str], str] = {}
    for cell, rows in rows_by_cell.items():
        for row in rows:
            if "document_sha256" in row:
                documents[_prompt_key(cell, row)] = row["document_sha256"]
    known: dict[Cell, list[SampleRecord]] = {}
    for cell, rows in rows_by_cell.items():
        known[cell] = []
        for row in rows:
            document = documents.get(_prompt_key(cell, row))
            known[cell].append({**row, "document_sha256": document} if document else row)
    return known


def _prompt_key(cell: Cell, row: SampleRecord) -> tuple[str, str, str, str]:
    return cell.bench, cell.task, row["id"], row.get("prompt_sha256", "")


def by_ascending_length(cells: Mapping[Cell, int]) -> dict[Cell, int]:
    """Return a run's cells with the lengths of each task ascending; it ran the longest first."""
    tasks: dict[tuple[str, str, str], int] = {}
    for cell in cells:
        tasks.setdefault((cell.model, cell.bench, cell.task), len(tasks))
    order = sorted(cells, key=lambda cell: (tasks[cell.model, cell.bench, cell.task], cell.length))
    return {cell: cells[cell] for cell in order}


def scored_cells(scores: pd.DataFrame) -> list[Cell]:
    """Return the cell of each row of scores."""
    names = [field.name for field in fields(Cell)]
    return [Cell(*values) for values in scores[names].itertuples(index=False, name=None)]


def score_details(scores: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Return further numbers of a run, a row each, with `weights` of cells in an average.

    Numbers of cells come first, then averages over tasks (without a task), then averages over
    lengths (without task and length).

    Args:
        scores: the scores of the run.
        store: the run.
    """
    records: list[dict[str, Any]] = []
    for cell in scores.to_dict("records"):
        about_cell = {key: cell[key] for key in (*DETAIL_KEYS, "task", "length")}
        for name, value in cell["details"].items():
            about_detail = {**about_cell, "name": name, "value": value}
            if name in cell["detail_estimates"]:
                about_detail |= _detail_columns(cell["detail_estimates"][name])
            records.append(about_detail)
    for key_values, cells in scores.groupby(DETAIL_KEYS, sort=False):
        about_method = dict(zip(DETAIL_KEYS, key_values, strict=True))
        bench = str(about_method["bench"])
        averages = bench_averages(BENCHES[bench], _protocol(store, bench), cells)
        records += [{**about_method, **average} for average in averages]
    # Int64 holds missing values: averages have no count, and averages over lengths no length
    details = pd.DataFrame(records, columns=[*DETAIL_COLUMNS, "weights"])
    return details.astype({"length": "Int64", "n": "Int64"})


def scores_by_length(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with a column per length: table.csv.

    A length has seven columns: `512` for the score, then `512 stderr`, `512 ci_low`, `512 ci_high`,
    `512 n`, `512 unscored` (missing, failed and skipped samples) and `512 cut`.

    Args:
        scores: scores of runs, with the columns `run` and `settings`.
    """
    keys = ["run", "settings", "model", "protocol", "bench", "task", "metric", "method"]
    counted = scores.assign(unscored=scores[UNSCORED].sum(axis=1))
    # Int64, since a pivot leaves gaps where a method was not run at a length
    counted = counted.astype(dict.fromkeys(["n", "unscored", "cut"], "Int64"))
    by_length = [counted.pivot(index=keys, columns="length", values="score").add_suffix("")]
    for column in ("stderr", "ci_low", "ci_high", "n", "unscored", "cut"):
        values = counted.pivot(index=keys, columns="length", values=column)
        by_length.append(values.add_suffix(f" {column}"))
    # a pivot sorts its rows; the merge gives them the order of the run again
    original_order = scores[keys].drop_duplicates()
    return original_order.merge(pd.concat(by_length, axis=1).reset_index(), on=keys)


def tasks_below_card_size(store: Store) -> list[tuple[str, int, int]]:
    """Return tasks whose data had fewer samples than their card says.

    A run with a limit has none: there the user asked for fewer.

    Returns:
        Name of the task, its samples, and the samples that its card says.
    """
    if store.config["limit"] is not None:
        return []
    # A cell that a stopping rule ended had more.
    cells = {**store.cells(), **store.at_most()}
    samples_by_task = {f"{cell.bench}/{cell.task}": n for cell, n in cells.items()}
    below: list[tuple[str, int, int]] = []
    for task, samples in samples_by_task.items():
        expected = store.config["tasks"][task]["samples"]
        if samples < expected:
            below.append((task, samples, expected))
    return below


def count_empty_answers(rows: Iterable[SampleRecord]) -> int:
    """Return how many answers have no visible character."""
    answers = [row["prediction"] for row in rows if "error" not in row and "prediction" in row]
    return sum(not answer.strip() for answer in answers)


def _description(store: Store, cell: Cell) -> dict[str, Any]:
    return {
        "model": cell.model,
        "method": cell.method,
        "protocol": store.config["protocol"],
        "bench": cell.bench,
        "task": cell.task,
        "length": cell.length,
        "metric": _task(store, cell).card.metric,
        "window": store.config["models"][cell.model]["window"],
    }


def _counts(
    rows: Sequence[SampleRecord], scored_rows: Sequence[SampleRecord], planned_samples: int
) -> dict[str, int]:
    """Return what became of the planned samples of a cell."""
    skipped = sum("skipped" in row for row in rows)
    return {
        "n": len(scored_rows),
        # Never run: no row was stored, not even that of an error.
        "missing": planned_samples - len(rows),
        "errors": len(rows) - len(scored_rows) - skipped,
        "skipped": skipped,
        "cut": sum("cut_tokens" in row for row in scored_rows),
    }


def _scored(rows: Sequence[SampleRecord]) -> list[SampleRecord]:
    return [row for row in rows if "error" not in row and "skipped" not in row]


def _evaluated(
    store: Store, cell: Cell, scored_rows: Sequence[SampleRecord]
) -> tuple[dict[str, Any], CellScore | None]:
    """Return the columns that are computed from a cell's scored samples, and their score."""
    columns = {
        **_measured(store, cell, scored_rows),
        # a cell without a scored sample keeps these
        "independent_units": 0,
        "unit": "sample",
        "scale": None,
        "proportion": None,
        "details": {},
        "detail_estimates": {},
    }
    if not scored_rows:
        return columns, None
    score = _cell_score(store, cell, scored_rows)
    columns |= _score_columns(score)
    # Only benchmarks that average scores can stop by rule.
    if store.config.get("stopping"):
        low, high = anytime_interval([row["score"] for row in scored_rows], alpha=ALPHA)
        columns |= {"ci_low": 100 * low, "ci_high": 100 * high}
        # Those of averages and details take the number of samples as fixed before.
        columns |= {"proportion": None, "detail_estimates": {}}
    return columns, score


def _with_own_error(store: Store, cell: Cell, row: SampleRecord) -> SampleRecord:
    """Return a sample; as a failed one if nothing can be computed from it alone."""
    try:
        _evaluated(store, cell, _scored([row]))
    except Exception as error:
        return {**row, "error": f"cannot be scored: {describe_error(error)}"}
    return row


def _refuse_unknown(store: Store) -> None:
    """Refuse cells of models, methods and tasks that run.yaml does not describe."""
    config, path = store.config, store.folder / "cells.jsonl"
    for number, cell in enumerate(store.cells(), start=1):
        task = f"{cell.bench}/{cell.task}"
        described: dict[str, tuple[str, Collection[str]]] = {
            "model": (cell.model, config["models"]),
            "method": (cell.method, config["methods"]),
            "bench": (cell.bench, config["protocols"]),
            "task": (task, config["tasks"]),
        }
        for key, (name, known) in described.items():
            if name not in known:
                raise UserError(
                    f"{path}:{number}: {key} {name!r} is not in run.yaml; remove the file and run "
                    "again, which rewrites it"
                )
        _task(store, cell)
        _protocol(store, cell.bench)


def _measured(store: Store, cell: Cell, scored_rows: Sequence[SampleRecord]) -> dict[str, Any]:
    """Return how the samples of a cell ran."""
    window = store.config["models"][cell.model]["window"]
    positions = [row["largest_position"] for row in scored_rows]
    return {
        "attention_factor": _range(row["attention_factor"] for row in scored_rows),
        "batch_size": max((row.get("batch_size", 1) for row in scored_rows), default=1),
        "largest_position": max(positions, default=float("nan")),
        "beyond_window": sum(position >= window for position in positions),
    }


def _score_columns(score: CellScore) -> dict[str, Any]:
    estimate = score.estimate
    low, high = estimate.interval()
    return {
        "score": score.value,
        "stderr": score.stderr,
        "ci_low": low,
        "ci_high": high,
        "independent_units": estimate.independent_units,
        "unit": estimate.unit,
        "scale": estimate.scale,
        "proportion": estimate.proportion if estimate.scale == "percent" else None,
        "details": dict(score.details),
        "detail_estimates": dict(score.detail_estimates),
    }


def _detail_columns(estimate: Estimate) -> dict[str, Any]:
    low, high = estimate.interval()
    return {"ci_low": low, "ci_high": high, "n": len(estimate.parts)}


def _rescored(store: Store, cell: Cell, rows: Sequence[SampleRecord]) -> list[SampleRecord]:
    """Return the rows with the scores that today's scorer gives, whatever was stored."""
    protocol = _protocol(store, cell.bench)
    rescored: list[SampleRecord] = []
    for row in rows:
        # A passage has a loss and no prediction; its loss is its score.
        if "prediction" in row and "error" not in row and "skipped" not in row:
            try:
                row = {**row, "score": BENCHES[cell.bench].score(cell.task, row, protocol)}
            # Counted as failed: the scorer met what a run of this task does not store.
            except Exception as error:
                row = {**row, "error": f"cannot be scored: {describe_error(error)}"}
        rescored.append(row)
    return rescored


def _cell_score(store: Store, cell: Cell, scored_rows: Sequence[SampleRecord]) -> CellScore:
    protocol = _protocol(store, cell.bench)
    return BENCHES[cell.bench].cell_score(_task(store, cell), scored_rows, protocol)


def _protocol(store: Store, bench: str) -> Protocol:
    # As it was when the run was made; the shipped protocol may have changed since.
    return _valid(Protocol, store.config["protocols"][bench], store, f"protocols.{bench}")


def _task(store: Store, cell: Cell) -> Task:
    stored_card = store.config["tasks"][f"{cell.bench}/{cell.task}"]
    key = f"tasks.{cell.bench}/{cell.task}"
    card = _valid(BENCHES[cell.bench].card, stored_card, store, key)
    return Task(cell.bench, cell.task, card)


def _valid(card: type[C], stored: Mapping[str, Any], store: Store, key: str) -> C:
    """Return a card that run.yaml holds.

    Raises:
        UserError: if it is not of the declared types.
    """
    try:
        return card.model_validate(stored)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join([key, *map(str, fault["loc"])])
        raise UserError(
            f"{store.folder / 'run.yaml'}: damaged (key {where!r} {plain_message(fault)}); "
            "restore it, or run again with another --output"
        ) from None


def _range(values: Iterable[str]) -> str:
    """Return the only value, or the first and the last of several.

    Methods that adapt to a prompt's length have several within a cell.
    """
    ordered = sorted(set(values))
    if len(ordered) > 1:
        return f"{ordered[0]} to {ordered[-1]}"
    return "".join(ordered)
