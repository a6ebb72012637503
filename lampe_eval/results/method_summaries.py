"""Summaries of the methods of a run: score, effective length, short-prompt tax and costs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lampe_eval.errors import UserError
from lampe_eval.method_specs import DEFAULT_REFERENCE
from lampe_eval.records import SampleRecord
from lampe_eval.results.bench_averages import StratumKey
from lampe_eval.results.costs import relative_costs
from lampe_eval.results.effective_length import (
    EffectiveLength,
    ScoreAtLength,
    absolute_effective_length,
    relative_effective_length,
)
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.method_differences import WITHIN, ComparableCells, method_differences
from lampe_eval.results.paired_tests import LEVEL
from lampe_eval.results.ranking import COMPARABLE, complete_cells, higher_is_better
from lampe_eval.results.recommendation import BenchSummary, MethodSummary, ShortPromptTax
from lampe_eval.scoring.ruler_metrics import LLAMA2_AT_4K
from lampe_eval.store import Cell

ScoresByLength = Mapping[str, Mapping[int, ScoreAtLength]]
"""Scores by label of the method, then by length."""


@dataclass(frozen=True)
class ModelSummary:
    """Summaries of the methods that were run with one model.

    Attributes:
        model: name of the model.
        length: length in tokens that scores and costs are of.
        methods: the methods that were run on every benchmark at that length.
        higher_is_better: the benchmarks, and whether a higher score is better.
        left_out: the other methods.
        stopping: rule by which the cells stop, in words; empty where all samples run.
    """

    model: str
    length: int
    methods: Sequence[MethodSummary]
    higher_is_better: Mapping[str, bool]
    left_out: Sequence[str]
    stopping: str = ""


def summarize_models(gathered: GatheredRuns, length: int | None = None) -> list[ModelSummary]:
    """Return a summary for each model of a run.

    Args:
        gathered: the run.
        length: length in tokens; by default the longest one of the model.

    Raises:
        UserError: where the unpatched model, a second length, or the length asked for is missing.
    """
    labelled = gathered.labelled(gathered.scores)
    return [
        _summarize_model(gathered, str(model), rows, length)
        for model, rows in labelled.groupby("model", sort=False)
    ]


def _summarize_model(
    gathered: GatheredRuns, model: str, scores: pd.DataFrame, length: int | None
) -> ModelSummary:
    _refuse_without_comparison(model, scores, length)
    length = length or int(scores["length"].max())
    by_bench: dict[str, Mapping[str, BenchSummary]] = {}
    directions: dict[str, bool] = {}
    for key, rows in scores.groupby(COMPARABLE, sort=False):
        for name, of_series in _series(gathered, rows):
            if length in set(of_series["length"]):
                directions[name] = higher_is_better(rows)
                by_bench[name] = _summarize_bench(
                    gathered, of_series, gathered.comparable[key], length
                )
    methods: list[MethodSummary] = []
    left_out: list[str] = []
    for label in dict.fromkeys(scores["label"]):
        benches = {name: found[label] for name, found in by_bench.items() if label in found}
        if len(benches) < len(by_bench):
            left_out.append(label)
            continue
        costs = relative_costs(_paired_rows(gathered, scores, label, length))
        methods.append(MethodSummary(label, benches, costs))
    stopping = str(scores["stopping"].iloc[0])
    return ModelSummary(model, length, methods, directions, left_out, stopping)


def _refuse_without_comparison(model: str, scores: pd.DataFrame, length: int | None) -> None:
    if DEFAULT_REFERENCE not in set(scores["label"]):
        raise UserError(
            f"{model}: the run has no method {DEFAULT_REFERENCE}, which taxes and costs relate to; "
            f"run it again with --method {DEFAULT_REFERENCE} and the same --output"
        )
    lengths = sorted(set(scores["length"]))
    if len(lengths) < 2:
        raise UserError(
            f"{model}: the run has one length, {lengths[0]}, and an effective length takes two at "
            "least; run it again with another one in --lengths and the same --output"
        )
    if length is not None and length not in lengths:
        raise UserError(
            f"--length {length}: {model} was run at {', '.join(map(str, lengths))}; give one of "
            "these"
        )


def _series(gathered: GatheredRuns, rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a benchmark that averages its tasks as a whole, and another one task by task."""
    bench = str(rows["bench"].iloc[0])
    if rows["task"].nunique() == 1 or _scores_by_length(gathered, rows):
        yield bench, rows
        return
    for task, of_task in rows.groupby("task", sort=False):
        yield f"{bench}/{task}", of_task


def _summarize_bench(
    gathered: GatheredRuns, rows: pd.DataFrame, cells: ComparableCells, length: int
) -> dict[str, BenchSummary]:
    """Return a summary for each method all of whose samples at the length are scored."""
    scores = _scores_by_length(gathered, rows)
    at_length = {
        label: of_label[length] for label, of_label in scores.items() if length in of_label
    }
    if not at_length:
        return {}
    values = {label: score.value for label, score in at_length.items()}
    not_worse = cells.not_shown_worse(values, _cell_weights(gathered, rows, length))
    taxes = _taxes(rows, cells)
    window = int(rows["window"].iloc[0])
    return {
        label: BenchSummary(
            score,
            label not in not_worse,
            relative_effective_length(
                scores[label], window=window, higher_is_better=higher_is_better(rows)
            ),
            taxes.get(label),
            _ruler_effective_length(rows, scores[label]),
        )
        for label, score in at_length.items()
    }


def _ruler_effective_length(
    rows: pd.DataFrame, scores: Mapping[int, ScoreAtLength]
) -> EffectiveLength | None:
    if rows["bench"].iloc[0] != "ruler":
        return None
    return absolute_effective_length(scores, LLAMA2_AT_4K)


def _scores_by_length(gathered: GatheredRuns, rows: pd.DataFrame) -> ScoresByLength:
    """Return the scores of complete cells, averaged over the tasks of the benchmark."""
    if rows["task"].nunique() == 1:
        complete = rows[complete_cells(rows)].rename(columns={"score": "value"})
    else:
        keys = ["run", "model", "method", "protocol", "bench"]
        averages = gathered.details[gathered.details["task"].isna()].dropna(subset="length")
        labels = rows[[*keys, "label"]].drop_duplicates()
        # the first average is the one that a benchmark reports over lengths
        complete = averages.merge(labels, on=keys).drop_duplicates(["label", "length"])
        # an average over other tasks than the unpatched model's is another number
        complete = complete[complete["weights"].map(lambda weights: bool(weights))]
        reference = complete[complete["label"] == DEFAULT_REFERENCE].set_index("length")["weights"]
        tasks = complete["length"].map(reference.to_dict()).map(_keys)
        complete = complete[complete["weights"].map(_keys) == tasks]
    scores: dict[str, dict[int, ScoreAtLength]] = {}
    columns = complete[["label", "length", "value", "ci_low", "ci_high"]]
    for label, length, value, low, high in columns.itertuples(index=False):
        scores.setdefault(label, {})[int(length)] = ScoreAtLength(value, low, high)
    return scores


def _keys(weights: Any) -> tuple[StratumKey, ...]:
    return tuple(sorted(weights)) if isinstance(weights, dict) else ()


def _cell_weights(
    gathered: GatheredRuns, rows: pd.DataFrame, length: int
) -> dict[StratumKey, float]:
    """Return the weight of each cell in the score of a benchmark at a length."""
    cells = {(str(task), length): 1.0 for task in rows["task"]}
    if len(cells) == 1:
        return cells
    of_reference = rows[rows["label"] == DEFAULT_REFERENCE].iloc[0]
    details = gathered.details[gathered.details["task"].isna()]
    for column in ("run", "model", "method", "protocol", "bench"):
        details = details[details[column] == of_reference[column]]
    weights: dict[StratumKey, float] = details.loc[details["length"] == length, "weights"].iloc[0]
    return weights


def _taxes(rows: pd.DataFrame, cells: ComparableCells) -> dict[str, ShortPromptTax]:
    """Return the difference of each method from the unpatched model within the window."""
    key = next(rows[list(COMPARABLE)].itertuples(index=False, name=None))
    differences = method_differences(rows, {key: cells}, DEFAULT_REFERENCE)
    # without the unpatched model in this benchmark it compares with another method
    differences = differences[differences["reference"] == DEFAULT_REFERENCE]
    taxes: dict[str, ShortPromptTax] = {}
    for row in differences[differences["scope"] == WITHIN].to_dict("records"):
        is_worse = row["difference"] < 0 if higher_is_better(rows) else row["difference"] > 0
        is_shown = bool(is_worse and row["p_value_holm"] < LEVEL)
        taxes[row["method"]] = ShortPromptTax(
            row["difference"], row["ci_low"], row["ci_high"], is_shown
        )
    return taxes


def _paired_rows(
    gathered: GatheredRuns, scores: pd.DataFrame, label: str, length: int
) -> Iterator[tuple[Sequence[SampleRecord], Sequence[SampleRecord]]]:
    """Yield the samples of a method and of the unpatched model for each task at a length."""
    at_length = scores[scores["length"] == length]
    reference = {row["task"]: row for row in _records(at_length, DEFAULT_REFERENCE)}
    for row in _records(at_length, label):
        if row["task"] in reference:
            yield _rows(gathered, row), _rows(gathered, reference[row["task"]])


def _records(scores: pd.DataFrame, label: str) -> list[dict[Any, Any]]:
    records = scores[scores["label"] == label].to_dict("records")
    return [{**row, "task": (row["bench"], row["task"])} for row in records]


def _rows(gathered: GatheredRuns, record: Mapping[Any, Any]) -> Sequence[SampleRecord]:
    bench, task = record["task"]
    cell = Cell(record["model"], record["method"], bench, task, record["length"])
    return gathered.rows[record["run"], cell]
