"""Tables as they are shown, in whatever form: methods down and lengths across, or at one length tasks down."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.results.gathered_runs import GatheredRuns

ALIKE = ["model", "window", "protocol", "settings", "bench"]
"""What rows of a table have in common."""
COUNTS = {
    "missing": "samples are missing",
    "errors": "samples failed",
    "skipped": "prompts were too long and left out",
    "cut": "prompts were cut to fit",
}


@dataclass(frozen=True)
class TableValue:
    """What stands in a cell of a table.

    Attributes:
        text: the number.
        error: its standard error.
        mark: of how many samples it is, where some are missing or failed.
        place: 1 for the best of its competitors, 2 for the second, 0 for others; a number with a mark does not compete.
    """

    text: str = "-"
    error: str = ""
    mark: str = ""
    place: int = 0

    def __str__(self) -> str:
        error = f" ± {self.error}" if self.error else ""
        return f"{self.text}{error}{f' ({self.mark})' if self.mark else ''}"


TableLine = tuple[str, list[TableValue]]


@dataclass(frozen=True)
class ResultTable:
    """A table.

    Attributes:
        columns: titles, the first that of the labels.
        lines: label and values of each row.
        notes: what a reader of the numbers has to know.
    """

    title: str
    columns: list[str]
    lines: list[TableLine]
    notes: list[str]

    @property
    def places(self) -> set[int]:
        """Which places are taken."""
        return {value.place for _, values in self.lines for value in values}


def result_tables(gathered: GatheredRuns) -> Iterator[ResultTable]:
    """The tables of runs in their order: tasks of a bench together where it has several, all at one length."""
    further = gathered.labelled(gathered.details[gathered.details["task"].isna()])
    for _, rows in gathered.labelled(gathered.scores).groupby(ALIKE, sort=False):
        own = further.merge(rows[["run", "model", "bench"]].drop_duplicates())
        writing = [gathered.writing[run] for run in rows["run"].unique() if run in gathered.writing]
        for block in _blocks(rows, own):
            yield replace(block, notes=[*block.notes, *writing])


def _blocks(rows: pd.DataFrame, further: pd.DataFrame) -> Iterator[ResultTable]:
    """The tables of a bench."""
    if by_task(rows):
        yield _by_task(rows, further)
        return
    for _, of_task in rows.groupby("task", sort=False):
        yield _by_length(of_task)
    if not further.empty:
        yield _averages(rows, further)


def by_task(rows: pd.DataFrame) -> bool:
    """Whether the rows of a bench are many tasks at one length."""
    return rows["length"].nunique() == 1 and rows["task"].nunique() > 1


def table_conditions(row: pd.Series) -> str:
    """What all numbers of a table depend on."""
    settings = f" · {row['settings']}" if row["settings"] else ""
    return f"{row['model']}, window {row['window']} · protocol {row['protocol']}{settings}"


def complete(rows: pd.DataFrame) -> pd.Series:
    """Which cells have all their samples."""
    return (rows["n"] > 0) & (rows[["missing", "errors", "skipped"]].sum(axis=1) == 0)


def higher_is_better(rows: pd.DataFrame) -> bool:
    """Whether more is better in these rows of one bench."""
    return BENCHES[str(rows["bench"].iloc[0])].higher_is_better


def _by_length(rows: pd.DataFrame) -> ResultTable:
    first, lengths = rows.iloc[0], sorted(set(rows["length"]))
    values = {length: _values(rows[rows["length"] == length]) for length in lengths}
    lines: list[TableLine] = [
        (
            label,
            [
                TableValue(_attention_factor(own)),
                *(values[length].get(label, TableValue()) for length in lengths),
            ],
        )
        for label, own in _by_label(rows).items()
    ]
    title = f"{first['bench']}/{first['task']} · {first['metric']} · {table_conditions(first)}"
    return ResultTable(
        title, ["method", "attention_factor", *map(str, lengths)], lines, _notes(rows, "length")
    )


def _by_task(rows: pd.DataFrame, further: pd.DataFrame) -> ResultTable:
    first, methods = rows.iloc[0], _by_label(rows)
    lines: list[TableLine] = []
    for task, own in rows.groupby("task", sort=False):
        values = _values(own)
        lines.append(
            (
                f"{task} ({own.iloc[0]['metric']})",
                [values.get(label, TableValue()) for label in methods],
            )
        )
    lines += _named(further, list(methods), higher_is_better(rows))
    lines.append(
        ("attention_factor", [TableValue(_attention_factor(own)) for own in methods.values()])
    )
    title = f"{first['bench']} · at {first['length']} tokens · {table_conditions(first)}"
    return ResultTable(title, ["task", *methods], lines, _notes(rows, "task"))


def _averages(rows: pd.DataFrame, further: pd.DataFrame) -> ResultTable:
    """Averages over tasks at each length, then over lengths; names down, methods across."""
    first, methods = rows.iloc[0], list(_by_label(rows))
    at = [f" at {length}" if pd.notna(length) else "" for length in further["length"]]
    lines = _named(further.assign(name=further["name"] + at), methods, higher_is_better(rows))
    title = f"{first['bench']} · over tasks · {table_conditions(first)}"
    return ResultTable(title, ["", *methods], lines, [*_batched(rows)])


def _by_label(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(label): own for label, own in rows.groupby("label", sort=False)}


def _values(rows: pd.DataFrame) -> dict[str, TableValue]:
    """The cells of competitors, by label."""
    competing = rows[complete(rows)]
    places = _places(
        dict(zip(competing["label"], competing["score"], strict=True)), higher_is_better(rows)
    )
    return {
        row["label"]: _value(row, places.get(row["label"], 0)) for row in rows.to_dict("records")
    }


def _value(row: Mapping[Any, Any], place: int) -> TableValue:
    if row["n"] == 0:
        return TableValue()
    wanted = row["n"] + row["missing"] + row["errors"] + row["skipped"]
    mark = "" if row["n"] == wanted else f"{row['n']} of {wanted}"
    return TableValue(_short(row["score"]), _short(row["stderr"]), mark, place)


def _named(further: pd.DataFrame, labels: list[str], higher: bool) -> list[TableLine]:
    """A line for each name of further numbers."""
    lines: list[TableLine] = []
    for name, rows in further.groupby("name", sort=False):
        known = rows[rows["value"].notna()].set_index("label")
        places = _places(dict(zip(map(str, known.index), known["value"], strict=True)), higher)
        values = {
            label: TableValue(_short(value), _short(stderr), place=places.get(label, 0))
            for label, value, stderr in known[["value", "stderr"]].itertuples()
        }
        lines.append((str(name), [values.get(label, TableValue()) for label in labels]))
    return lines


def _places(scores: Mapping[str, float], higher: bool) -> dict[str, int]:
    """Who is best, maybe several, and where it is one alone who is second; by the numbers as they are printed.

    The last are nothing: nobody is best where all are alike, nor second where nobody is worse.
    """
    printed = {
        label: float(_short(score)) for label, score in scores.items() if not math.isnan(score)
    }
    best, *others = sorted(set(printed.values()), reverse=higher) or [math.nan]
    alone = list(printed.values()).count(best) == 1
    places = ({best: 1} if others else {}) | ({others[0]: 2} if alone and len(others) > 1 else {})
    return {label: places[number] for label, number in printed.items() if number in places}


def _attention_factor(rows: pd.DataFrame) -> str:
    """The attention_factors that a method had, as a span."""
    found = sorted(set(rows["attention_factor"]) - {""})
    return found[0] if len(found) == 1 else "by length" if found else "-"


def _notes(rows: pd.DataFrame, place: str) -> list[str]:
    """How many samples numbers are of, and what became of the others; ``place`` is the column that says where."""
    notes = [f"n = {_between(rows['n'])} samples a cell; ± standard error{_of_units(rows)}"]
    total = rows[["n", "missing", "errors", "skipped"]].to_numpy().sum()
    for column, text in COUNTS.items():
        counts = rows.groupby(place)[column].sum()
        if counts.any():
            places = [f"{count} at {where}" for where, count in counts[counts > 0].items()]
            if len(counts) > 1 and counts.nunique() == 1:
                places = [f"{counts.iloc[0]} at each {place}"]
            notes.append(f"{counts.sum()} of {total} {text}: {', '.join(places)}")
    return [*notes, *_batched(rows)]


def _of_units(rows: pd.DataFrame) -> str:
    """What errors are of, where not of samples."""
    units = rows[rows["unit"] != "sample"]
    told = (
        " of windows, taken as independent"
        if unit == "window"
        else f" over {_between(own['units'])} {unit}s"
        for unit, own in units.groupby("unit", sort=False)
    )
    return ",".join(told)


def _between(counts: "pd.Series[int]") -> str:
    return " to ".join(map(str, sorted({counts.min(), counts.max()})))


def _batched(rows: pd.DataFrame) -> Iterator[str]:
    """Whether prompts ran together, which rounds otherwise than one at a time."""
    if (most := rows["batch_size"].max()) > 1:
        yield f"prompts ran in batches of up to {most}; published numbers are of one prompt at a time"


def _short(value: float) -> str:
    """Three digits or so; nothing for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
