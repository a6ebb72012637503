"""Tables of decisions: a run's methods down, lengths across."""

from collections.abc import Iterator

import pandas as pd

from lampe_eval.report.table_model import ResultTable, TableLine, TableValue, difference_text
from lampe_eval.results.decisions import describe_rule
from lampe_eval.results.gathered_runs import GatheredRuns

NOTE = (
    "difference in points, averaged over tasks, with an interval that holds at every look; "
    "a run makes any wrong decision with probability at most 5 %"
)


def decision_tables(gathered: GatheredRuns) -> Iterator[ResultTable]:
    """Yield a table for each run, model and benchmark about which something was to be decided."""
    for (run, model, bench), found in gathered.decisions.groupby(
        ["run", "model", "bench"], sort=False
    ):
        lengths = sorted(set(found["length"]))
        lines: list[TableLine] = []
        for method, of_method in found.groupby("method", sort=False):
            values = {row["length"]: TableValue(_text(row)) for _, row in of_method.iterrows()}
            lines.append((str(method), [values.get(at, TableValue()) for at in lengths]))
        of_run = f" · {run}" if gathered.has_several_runs else ""
        title = f"{bench} · against {found.iloc[0]['reference']} · {model}{of_run}"
        notes = [describe_rule(gathered.runs[str(run)].config["stopping"]), NOTE]
        yield ResultTable(title, ["method", *map(str, lengths)], lines, notes)


def _text(row: pd.Series) -> str:
    numbers = difference_text(row["difference"], row["ci_low"], row["ci_high"])
    return f"{row['verdict']} {' '.join(numbers)}, n = {row['n']}"
