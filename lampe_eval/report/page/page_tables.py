"""Frames as tables of the page: columns with a kind, and rows of plain values.

| kind | values |
|---|---|
| text | text |
| number | number, shown with `digits` decimals |
| share | score from 0 to 100 with the ends of its 95 % interval |
| marks | pairs of a count and a word |
| probability | number from 0 to 1 |
| count | number of samples, with a link to them |
| difference | number, bold where `p_value_holm` of its row is below 0.05 |
| link | text and address; the address may be null |
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NotRequired, TypedDict

import pandas as pd

from lampe_eval.report.settings_table import settings_text
from lampe_eval.report.table_model import interval_text
from lampe_eval.results.ranking import ranked

MARKS = {"missing": "missing", "errors": "failed", "skipped": "left out", "cut": "cut"}
"""Columns of scores that count samples without a score or with a cut prompt, and words for them."""


class Column(TypedDict):
    """Column of a table.

    Attributes:
        key: name of the values.
        title: title of the column.
        kind: how its values are shown.
        digits: decimals of its numbers.
        choose: whether the rows can be filtered by its values.
    """

    key: str
    title: str
    kind: str
    digits: NotRequired[int]
    choose: NotRequired[bool]


class Table(TypedDict):
    """Table with its columns, and a value for each column in every row."""

    columns: list[Column]
    rows: list[list[Any]]


def scores(frame: pd.DataFrame) -> Table:
    """Return the table of scores, with intervals, numbers of samples and marks."""
    shares: list[list[float] | None] = []
    ends = frame[["scale", "score", "ci_low", "ci_high"]]
    for scale, *share in ends.itertuples(index=False):
        # A perplexity has no scale from 0 to 100.
        shares.append(None if scale == "log" else share)
    values = {
        **_values(frame),
        "share": shares,
        "marks": _marks(frame),
        "resolved": list(map(settings_text, frame["resolved"])),
    }
    columns: list[Column] = [
        text("method", "Method"),
        number("score", "Score", 2),
        number("ci_low", "from", 2),
        number("ci_high", "to", 2),
        {"key": "share", "title": "0 to 100", "kind": "share"},
        text("model", "Model"),
        text("task", "Task"),
        number("length", "Length", choose=True),
        {**number("n", "n"), "kind": "count"},
        _marks_column(),
        text("bench", "Benchmark"),
        text("metric", "Metric", choose=False),
        text("attention_factor", "Attention factor", choose=False),
        number("batch_size", "Batch size"),
        number("largest_position", "Largest position"),
        number("window", "Window"),
        number("beyond_window", "Beyond the window"),
        text("resolved", "Settings at this length", choose=False),
        text("protocol", "Protocol"),
        text("settings", "Settings"),
        text("run", "Run"),
    ]
    always_shown = {
        "method",
        "task",
        "length",
        "score",
        "ci_low",
        "ci_high",
        "n",
        "metric",
        "attention_factor",
        "largest_position",
    }
    return _table(values, columns, always_shown)


def standings(frame: pd.DataFrame, reports: Mapping[str, str]) -> Table:
    """Return the table of the scores of many runs by rank.

    Args:
        frame: the scores.
        reports: address of a run's report, by run; not every run has one.
    """
    frame = ranked(frame.assign(task=frame["bench"] + "/" + frame["task"]))
    values = {
        **_values(frame),
        "interval": list(map(interval_text, frame["ci_low"], frame["ci_high"])),
        "marks": _marks(frame),
        "run": [[run, reports.get(run)] for run in frame["run"]],
    }
    columns: list[Column] = [
        text("method", "Method"),
        number("score", "Score", 2),
        text("interval", "95 % interval", choose=False),
        text("task", "Task"),
        number("length", "Length", choose=True),
        text("model", "Model"),
        number("n", "n"),
        _marks_column(),
        number("window", "Window"),
        text("protocol", "Protocol"),
        text("settings", "Settings"),
        {**text("run", "Run"), "kind": "link"},
    ]
    always_shown = {
        "method",
        "score",
        "interval",
        "task",
        "length",
        "model",
        "n",
        "run",
    }
    return _table(values, columns, always_shown)


def differences(frame: pd.DataFrame) -> Table:
    """Return the table of differences: method minus reference on the samples that both have.

    Marks count the samples of the cell beyond these.
    """
    values = {
        **_values(frame),
        "marks": [[[count, "unpaired"]] if count else [] for count in frame["unpaired"]],
    }
    columns: list[Column] = [
        text("method", "Method"),
        text("reference", "Reference"),
        text("scope", "Scope"),
        text("task", "Task"),
        number("length", "Length", choose=True),
        {**number("difference", "Difference", 2), "kind": "difference"},
        text("unit", "Unit"),
        number("ci_low", "from", 2),
        number("ci_high", "to", 2),
        {"key": "p_value", "title": "p", "kind": "probability"},
        {"key": "p_value_holm", "title": "p (Holm)", "kind": "probability"},
        number("n", "n"),
        number("units", "Units"),
        _marks_column(),
        text("bench", "Benchmark"),
        text("model", "Model"),
        number("window", "Window"),
        text("protocol", "Protocol"),
        text("settings", "Settings"),
    ]
    always_shown = {
        "method",
        "reference",
        "scope",
        "task",
        "length",
        "difference",
        "ci_low",
        "ci_high",
        "p_value",
        "p_value_holm",
        "n",
    }
    if frame["unpaired"].any():
        always_shown.add("marks")
    return _table(values, columns, always_shown)


def details(frame: pd.DataFrame) -> Table:
    """Return the table of further numbers of cells, and of averages."""
    columns: list[Column] = [
        text("method", "Method"),
        text("task", "Task"),
        number("length", "Length", choose=True),
        text("name", "Number"),
        number("value", "Value", 2),
        number("ci_low", "from", 2),
        number("ci_high", "to", 2),
        number("n", "n"),
        text("bench", "Benchmark"),
        text("model", "Model"),
        text("protocol", "Protocol"),
        text("run", "Run"),
    ]
    always_shown = {"method", "task", "length", "name", "value"}
    return _table(_values(frame), columns, always_shown)


def _marks_column() -> Column:
    return {"key": "marks", "title": "Marks", "kind": "marks", "choose": True}


def _marks(frame: pd.DataFrame) -> list[list[list[Any]]]:
    marks: list[list[list[Any]]] = []
    for counts in frame[list(MARKS)].itertuples(index=False):
        words_of_counts = zip(counts, MARKS.values(), strict=True)
        marks.append([[count, word] for count, word in words_of_counts if count])
    return marks


def _values(frame: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(key): list(column) for key, column in frame.items()}


def _table(
    values: Mapping[str, list[Any]], columns: Iterable[Column], always_shown: set[str]
) -> Table:
    """Return the columns that are always shown or differ between rows, and the rows."""
    shown: list[Column] = []
    shown_values: list[list[Any]] = []
    for column in columns:
        plain_values = [plain(value) for value in values[column["key"]]]
        # By repr, because lists cannot be in a set.
        differs = len(set(map(repr, plain_values))) > 1
        if differs or column["key"] in always_shown:
            shown.append(column)
            shown_values.append(plain_values)
    rows = zip(*shown_values, strict=True)
    return {"columns": shown, "rows": [list(row) for row in rows]}


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it; infinity becomes a text that scripts read as a number."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if value is None or pd.isna(value):
        return None
    if isinstance(value, str):
        return value
    number = float(value)
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return int(number) if number.is_integer() else number


def text(key: str, title: str, *, choose: bool = True) -> Column:
    """Return a column of texts.

    Args:
        key: name of the values.
        title: title of the column.
        choose: whether the rows can be filtered by its values.
    """
    return {"key": key, "title": title, "kind": "text", "choose": choose}


def number(key: str, title: str, digits: int = 0, *, choose: bool = False) -> Column:
    """Return a column of numbers with `digits` decimals; other arguments are those of `text`."""
    return {"key": key, "title": title, "kind": "number", "digits": digits, "choose": choose}
