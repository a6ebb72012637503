"""Tables of pooled differences from the reference method, one for each benchmark of a run."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from lampe_eval.report.table_comparison import DIFFERS, TEST, power_note
from lampe_eval.report.table_model import (
    ResultTable,
    TableLine,
    TableValue,
    difference_text,
    table_conditions,
)
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.method_differences import BEYOND, CELL, WITHIN
from lampe_eval.results.paired_tests import LEVEL
from lampe_eval.results.ranking import COMPARABLE


def difference_tables(gathered: GatheredRuns) -> Iterator[ResultTable]:
    """Yield a table of the pooled differences for each group of comparable scores with any."""
    pooled = gathered.pairs[gathered.pairs["scope"] != CELL]
    for key, rows in pooled.groupby([*COMPARABLE, "reference"], sort=False):
        first = rows.iloc[0]
        scopes = [scope for scope in (BEYOND, WITHIN) if scope in set(rows["scope"])]
        lines: list[TableLine] = []
        for method, of_method in rows.groupby("method", sort=False):
            by_scope = {row["scope"]: _value(row) for row in of_method.to_dict("records")}
            values = [by_scope.get(scope, TableValue()) for scope in scopes]
            lines.append((str(method), values))
        title = f"{first['bench']} · differences from {first['reference']}"
        yield ResultTable(
            f"{title} · {table_conditions(first)}",
            ["method", *scopes],
            lines,
            _notes(
                rows, _unit(gathered.scores, rows), bool(gathered.comparable[key[:-1]].stopping)
            ),
        )


def _value(row: Mapping[Any, Any]) -> TableValue:
    text, interval = difference_text(row["difference"], row["ci_low"], row["ci_high"])
    if not text:
        return TableValue()
    return TableValue(text, interval, differs=row["p_value_holm"] < LEVEL)


def _unit(scores: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return the unit of differences; percent are of what the benchmark measures."""
    unit = str(rows["unit"].iloc[0])
    if unit == "points":
        return unit
    metrics = scores.loc[scores["bench"] == rows["bench"].iloc[0], "metric"].unique()
    return f"{unit} of {metrics[0] if len(metrics) == 1 else 'the score'}"


def _notes(rows: pd.DataFrame, unit: str, has_rule: bool) -> list[str]:
    reference = rows["reference"].iloc[0]
    notes = [
        f"mean over all complete cells of method minus {reference} on the same samples, in {unit}, "
        "with a 95 % interval"
    ]
    if has_rule:
        notes.append(
            "samples ended by a rule, and these intervals are too narrow: "
            "they are for a number of samples that is fixed before"
        )
        return notes
    for scope, of_scope in rows.groupby("scope", sort=False):
        tests = [test for test in of_scope["test"] if test]
        if tests:
            note = power_note(tests, len(of_scope), reference, "independent units")
            notes.append(f"{scope}: {note}")
    if (rows["p_value_holm"] < LEVEL).any():
        notes.append(f"{DIFFERS} shown to differ from {reference} ({TEST})")
    return notes
