"""Facts of a complete run as exports state them, for each model with each method."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lampe_eval.benches import BENCHES
from lampe_eval.errors import UserError, first_names
from lampe_eval.records import ModelRecord, ResolvedSettings, RunConfiguration, SampleRecord
from lampe_eval.results.cell_scores import scored_cells
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.ranking import UNSCORED, scale_of
from lampe_eval.run_description import read_description
from lampe_eval.scoring.estimates import Array, Scale
from lampe_eval.store import Cell

REASONS = {"errors": "failed", "skipped": "left out as too long", "missing": "missing"}
"""Words for `ranking.UNSCORED`."""


@dataclass(frozen=True)
class ExportedNumber:
    """Number of a benchmark with its uncertainty, in percent or as its metric is.

    Attributes:
        bench: the benchmark.
        scale: scale of the benchmark's scores.
        value: the number.
        stderr: its standard error; None where it has none.
        ci_low: lower end of its 95 % interval, or None.
        ci_high: upper end of that interval, or None.
    """

    bench: str
    scale: Scale
    value: float
    stderr: float | None
    ci_low: float | None
    ci_high: float | None

    @property
    def higher_is_better(self) -> bool:
        """Return whether a higher number is better."""
        return BENCHES[self.bench].higher_is_better

    @property
    def is_percent(self) -> bool:
        """Return True for a number from 0 to 100; others, such as perplexities, are above 0."""
        return self.scale == "percent"


@dataclass(frozen=True)
class ExportedCell(ExportedNumber):
    """Score of a cell, and what it depends on.

    Attributes:
        cell: model, method, bench, task and length.
        metric: name of the metric.
        n: number of samples.
        independent_units: number of units that the standard error is computed over.
        unit: name of these units.
        attention_factor: the factor on attention, as text.
        stopping: rule by which the cell could stop early, in words; empty without one.
        version: version of the task.
        task_samples: samples of the task, unless limited.
        resolved: settings of the method at this length; None in older runs.
        rows: the samples.
        parts: numbers of each sample from which the score is computed, [samples, parts].
    """

    cell: Cell
    metric: str
    n: int
    independent_units: int
    unit: str
    attention_factor: str
    stopping: str
    version: int
    task_samples: int
    resolved: ResolvedSettings | None
    rows: Sequence[SampleRecord]
    parts: Array

    @property
    def has_answers(self) -> bool:
        """Return True where samples are answers; else they are passages with a loss."""
        return BENCHES[self.bench].has_answers

    @property
    def name(self) -> str:
        """Return the name of task and length, such as "ruler_vt_4096"."""
        return f"{self.bench}_{self.cell.task}_{self.cell.length}"


@dataclass(frozen=True)
class ExportedAverage(ExportedNumber):
    """Average that a benchmark reports over its tasks at a length, or over lengths.

    Attributes:
        name: name of the average.
        length: the length; None for a number over lengths.
    """

    name: str
    length: int | None


@dataclass(frozen=True)
class ExportedResults:
    """Results of one model with one method.

    Attributes:
        model: name of the model in the run.
        method: label of the method.
        config: configuration of the run.
        time: when the run began; for folders that do not say it, when they were last described.
        environment: versions and hardware of the last session that ran samples.
        cells: scores.
        averages: averages over tasks and lengths.
    """

    model: str
    method: str
    config: RunConfiguration
    time: datetime
    environment: Mapping[str, Any]
    cells: Sequence[ExportedCell]
    averages: Sequence[ExportedAverage]

    @property
    def model_record(self) -> ModelRecord:
        """Return the fingerprint, type and window of the model."""
        return self.config["models"][self.model]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the settings of the method as configured; lengths may resolve them further."""
        return self.config["methods"][self.method][self.model]

    @cached_property
    def hub_id(self) -> str:
        """Return the id of the model on the hub, else its name in the run."""
        repository, _, commit = self.model_record["fingerprint"].partition("@")
        return repository if commit else self.model

    @property
    def version(self) -> str:
        """Return the version of lampe-eval that ran the samples."""
        return str(self.environment.get("lampe-eval", "unknown"))

    @property
    def benches(self) -> list[str]:
        """Return the benchmarks in the order of the run."""
        return list(dict.fromkeys(cell.bench for cell in self.cells))


def exported_results(gathered: GatheredRuns) -> Iterator[ExportedResults]:
    """Yield the results of a run by model and method.

    Raises:
        UserError: if any sample of the run has no score.
    """
    for run, store in gathered.runs.items():
        _refuse_incomplete(gathered, store.folder)
        description = read_description(store.folder)
        environments = description["environments"]
        environment = environments[-1] if environments else {}
        history = description.get("history")
        time = history[0]["time"] if history else _last_described(store.folder)
        averages = _averages(gathered)
        by_label: dict[tuple[str, str], list[ExportedCell]] = {}
        for cell in _cells(gathered, run, store.config):
            by_label.setdefault((cell.cell.model, cell.cell.method), []).append(cell)
        for (model, method), cells in by_label.items():
            yield ExportedResults(
                model,
                method,
                store.config,
                time,
                environment,
                cells,
                averages.get((model, method), []),
            )


def _refuse_incomplete(gathered: GatheredRuns, folder: Path) -> None:
    """Refuse a run in which a sample has no score: a reader elsewhere would not know it."""
    scores = gathered.scores
    incomplete = scores[scores[UNSCORED].sum(axis=1) > 0]
    if incomplete.empty:
        return
    counts = {REASONS[column]: int(incomplete[column].sum()) for column in UNSCORED}
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    total = int(scores[["n", *UNSCORED]].to_numpy().sum())
    places = [f"{cell.place} at {cell.length}" for cell in scored_cells(incomplete)]
    raise UserError(
        f"cannot export {folder}: {sum(counts.values())} of {total} samples have no score "
        f"({reasons}), in {first_names(places)}; run it again to complete it, or run without "
        "what cannot be scored"
    )


def _cells(gathered: GatheredRuns, run: str, config: RunConfiguration) -> Iterator[ExportedCell]:
    scores = gathered.scores[gathered.scores["n"] > 0]
    for row, cell in zip(scores.to_dict("records"), scored_cells(scores), strict=True):
        if not math.isfinite(row["score"]):
            raise UserError(
                f"cannot export {gathered.runs[run].folder}: {cell.place} at {cell.length} has "
                f"the score {row['score']}, which these formats cannot hold; run without it"
            )
        card = config["tasks"][f"{cell.bench}/{cell.task}"]
        yield ExportedCell(
            **_number(row, "score", row["scale"]),
            cell=cell,
            metric=row["metric"],
            n=row["n"],
            independent_units=row["independent_units"],
            unit=row["unit"],
            attention_factor=row["attention_factor"],
            stopping=row["stopping"],
            version=card["version"],
            task_samples=card["samples"],
            resolved=row["resolved"],
            rows=gathered.rows[run, cell],
            parts=np.asarray(gathered.cell_samples[run, cell].estimate.parts),
        )


def _averages(gathered: GatheredRuns) -> dict[tuple[str, str], list[ExportedAverage]]:
    """Return by model and method the averages that a benchmark reports."""
    averages: dict[tuple[str, str], list[ExportedAverage]] = {}
    details = gathered.details
    scales = {str(bench): scale_of(cells) for bench, cells in gathered.scores.groupby("bench")}
    for row in details[details["task"].isna() & details["value"].notna()].to_dict("records"):
        length = None if row["length"] is None or math.isnan(row["length"]) else int(row["length"])
        number = _number(row, "value", scales[row["bench"]])
        average = ExportedAverage(**number, name=row["name"], length=length)
        averages.setdefault((row["model"], row["method"]), []).append(average)
    return averages


def _number(row: Mapping[Any, Any], column: str, scale: Scale) -> dict[str, Any]:
    """Return the fields of `ExportedNumber`; formats without NaN leave out what is None."""
    values = {"value": row[column], **{key: row[key] for key in ("stderr", "ci_low", "ci_high")}}
    finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
    return {"bench": row["bench"], "scale": scale, **finite}


def _last_described(folder: Path) -> datetime:
    return datetime.fromtimestamp((folder / "run.yaml").stat().st_mtime, UTC).replace(microsecond=0)
