"""Rankings of the leaderboard page as plain values: methods as rows, lengths as columns."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lampe_eval.report.page.page_tables import plain
from lampe_eval.report.table_model import table_conditions
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.leaderboard_ranks import ranked_numbers
from lampe_eval.results.ranking import COMPARABLE, higher_is_better, scale_of


def rankings(gathered: GatheredRuns, reports: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rankings of runs.

    Args:
        gathered: the runs.
        reports: address of a run's report, by run; not every run has one.
    """
    numbers = ranked_numbers(gathered)
    links = {run: [run, reports.get(run)] for run in gathered.runs}
    return [
        _ranking(of_ranking, links)
        for _, of_ranking in numbers.groupby([*COMPARABLE, "number"], sort=False)
    ]


def _ranking(numbers: pd.DataFrame, links: Mapping[str, list[str | None]]) -> dict[str, Any]:
    """Return a ranking; its rows name their runs where there are several."""
    first = numbers.iloc[0]
    has_several_runs = numbers["run"].nunique() > 1
    is_percent = scale_of(numbers) == "percent"
    direction = "higher" if higher_is_better(numbers) else "lower"
    columns = list(dict.fromkeys(numbers["column"]))
    rows: list[dict[str, Any]] = []
    for (method, run), of_method in numbers.groupby(["method", "run"], sort=False):
        at_column = {row["column"]: _entry(row) for row in of_method.to_dict("records")}
        entries = [at_column.get(column) for column in columns]
        link = links[str(run)] if has_several_runs else None
        rows.append({"method": method, "run": link, "numbers": entries})
    return {
        "title": f"{first['bench']} · {first['number']}",
        "conditions": table_conditions(first),
        "model": first["model"],
        "protocol": first["protocol"],
        "run": None if has_several_runs else links[first["run"]],
        "bench": first["bench"],
        "unit": f"{'percent' if is_percent else first['metric']}, {direction} is better",
        "isPercent": is_percent,
        "lowerIsBetter": direction == "lower",
        "columns": columns,
        "rows": rows,
    }


def _entry(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "value": plain(row["value"]),
        "low": plain(row["ci_low"]),
        "high": plain(row["ci_high"]),
        "rank": plain(row["rank"]),
        "tied": bool(row["is_tied"]),
    }
