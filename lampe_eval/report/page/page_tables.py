"""Frames as the page's tables: columns with a kind, and rows of plain values.

| kind | values |
|---|---|
| text | text |
| number | number; ``digits`` of them behind the point |
| share | number from 0 to 100 with its standard error |
| marks | pairs of a count and a word |
| probability | number from 0 to 1 |
| count | number of samples, which leads to them |
| difference | number, bold where ``p_corrected`` of its row is below 0.05 |
| link | text and address, which may be null |
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.report.table_model import complete

MARKS = {"missing": "missing", "errors": "failed", "skipped": "left out", "cut": "cut"}
"""Columns of scores that count samples which are not in the score, or not whole, and the words for them."""

Column = dict[str, Any]
Table = dict[str, Any]


def scores(frame: pd.DataFrame) -> Table:
    """Scores with error, number of samples and marks."""
    values = {
        **_values(frame),
        "share": [
            [score, error] if BENCHES[bench].higher_is_better else None
            for bench, score, error in frame[["bench", "score", "stderr"]].itertuples(index=False)
        ],
        "marks": _marks(frame),
    }
    columns = [
        text("method", "Method"),
        number("score", "Score", 2),
        number("stderr", "± s.e.", 2),
        {"key": "share", "title": "0 to 100", "kind": "share"},
        text("model", "Model"),
        text("task", "Task"),
        number("length", "Length", choose=True),
        {**number("n", "n"), "kind": "count"},
        {"key": "marks", "title": "Marks", "kind": "marks", "choose": True},
        text("bench", "Benchmark"),
        text("metric", "Metric", choose=False),
        text("attention_factor", "Attention factor", choose=False),
        number("batch_size", "Batch"),
        number("largest_position", "Reach"),
        number("window", "Window"),
        text("protocol", "Protocol"),
        text("settings", "Settings"),
        text("run", "Run"),
    ]
    keep = {
        "method",
        "task",
        "length",
        "score",
        "stderr",
        "n",
        "metric",
        "attention_factor",
        "largest_position",
    }
    return _table(values, columns, keep)


def standings(frame: pd.DataFrame, reports: Mapping[str, str]) -> Table:
    """Scores of many runs by rank.

    Args:
        reports: addresses by run.
    """
    frame = _ranked(frame.assign(task=frame["bench"] + "/" + frame["task"]))
    values = {
        **_values(frame),
        "marks": _marks(frame),
        "run": [[run, reports.get(run)] for run in frame["run"]],
    }
    columns = [
        text("method", "Method"),
        number("score", "Score", 2),
        number("stderr", "± s.e.", 2),
        text("task", "Task"),
        number("length", "Length", choose=True),
        text("model", "Model"),
        number("n", "n"),
        {"key": "marks", "title": "Marks", "kind": "marks", "choose": True},
        text("metric", "Metric", choose=False),
        number("window", "Window"),
        text("protocol", "Protocol"),
        text("settings", "Settings"),
        {**text("run", "Run"), "kind": "link"},
    ]
    return _table(
        values,
        columns,
        {"method", "score", "stderr", "task", "length", "model", "n", "metric", "run"},
    )


def _ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """Task by task, shorter lengths first; of each the best first, those that lack samples last."""
    higher = frame["bench"].map(lambda bench: BENCHES[bench].higher_is_better)
    order = frame.assign(
        task=pd.factorize(frame["task"])[0],
        lacks=~complete(frame),
        score=frame["score"].where(~higher, -frame["score"]),
    ).sort_values(["task", "length", "lacks", "score"], kind="stable")
    return frame.loc[order.index]


def differences(frame: pd.DataFrame) -> Table:
    """First minus second on the same samples, with a 95 % interval; marks count the samples that they do not share."""
    values = {
        **_values(frame),
        "marks": [[[count, "not shared"]] if count else [] for count in frame["lacking"]],
    }
    columns = [
        text("first", "First"),
        text("second", "Second"),
        text("task", "Task"),
        number("length", "Length", choose=True),
        {**number("difference", "Difference", 2), "kind": "difference"},
        number("low", "from", 2),
        number("high", "to", 2),
        {"key": "p", "title": "p", "kind": "probability"},
        {"key": "p_corrected", "title": "p corrected", "kind": "probability"},
        number("n", "n"),
        {"key": "marks", "title": "Marks", "kind": "marks", "choose": True},
        text("bench", "Benchmark"),
        text("model", "Model"),
        number("window", "Window"),
        text("protocol", "Protocol"),
        text("settings", "Settings"),
    ]
    keep = {
        "first",
        "second",
        "task",
        "length",
        "difference",
        "low",
        "high",
        "p",
        "p_corrected",
        "n",
    }
    return _table(values, columns, keep | ({"marks"} if frame["lacking"].any() else set()))


def details(frame: pd.DataFrame) -> Table:
    """Further numbers of cells and averages."""
    columns = [
        text("method", "Method"),
        text("task", "Task"),
        number("length", "Length", choose=True),
        text("name", "Number"),
        number("value", "Value", 2),
        number("n", "n"),
        text("bench", "Benchmark"),
        text("model", "Model"),
        text("protocol", "Protocol"),
        text("run", "Run"),
    ]
    return _table(_values(frame), columns, keep={"method", "task", "length", "name", "value"})


def _marks(frame: pd.DataFrame) -> list[Any]:
    return [
        [[count, word] for count, word in zip(counts, MARKS.values(), strict=True) if count]
        for counts in frame[list(MARKS)].itertuples(index=False)
    ]


def _values(frame: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(key): list(column) for key, column in frame.items()}


def _table(values: Mapping[str, list[Any]], columns: Iterable[Column], keep: set[str]) -> Table:
    """Columns that are kept or differ between rows, and the rows."""
    found = {column["key"]: [plain(value) for value in values[column["key"]]] for column in columns}
    varying = {key for key, items in found.items() if len(set(map(repr, items))) > 1}
    shown = [column for column in columns if column["key"] in keep | varying]
    rows = zip(*(found[column["key"]] for column in shown), strict=True)
    return {"columns": shown, "rows": [list(row) for row in rows]}


def plain(value: Any) -> Any:
    """A value as JSON has it; infinity as a text that scripts read as a number."""
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
    """A column of texts."""
    return {"key": key, "title": title, "kind": "text", "choose": choose}


def number(key: str, title: str, digits: int = 0, *, choose: bool = False) -> Column:
    """A column of numbers."""
    return {"key": key, "title": title, "kind": "number", "digits": digits, "choose": choose}
