"""Table model that the terminal, Markdown, LaTeX and the page render.

Tables have methods down and lengths across; at a single length, tasks down and methods across.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.results import ranking
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.ranking import COMPARABLE, UNSCORED

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
        error: its standard error.
        mark: how many samples are scored, such as "2 of 3", where not all are.
        place: 1 for the best score, 2 for the second, 0 for others and for marked scores.
    """

    text: str = "-"
    error: str = ""
    mark: str = ""
    place: int = 0

    def __str__(self) -> str:
        error = f" ± {self.error}" if self.error else ""
        mark = f" ({self.mark})" if self.mark else ""
        return f"{self.text}{error}{mark}"


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
    """

    title: str
    columns: list[str]
    lines: list[TableLine]
    notes: list[str]

    @property
    def places(self) -> set[int]:
        """Return the places that any value has."""
        taken: set[int] = set()
        for _, values in self.lines:
            taken.update(value.place for value in values)
        return taken


def result_tables(gathered: GatheredRuns) -> Iterator[ResultTable]:
    """Yield the tables of runs in their order.

    Runs that differ in a setting have tables of their own. A benchmark with several tasks at a
    single length has one table, else it has one per task and one of averages.
    """
    averages = gathered.labelled(gathered.details[gathered.details["task"].isna()])
    for _, scores in gathered.labelled(gathered.scores).groupby(COMPARABLE, sort=False):
        # averages carry no window or settings; they are found by run, model and bench
        table_runs = scores[["run", "model", "bench"]].drop_duplicates()
        runs = scores["run"].unique()
        writing = [gathered.writing[run] for run in runs if run in gathered.writing]
        for table in _tables_of_bench(scores, averages.merge(table_runs)):
            yield replace(table, notes=[*table.notes, *writing])


def _tables_of_bench(scores: pd.DataFrame, averages: pd.DataFrame) -> Iterator[ResultTable]:
    if ranking.has_many_tasks_at_one_length(scores):
        yield _table_by_task(scores, averages)
        return
    for _, task_scores in scores.groupby("task", sort=False):
        yield _table_by_length(task_scores)
    if not averages.empty:
        yield _table_of_averages(scores, averages)


def table_conditions(row: pd.Series) -> str:
    """Return in words what all numbers of a table depend on."""
    settings = f" · {row['settings']}" if row["settings"] else ""
    return f"{row['model']}, window {row['window']} · protocol {row['protocol']}{settings}"


def _table_by_length(scores: pd.DataFrame) -> ResultTable:
    first = scores.iloc[0]
    lengths = sorted(set(scores["length"]))
    values_at = {length: _score_values(scores[scores["length"] == length]) for length in lengths}
    lines: list[TableLine] = []
    for label, method_scores in _by_label(scores).items():
        values = [TableValue(_attention_factor(method_scores))]
        values += [values_at[length].get(label, TableValue()) for length in lengths]
        lines.append((label, values))
    title = f"{first['bench']}/{first['task']} · {first['metric']} · {table_conditions(first)}"
    columns = ["method", "attention_factor", *map(str, lengths)]
    return ResultTable(title, columns, lines, _notes(scores, "length"))


def _table_by_task(scores: pd.DataFrame, averages: pd.DataFrame) -> ResultTable:
    first = scores.iloc[0]
    methods = _by_label(scores)
    lines: list[TableLine] = []
    for task, task_scores in scores.groupby("task", sort=False):
        values = _score_values(task_scores)
        label = f"{task} ({task_scores.iloc[0]['metric']})"
        lines.append((label, [values.get(method, TableValue()) for method in methods]))
    lines += _average_lines(averages, list(methods), ranking.higher_is_better(scores))
    factors = [TableValue(_attention_factor(of_method)) for of_method in methods.values()]
    lines.append(("attention_factor", factors))
    title = f"{first['bench']} · at {first['length']} tokens · {table_conditions(first)}"
    return ResultTable(title, ["task", *methods], lines, _notes(scores, "task"))


def _table_of_averages(scores: pd.DataFrame, averages: pd.DataFrame) -> ResultTable:
    """Return the table of averages over tasks at each length, then over lengths."""
    first = scores.iloc[0]
    methods = list(_by_label(scores))
    at_length = [f" at {length}" if pd.notna(length) else "" for length in averages["length"]]
    named = averages.assign(name=averages["name"] + at_length)
    lines = _average_lines(named, methods, ranking.higher_is_better(scores))
    title = f"{first['bench']} · over tasks · {table_conditions(first)}"
    return ResultTable(title, ["", *methods], lines, _batch_notes(scores))


def _by_label(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(label): rows for label, rows in scores.groupby("label", sort=False)}


def _score_values(scores: pd.DataFrame) -> dict[str, TableValue]:
    """Return the values of competing methods by label; only complete cells compete."""
    # A cell that lacks samples is shown with their number, and gets no place.
    complete = scores[ranking.complete_cells(scores)]
    competing = dict(zip(complete["label"], complete["score"], strict=True))
    places = _places_as_printed(competing, ranking.higher_is_better(scores))
    return {
        row["label"]: _score_value(row, places.get(row["label"], 0))
        for row in scores.to_dict("records")
    }


def _score_value(row: Mapping[Any, Any], place: int) -> TableValue:
    if row["n"] == 0:
        return TableValue()
    samples = row["n"] + sum(row[column] for column in UNSCORED)
    mark = "" if row["n"] == samples else f"{row['n']} of {samples}"
    return TableValue(_number_text(row["score"]), _number_text(row["stderr"]), mark, place)


def _average_lines(
    averages: pd.DataFrame, methods: list[str], higher_is_better: bool
) -> list[TableLine]:
    """Return a line for each name of averages."""
    lines: list[TableLine] = []
    for name, rows in averages.groupby("name", sort=False):
        known = rows[rows["value"].notna()]
        competing = dict(zip(known["label"], known["value"], strict=True))
        places = _places_as_printed(competing, higher_is_better)
        values: dict[str, TableValue] = {}
        for label, value, stderr in known[["label", "value", "stderr"]].itertuples(index=False):
            place = places.get(label, 0)
            values[label] = TableValue(_number_text(value), _number_text(stderr), place=place)
        lines.append((str(name), [values.get(method, TableValue()) for method in methods]))
    return lines


def _places_as_printed(scores: Mapping[str, float], higher_is_better: bool) -> dict[str, int]:
    """Return the places of scores rounded as they are printed; NaN does not compete."""
    printed: dict[str, float] = {}
    for label, score in scores.items():
        if not math.isnan(score):
            printed[label] = float(_number_text(score))
    return ranking.places(printed, higher_is_better=higher_is_better)


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
    notes = [f"n = {samples} samples per cell; ± standard error{_error_units(scores)}"]
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
    return [*notes, *_stopping_notes(scores, place), *_window_notes(scores), *_batch_notes(scores)]


def _stopping_notes(scores: pd.DataFrame, place: str) -> Iterator[str]:
    """Yield the rule by which cells stop, and what those that stopped early used."""
    for rule, by_rule in scores[scores["stopping"] != ""].groupby("stopping"):
        stopped = by_rule[by_rule["at_most"].notna()]
        used: list[str] = []
        for label, cells in stopped.groupby("label", sort=False):
            columns = cells[["n", "at_most", place]].itertuples(index=False)
            used += [f"{label} {n} of {at_most:.0f} at {where}" for n, at_most, where in columns]
        yield (
            f"{rule}; stopped early: {', '.join(used) or 'none'}; p-values and intervals of "
            "pairs.csv are for a number of samples that is fixed before"
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


def _error_units(scores: pd.DataFrame) -> str:
    """Return in words what standard errors are computed over, where that is not samples."""
    texts: list[str] = []
    for unit, rows in scores[scores["unit"] != "sample"].groupby("unit", sort=False):
        if unit == "window":
            texts.append(" over windows, taken as independent")
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


def _number_text(value: float) -> str:
    """Return a number with one decimal from 10 on, else with two; nothing for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
