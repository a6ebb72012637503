"""Table model that the terminal, Markdown, LaTeX and the page render.

Tables have methods down and lengths across; at a single length, tasks down and methods across.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.method_specs import FORGOTTEN
from lampe_eval.report.table_comparison import DIFFERS, TEST, TEST_OF_ALL, TableComparison
from lampe_eval.results import ranking
from lampe_eval.results.bench_averages import StratumKey
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.ranking import COMPARABLE, UNSCORED
from lampe_eval.scoring.estimates import ONE_DOCUMENT

INTERVAL_NOTE = "in brackets 95 % interval"
INDEPENDENT_UNITS = {"window": "windows", ONE_DOCUMENT: "samples of one document"}
"""Units of which nothing says how they depend on each other, in the plural."""
LARGEST_WRITTEN_OUT = 1e6
"""End of an interval from which on it is written with a power of ten."""
COUNT_NOTES = {
    "missing": "samples are missing",
    "errors": "samples failed",
    "skipped": "prompts were too long and left out",
    "cut": "prompts were cut to fit",
}
"""Columns of scores that count samples, and what a note under a table says of them."""


@dataclass(frozen=True)
class TableValue:
    """Value in a table.

    Attributes:
        text: the number.
        interval: its 95 % interval, such as "[60, 98]".
        mark: how many samples are scored, such as "2 of 3", where not all are.
        best: whether it is not shown to be worse than another one; no marked score is.
        differs: whether it is shown to differ from that of the reference method.
    """

    text: str = "-"
    interval: str = ""
    mark: str = ""
    best: bool = False
    differs: bool = False

    def __str__(self) -> str:
        differs = DIFFERS if self.differs else ""
        interval = f" {self.interval}" if self.interval else ""
        mark = f" ({self.mark})" if self.mark else ""
        return f"{self.text}{differs}{interval}{mark}"


TableLine = tuple[str, list[TableValue]]
"""Label and values of a row."""


@dataclass(frozen=True)
class ResultTable:
    """Table of results.

    Attributes:
        title: what the table shows.
        columns: column titles; the first is that of the labels.
        lines: rows.
        notes: what a reader has to know about the numbers.
        comparison: comparison of the methods, if there is one.
        tasks: tasks whose cells the table shows.
    """

    title: str
    columns: list[str]
    lines: list[TableLine]
    notes: list[str]
    comparison: TableComparison | None = None
    tasks: tuple[str, ...] = ()

    @property
    def caption(self) -> list[str]:
        """Return what explains bold and marked scores, then the notes."""
        shown = list(chain.from_iterable(values for _, values in self.lines))
        legend: list[str] = []
        if any(value.best for value in shown):
            legend.append(f"bold: not shown to be worse than any other ({TEST_OF_ALL})")
        if self.comparison and any(value.differs for value in shown):
            legend.append(f"{DIFFERS} shown to differ from {self.comparison.reference} ({TEST})")
        if self.comparison:
            legend += self.comparison.power_notes(self.tasks)
        return [*legend, *self.notes]


def result_tables(gathered: GatheredRuns) -> Iterator[ResultTable]:
    """Yield the tables of runs in their order.

    Runs that differ in a setting have tables of their own. A benchmark with several tasks at a
    single length has one table, else it has one per task and one of averages.
    """
    averages = gathered.labelled(gathered.details[gathered.details["task"].isna()])
    for key, scores in gathered.labelled(gathered.scores).groupby(COMPARABLE, sort=False):
        comparison = TableComparison.of_scores(gathered, key, scores)
        # averages carry no window or settings; they are found by run, model and bench
        table_runs = scores[["run", "model", "bench"]].drop_duplicates()
        runs = scores["run"].unique()
        writing = [gathered.writing[run] for run in runs if run in gathered.writing]
        for table in _tables_of_bench(scores, averages.merge(table_runs), comparison):
            yield replace(table, notes=[*table.notes, *writing])


def _tables_of_bench(
    scores: pd.DataFrame, averages: pd.DataFrame, comparison: TableComparison
) -> Iterator[ResultTable]:
    if ranking.has_many_tasks_at_one_length(scores):
        yield _table_by_task(scores, averages, comparison)
        return
    for _, task_scores in scores.groupby("task", sort=False):
        yield _table_by_length(task_scores, comparison)
    if not averages.empty:
        yield _table_of_averages(scores, averages, comparison)


def table_conditions(row: pd.Series) -> str:
    """Return in words what all numbers of a table depend on."""
    settings = f" · {row['settings']}" if row["settings"] else ""
    return f"{row['model']}, window {row['window']} · protocol {row['protocol']}{settings}"


def _table_by_length(scores: pd.DataFrame, comparison: TableComparison) -> ResultTable:
    first = scores.iloc[0]
    lengths = sorted(set(scores["length"]))
    values_at: dict[int, dict[str, TableValue]] = {}
    for length in lengths:
        values_at[length] = _score_values(scores[scores["length"] == length], comparison)
    lines: list[TableLine] = []
    for label, method_scores in _by_label(scores).items():
        values = [TableValue(_attention_factor(method_scores))]
        values += [values_at[length].get(label, TableValue()) for length in lengths]
        lines.append((label, values))
    title = f"{first['bench']}/{first['task']} · {first['metric']} · {table_conditions(first)}"
    columns = ["method", "attention_factor", *map(str, lengths)]
    notes = _notes(scores, "length")
    return ResultTable(title, columns, lines, notes, comparison, (first["task"],))


def _table_by_task(
    scores: pd.DataFrame, averages: pd.DataFrame, comparison: TableComparison
) -> ResultTable:
    first = scores.iloc[0]
    methods = _by_label(scores)
    lines: list[TableLine] = []
    for task, task_scores in scores.groupby("task", sort=False):
        values = _score_values(task_scores, comparison)
        label = f"{task} ({task_scores.iloc[0]['metric']})"
        lines.append((label, [values.get(method, TableValue()) for method in methods]))
    lines += _average_lines(averages, list(methods), comparison)
    factors = [TableValue(_attention_factor(of_method)) for of_method in methods.values()]
    lines.append(("attention_factor", factors))
    title = f"{first['bench']} · at {first['length']} tokens · {table_conditions(first)}"
    tasks = tuple(dict.fromkeys(scores["task"]))
    notes = _notes(scores, "task")
    return ResultTable(title, ["task", *methods], lines, notes, comparison, tasks)


def _table_of_averages(
    scores: pd.DataFrame, averages: pd.DataFrame, comparison: TableComparison
) -> ResultTable:
    """Return the table of averages over tasks at each length, then over lengths."""
    first = scores.iloc[0]
    methods = list(_by_label(scores))
    at_length = [f" at {length}" if pd.notna(length) else "" for length in averages["length"]]
    named = averages.assign(name=averages["name"] + at_length)
    lines = _average_lines(named, methods, comparison)
    title = f"{first['bench']} · over tasks · {table_conditions(first)}"
    notes = [f"{INTERVAL_NOTE} over the samples of all tasks"]
    if not averages["ci_low"].notna().any():
        notes = []
    notes += [*_rule_notes(scores), *_batch_notes(scores)]
    return ResultTable(title, ["", *methods], lines, notes, comparison)


def _by_label(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(label): rows for label, rows in scores.groupby("label", sort=False)}


def _score_values(scores: pd.DataFrame, comparison: TableComparison) -> dict[str, TableValue]:
    """Return the values of one cell's methods by label; only complete cells compete."""
    # A cell that lacks samples is shown with their number, and is neither bold nor compared.
    complete = scores[ranking.complete_cells(scores) & scores["score"].notna()]
    competing = dict(zip(complete["label"], complete["score"], strict=True))
    weights = {(str(scores["task"].iloc[0]), int(scores["length"].iloc[0])): 1.0}
    best = comparison.best(competing, weights)
    differing = comparison.differing(competing, weights)
    values: dict[str, TableValue] = {}
    for row in scores.to_dict("records"):
        label = row["label"]
        values[label] = replace(_score_value(row), best=label in best, differs=label in differing)
    return values


def _score_value(row: Mapping[Any, Any]) -> TableValue:
    if row["n"] == 0:
        return TableValue()
    samples = row["n"] + sum(row[column] for column in UNSCORED)
    mark = "" if row["n"] == samples else f"{row['n']} of {samples}"
    interval = interval_text(row["ci_low"], row["ci_high"])
    return TableValue(number_text(row["score"]), interval, mark)


def _average_lines(
    averages: pd.DataFrame, methods: list[str], comparison: TableComparison
) -> list[TableLine]:
    """Return a line for each name of averages; only those of tasks' scores are compared."""
    lines: list[TableLine] = []
    for name, rows in averages.groupby("name", sort=False):
        known = rows[rows["value"].notna()]
        competing = dict(zip(known["label"], known["value"], strict=True))
        weights = _stratum_weights(known)
        best = comparison.best(competing, weights) if weights else set()
        differing = comparison.differing(competing, weights)
        values: dict[str, TableValue] = {}
        for row in known.to_dict("records"):
            values[row["label"]] = TableValue(
                number_text(row["value"]),
                interval_text(row["ci_low"], row["ci_high"]),
                best=row["label"] in best,
                differs=row["label"] in differing,
            )
        lines.append((str(name), [values.get(method, TableValue()) for method in methods]))
    return lines


def _stratum_weights(averages: pd.DataFrame) -> dict[StratumKey, float]:
    """Return the weight of each cell in an average; none if it is not one of scores."""
    weights: dict[StratumKey, float] = {}
    for of_method in averages["weights"]:
        # NaN for a number that has none
        if isinstance(of_method, dict):
            weights |= of_method
    return weights


def _attention_factor(method_scores: pd.DataFrame) -> str:
    """Return the attention factor of a method, or that it depends on the length."""
    factors = sorted(set(method_scores["attention_factor"]) - {""})
    if len(factors) > 1:
        return "by length"
    return factors[0] if factors else "-"


def _notes(scores: pd.DataFrame, place: str) -> list[str]:
    """Return notes on numbers of samples.

    Args:
        scores: scores of one table.
        place: "length" or "task", the column that says where samples are missing.
    """
    samples = _range(scores["n"])
    notes = [f"n = {samples} samples per cell"]
    if scores["ci_low"].notna().any():
        notes[0] += f"; {INTERVAL_NOTE}{_interval_units(scores)}"
    notes += unknown_interval_notes(scores)
    total = scores[["n", *UNSCORED]].to_numpy().sum()
    for column, text in COUNT_NOTES.items():
        counts = scores.groupby(place)[column].sum()
        if not counts.any():
            continue
        places = [f"{count} at {where}" for where, count in counts[counts > 0].items()]
        # one phrase instead of a list of equal counts
        if len(counts) > 1 and counts.nunique() == 1:
            places = [f"{counts.iloc[0]} at each {place}"]
        notes.append(f"{counts.sum()} of {total} {text}: {', '.join(places)}")
    notes += _stopping_notes(scores, place)
    return [*notes, *_window_notes(scores), *_visible_token_notes(scores), *_batch_notes(scores)]


def _stopping_notes(scores: pd.DataFrame, place: str) -> Iterator[str]:
    """Yield the rule by which cells stop, and what those that stopped early used."""
    if not scores["stopping"].iloc[0]:
        return
    yield from _rule_notes(scores)
    used: list[str] = []
    for label, cells in scores[scores["at_most"].notna()].groupby("label", sort=False):
        columns = cells[["n", "at_most", place]].itertuples(index=False)
        used += [f"{label} {n} of {at_most:.0f} at {where}" for n, at_most, where in columns]
    yield (
        f"stopped early: {', '.join(used) or 'none'}; intervals of scores hold whenever a cell "
        "stops, those of pairs.csv for a number of samples that is fixed before"
    )


def _rule_notes(scores: pd.DataFrame) -> Iterator[str]:
    """Yield the rule by which cells stop, if they do, and what a table leaves out for it."""
    # scores that stop by another rule have a table of their own
    if rule := scores["stopping"].iloc[0]:
        yield (
            f"{rule}; no score is bold or marked, and averages have no interval, since these take "
            "the number of samples as fixed before"
        )


def _window_notes(scores: pd.DataFrame) -> list[str]:
    """Return a note on samples whose positions left the window, by method."""
    counts = scores.groupby("label", sort=False)["beyond_window"].sum()
    if not counts.any():
        return []
    methods = ", ".join(f"{count} of {label}" for label, count in counts.items() if count)
    passed, position = "texts", "largest position"
    if BENCHES[scores.iloc[0]["bench"]].has_answers:
        passed, position = "answers", "largest position of prompt and answer"
    return [
        f"{counts.sum()} of {scores['n'].sum()} {passed} passed the window of "
        f"{scores.iloc[0]['window']} ({position}): {methods}"
    ]


def _visible_token_notes(scores: pd.DataFrame) -> list[str]:
    """Return a note on each method of the scores that does not see all tokens."""
    notes: list[str] = []
    for label, cells in scores.groupby("label", sort=False):
        stored = [cell for cell in cells["resolved"] if isinstance(cell, Mapping)]
        visible = dict.fromkeys(cell.get("visible_tokens") for cell in stored)
        texts = [text for text in visible if text is not None]
        if texts:
            notes.append(f"{label} sees {', '.join(texts)}; {FORGOTTEN}")
    return notes


def unknown_interval_notes(scores: pd.DataFrame) -> list[str]:
    """Return why scores have no interval."""
    unknown = scores[(scores["n"] > 0) & scores["ci_low"].isna()]
    reasons = [f"no interval {_unknown_interval_reason(row)}" for row in unknown.to_dict("records")]
    return list(dict.fromkeys(reasons))


def _unknown_interval_reason(row: Mapping[Any, Any]) -> str:
    if not math.isfinite(row["score"]):
        return "for a score that is not finite"
    # of a percentage nothing else takes its interval
    if row["scale"] == "percent":
        return "for a score outside of 0 to 100"
    if row["score"] <= 0:
        return "on a logarithmic scale for a score that is not above 0"
    if row["independent_units"] < 2:
        return f"from a single {row['unit']}"
    return f"from {row['unit']}s that are all alike"


def _interval_units(scores: pd.DataFrame) -> str:
    """Return in words what intervals are computed over, where that is not samples."""
    texts: list[str] = []
    for unit, rows in scores[scores["unit"] != "sample"].groupby("unit", sort=False):
        if unit in INDEPENDENT_UNITS:
            texts.append(f" over {INDEPENDENT_UNITS[str(unit)]}, taken as independent")
        else:
            texts.append(f" over {_range(rows['independent_units'])} {unit}s")
    return ",".join(texts)


def _range(counts: "pd.Series[int]") -> str:
    return " to ".join(map(str, sorted({counts.min(), counts.max()})))


def _batch_notes(scores: pd.DataFrame) -> list[str]:
    """Return a note where prompts ran together: a batch rounds differently from one prompt."""
    largest = scores["batch_size"].max()
    if largest <= 1:
        return []
    return [
        f"prompts ran in batches of up to {largest}; published numbers ran one prompt at a time"
    ]


def interval_text(low: float, high: float) -> str:
    """Return an interval in brackets, to two digits of its width; nothing where it is unknown."""
    if math.isnan(low):
        return ""
    # so that its ends differ in print, too
    decimals = max(0, 1 - math.floor(math.log10(high - low))) if math.isfinite(high) else 0
    return f"[{_end_text(low, decimals)}, {_end_text(high, decimals)}]"


def _end_text(end: float, decimals: int) -> str:
    return f"{end:.1e}" if end >= LARGEST_WRITTEN_OUT else f"{end:.{decimals}f}"


def difference_text(difference: float, low: float, high: float) -> tuple[str, str]:
    """Return a difference, and its interval in brackets, with signs; of what is unknown nothing.

    Both have one decimal at least, and the interval so many that its ends differ in print.
    """
    if not math.isfinite(difference):
        return "", ""
    if math.isnan(low):
        return _signed(difference, 1), ""
    width = high - low
    decimals = max(1, 1 - math.floor(math.log10(width))) if math.isfinite(width) else 1
    return _signed(difference, 1), f"[{_signed(low, decimals)}, {_signed(high, decimals)}]"


def _signed(value: float, decimals: int) -> str:
    # rounded first, so that nothing is "-0.0"
    return f"{round(value, decimals) + 0.0:+.{decimals}f}"


def number_text(value: float) -> str:
    """Return a number with one decimal from 10 on, else with two; nothing for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
