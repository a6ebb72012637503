"""Summaries of the methods of runs: score, effective length, short-prompt tax and costs.

Several runs are summarized together where they agree in all that scores depend on. What is missing,
and what makes numbers less comparable, is said in remarks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pandas as pd

from lampe_eval.errors import UserError
from lampe_eval.method_specs import DEFAULT_REFERENCE
from lampe_eval.records import SampleRecord
from lampe_eval.results.bench_averages import StratumKey
from lampe_eval.results.costs import environment_differences, relative_costs
from lampe_eval.results.effective_length import (
    EffectiveLength,
    ScoreAtLength,
    absolute_effective_length,
    base_lengths,
    relative_effective_length,
)
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.method_differences import (
    WITHIN,
    ComparableCells,
    comparable_cells,
    method_differences,
)
from lampe_eval.results.paired_tests import LEVEL
from lampe_eval.results.ranking import COMPARABLE, complete_cells, higher_is_better, scale_of
from lampe_eval.results.recommendation import BenchSummary, MethodSummary, ShortPromptTax
from lampe_eval.run_description import read_description
from lampe_eval.scoring.estimates import Scale
from lampe_eval.scoring.ruler_metrics import LLAMA2_AT_4K
from lampe_eval.store import Cell


@dataclass(frozen=True)
class ModelSummary:
    """Summaries of the methods that were run with one model.

    Attributes:
        model: name of the model.
        length: length in tokens that scores and costs are of.
        methods: the methods that were run on every benchmark at that length.
        higher_is_better: the benchmarks, and whether a higher score is better.
        scales: scale of the scores by benchmark.
        sources: by label of a method, a run that has it, and its label there.
        remarks: a line for each thing that is missing, or makes numbers less comparable.
        stopping: rule by which cells stop, in words; empty where all samples run.
    """

    model: str
    length: int
    methods: Sequence[MethodSummary]
    higher_is_better: Mapping[str, bool]
    scales: Mapping[str, Scale]
    sources: Mapping[str, tuple[str, str]]
    remarks: Sequence[str]
    stopping: str = ""


@dataclass(frozen=True)
class _Series:
    """Scores that are summarized as one: a benchmark that averages its tasks, or a single task.

    Attributes:
        name: name of the benchmark, or "bench/task".
        rows: its cells, with labels.
        cells: the cells of the benchmark.
        reference: label of the unpatched model.
    """

    name: str
    rows: pd.DataFrame
    cells: ComparableCells
    reference: str

    @property
    def lengths(self) -> list[int]:
        """Return its lengths in tokens."""
        return sorted(set(self.rows["length"]))

    @property
    def window(self) -> int:
        """Return the model's window in tokens."""
        return int(self.rows["window"].iloc[0])


def summarize_models(
    gathered: GatheredRuns, length: int | None = None
) -> tuple[list[ModelSummary], list[str]]:
    """Return a summary for each model of runs, and why others have none, a line each.

    Args:
        gathered: the runs.
        length: length in tokens; by default the longest one of the model.

    Raises:
        UserError: where no model has a summary, since the runs cannot be compared, or lack the
            unpatched model, a second length, complete cells, or the length asked for.
    """
    labelled = _labelled(gathered)
    cells = comparable_cells(labelled, gathered.cell_samples)
    summaries: list[ModelSummary] = []
    problems: list[str] = []
    for model, rows in labelled.groupby("model", sort=False):
        try:
            summaries.append(_summarize_model(gathered, cells, str(model), rows, length))
        except UserError as error:
            problems.append(str(error))
    if not summaries:
        raise UserError("; ".join(problems))
    return summaries, problems


def _labelled(gathered: GatheredRuns) -> pd.DataFrame:
    """Return the scores with a column `label`: the method, and its run where that is ambiguous.

    A method of several runs is the same one if its settings are, and if no two of the runs have the
    same benchmark at the same length.
    """
    scores = gathered.scores
    labels: dict[tuple[str, str, str], str] = {}
    for (model, method), rows in scores.groupby(["model", "method"], sort=False):
        model, method = str(model), str(method)
        runs = list(rows["run"].unique())
        settings = [gathered.runs[run].config["methods"][method].get(model) for run in runs]
        places = rows[["run", "bench", "length"]].drop_duplicates()
        is_repeated = places.duplicated(["bench", "length"]).any()
        is_one = all(each == settings[0] for each in settings) and not is_repeated
        for run in runs:
            labels[model, method, run] = method if is_one else f"{method} · {run}"
    keys = scores[["model", "method", "run"]].itertuples(index=False, name=None)
    return scores.assign(label=[labels[key] for key in keys])


def _summarize_model(
    gathered: GatheredRuns,
    cells: Mapping[tuple[Any, ...], ComparableCells],
    model: str,
    scores: pd.DataFrame,
    asked_length: int | None,
) -> ModelSummary:
    _refuse_different_runs(gathered, model, scores)
    reference = _reference(model, scores)
    length = _length(model, scores, asked_length)
    remarks: list[str] = []
    by_bench: dict[str, Mapping[str, BenchSummary]] = {}
    directions: dict[str, bool] = {}
    scales: dict[str, Scale] = {}
    for key, rows in scores.groupby(COMPARABLE, sort=False):
        for series in _all_series(gathered, rows, cells[key], reference, length):
            summaries = _summarize_series(gathered, series, length)
            remarks += _series_remarks(series, length, summaries)
            if summaries:
                by_bench[series.name] = summaries
                directions[series.name] = higher_is_better(rows)
                scales[series.name] = scale_of(series.rows)
    if not by_bench:
        raise UserError(
            f"{model}: no method has all its samples at {length} tokens; run the same command "
            "again, which runs what is missing, or give another --length"
        )
    methods: list[MethodSummary] = []
    lacking: dict[tuple[str, ...], list[str]] = {}
    for label in dict.fromkeys(scores["label"]):
        missing = tuple(name for name, found in by_bench.items() if label not in found)
        if missing:
            lacking.setdefault(missing, []).append(label)
            continue
        costs = relative_costs(_paired_rows(gathered, scores, label, reference, length))
        benches = {name: found[label] for name, found in by_bench.items()}
        methods.append(MethodSummary(label, benches, costs))
    for missing, labels in lacking.items():
        remarks.append(
            f"left out, not run in full at {length} tokens of {', '.join(missing)}: "
            f"{', '.join(labels)}"
        )
    remarks += _cost_remarks(gathered, scores, methods, reference)
    stopping = "; ".join(rule for rule in scores["stopping"].unique() if rule)
    if stopping:
        remarks.append(
            f"{stopping}: what is shown here takes the number of samples as fixed before, and is "
            "too easily shown"
        )
    runs = scores.drop_duplicates("label").set_index("label")[["run", "method"]]
    sources = {str(label): (run, method) for label, run, method in runs.itertuples(name=None)}
    return ModelSummary(model, length, methods, directions, scales, sources, remarks, stopping)


def _refuse_different_runs(gathered: GatheredRuns, model: str, scores: pd.DataFrame) -> None:
    """Refuse runs whose scores cannot be compared."""
    runs = list(scores["run"].unique())
    records = {run: dict(gathered.runs[run].config["models"][model]) for run in runs}
    for key, value in records[runs[0]].items():
        if any(record[key] != value for record in records.values()):
            values = ", ".join(f"{record[key]} in {run}" for run, record in records.items())
            raise UserError(
                f"{model}: these runs are of different models, {key}: {values}; give runs of one"
            )
    conditions = scores[["run", "bench", "protocol", "settings"]].drop_duplicates()
    for bench, of_bench in conditions.groupby("bench", sort=False):
        if len(of_bench[["protocol", "settings"]].drop_duplicates()) > 1:
            columns = of_bench[["run", "protocol", "settings"]].itertuples(index=False)
            texts = [
                f"{run}: protocol {protocol}{settings and f', {settings}'}"
                for run, protocol, settings in columns
            ]
            raise UserError(
                f"{model}: runs of {bench} cannot be compared ({'; '.join(texts)}); give runs that "
                "agree in these"
            )


def _reference(model: str, scores: pd.DataFrame) -> str:
    """Return the label of the unpatched model, of several runs the first that has it."""
    labels = scores.loc[scores["method"] == DEFAULT_REFERENCE, "label"]
    if labels.empty:
        raise UserError(
            f"{model}: there is no method {DEFAULT_REFERENCE}, which taxes and costs relate to; "
            f"run it again with --method {DEFAULT_REFERENCE} and {_output(scores)}"
        )
    return str(labels.iloc[0])


def _output(scores: pd.DataFrame) -> str:
    """Return where to run what is missing; a run that decides takes nothing more."""
    return "another --output" if scores["stopping"].any() else "the same --output"


def _length(model: str, scores: pd.DataFrame, asked: int | None) -> int:
    """Return the length to summarize; refuse runs without two lengths of a benchmark."""
    lengths = sorted(set(scores["length"]))
    if scores.groupby("bench")["length"].nunique().max() < 2:
        by_bench = [
            f"{bench} at {rows['length'].iloc[0]}" for bench, rows in scores.groupby("bench")
        ]
        raise UserError(
            f"{model}: every benchmark has one length ({', '.join(by_bench)}), and an effective "
            "length takes two at least; run it again with another one in --lengths and "
            f"{_output(scores)}"
        )
    if asked is not None and asked not in lengths:
        raise UserError(
            f"--length {asked}: {model} was run at {', '.join(map(str, lengths))}; give one of "
            "these"
        )
    return asked or int(lengths[-1])


def _all_series(
    gathered: GatheredRuns, rows: pd.DataFrame, cells: ComparableCells, reference: str, length: int
) -> Iterator[_Series]:
    """Yield a benchmark that averages its tasks as a whole, and another one task by task."""
    bench = str(rows["bench"].iloc[0])
    is_whole = rows["task"].nunique() == 1 or length not in set(rows["length"])
    if is_whole or not _averages(gathered, rows, length).empty:
        yield _Series(bench, rows, cells, reference)
        return
    for task, of_task in rows.groupby("task", sort=False):
        yield _Series(f"{bench}/{task}", of_task, cells, reference)


def _series_remarks(series: _Series, length: int, summaries: Mapping[str, Any]) -> Iterator[str]:
    lengths = ", ".join(map(str, series.lengths))
    if length not in series.lengths:
        yield f"left out: {series.name}: not run at {length} tokens, but at {lengths} (--length)"
        return
    if not summaries:
        yield f"left out: {series.name}: no method has all its samples at {length} tokens"
        return
    if len(series.lengths) < 2:
        yield f"no effective length in {series.name}: it has one length, {lengths}"
    if series.lengths[0] > series.window:
        yield (
            f"no short prompts in {series.name}: none of its lengths ({lengths}) is within the "
            f"window of {series.window}, which base scores should be too"
        )


def _cost_remarks(
    gathered: GatheredRuns,
    scores: pd.DataFrame,
    methods: Sequence[MethodSummary],
    reference: str,
) -> Iterator[str]:
    """Yield what makes costs less comparable: other prompts, machines, versions and backends."""
    without = [one.method for one in methods if not one.costs.n]
    if without:
        yield f"no costs, no prompt in common with {reference}: {', '.join(without)}"
    by_condition: dict[str, dict[str, list[str]]] = {}
    for one in methods:
        for key, (ours, theirs) in one.costs.conditions.items():
            of_key = by_condition.setdefault(key, {theirs: [reference]})
            of_key.setdefault(ours, []).append(one.method)
    for key, by_value in by_condition.items():
        values = [
            f"{value or 'none'} for {', '.join(labels)}" for value, labels in by_value.items()
        ]
        yield f"costs compare different values of {key}: {'; '.join(values)}"
    folders = [gathered.runs[run].folder for run in scores["run"].unique()]
    sessions = [
        *chain.from_iterable(read_description(folder)["environments"] for folder in folders)
    ]
    differences = environment_differences(sessions)
    if differences:
        texts = "; ".join(f"{key} {values}" for key, values in differences.items())
        yield f"costs may compare sessions that differ: {texts}"


def _summarize_series(
    gathered: GatheredRuns, series: _Series, length: int
) -> dict[str, BenchSummary]:
    """Return a summary for each method all of whose samples at the length are scored."""
    scores = _scores_by_length(gathered, series.rows, length)
    at_length = {
        label: of_label[length] for label, of_label in scores.items() if length in of_label
    }
    if not at_length:
        return {}
    values = {label: score.value for label, score in at_length.items()}
    weights = _cell_weights(gathered, series.rows, length)
    not_worse = series.cells.not_shown_worse(values, weights)
    taxes = _taxes(series)
    return {
        label: BenchSummary(
            score,
            label not in not_worse,
            relative_effective_length(
                scores[label],
                bases=base_lengths(series.lengths, series.window),
                scale=scale_of(series.rows),
                higher_is_better=higher_is_better(series.rows),
            ),
            taxes.get(label),
            _ruler_effective_length(series.rows, scores[label]),
        )
        for label, score in at_length.items()
    }


def _ruler_effective_length(
    rows: pd.DataFrame, scores: Mapping[int, ScoreAtLength]
) -> EffectiveLength | None:
    if rows["bench"].iloc[0] != "ruler":
        return None
    return absolute_effective_length(scores, LLAMA2_AT_4K)


def _scores_by_length(
    gathered: GatheredRuns, rows: pd.DataFrame, length: int
) -> dict[str, dict[int, ScoreAtLength]]:
    """Return by label and length the scores of complete cells, averaged over tasks."""
    if rows["task"].nunique() == 1:
        complete = rows[complete_cells(rows)].rename(columns={"score": "value"})
    else:
        complete = _averages(gathered, rows, length)
    scores: dict[str, dict[int, ScoreAtLength]] = {}
    columns = complete[["label", "length", "value", "ci_low", "ci_high"]]
    for label, tokens, value, low, high in columns.itertuples(index=False):
        scores.setdefault(label, {})[int(tokens)] = ScoreAtLength(value, low, high)
    return scores


def _averages(gathered: GatheredRuns, rows: pd.DataFrame, length: int) -> pd.DataFrame:
    """Return the averages over tasks, by label and length, that are comparable.

    They are over as many tasks as an average at the length that is summarized is over: another
    number of tasks, of another method or at another length, makes another number.
    """
    keys = ["run", "model", "method", "protocol", "bench"]
    averages = gathered.details[gathered.details["task"].isna()].dropna(subset="length")
    places = rows[[*keys, "length", "label"]].drop_duplicates()
    # the first average is the one that a benchmark reports over lengths
    first = averages.merge(places, on=[*keys, "length"]).drop_duplicates(["label", "length"])
    tasks = first["weights"].map(_keys)
    most = max(tasks[first["length"] == length], key=len, default=())
    return first[tasks == most] if most else first.iloc[:0]


def _keys(weights: Any) -> tuple[str, ...]:
    return tuple(sorted(task for task, _ in weights)) if isinstance(weights, dict) else ()


def _cell_weights(
    gathered: GatheredRuns, rows: pd.DataFrame, length: int
) -> dict[StratumKey, float]:
    """Return the weight of each cell in the score of a benchmark at a length."""
    cells = {(str(task), length): 1.0 for task in rows["task"]}
    if len(cells) == 1:
        return cells
    averages = _averages(gathered, rows, length)
    weights: dict[StratumKey, float] = averages.loc[averages["length"] == length, "weights"].iloc[0]
    return weights


def _taxes(series: _Series) -> dict[str, ShortPromptTax]:
    """Return the difference of each method from the unpatched model within the window."""
    rows = series.rows
    key = next(rows[list(COMPARABLE)].itertuples(index=False, name=None))
    differences = method_differences(rows, {key: series.cells}, DEFAULT_REFERENCE)
    # without the unpatched model in this benchmark it compares with another method
    differences = differences[differences["reference"] == series.reference]
    taxes: dict[str, ShortPromptTax] = {}
    for row in differences[differences["scope"] == WITHIN].to_dict("records"):
        is_worse = row["difference"] < 0 if higher_is_better(rows) else row["difference"] > 0
        is_shown = bool(is_worse and row["p_value_holm"] < LEVEL)
        taxes[row["method"]] = ShortPromptTax(
            row["difference"], row["ci_low"], row["ci_high"], is_shown
        )
    return taxes


def _paired_rows(
    gathered: GatheredRuns, scores: pd.DataFrame, label: str, reference: str, length: int
) -> Iterable[tuple[Sequence[SampleRecord], Sequence[SampleRecord]]]:
    """Yield the samples of a method and of the unpatched model for each task at a length."""
    at_length = scores[scores["length"] == length]
    of_reference = {row["task"]: row for row in _records(at_length, reference)}
    for row in _records(at_length, label):
        if row["task"] in of_reference:
            yield _rows(gathered, row), _rows(gathered, of_reference[row["task"]])


def _records(scores: pd.DataFrame, label: str) -> list[dict[Any, Any]]:
    records = scores[scores["label"] == label].to_dict("records")
    return [{**row, "task": (row["bench"], row["task"])} for row in records]


def _rows(gathered: GatheredRuns, record: Mapping[Any, Any]) -> Sequence[SampleRecord]:
    bench, task = record["task"]
    cell = Cell(record["model"], record["method"], bench, task, record["length"])
    return gathered.rows[record["run"], cell]
