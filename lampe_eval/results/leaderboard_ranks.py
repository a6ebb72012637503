"""Numbers by which a leaderboard ranks methods: averages of benchmarks, or scores of their tasks.

A benchmark that reports averages over its tasks is ranked by these, at each length and over
lengths; one that reports none is ranked task by task.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.ranking import (
    COMPARABLE,
    complete_cells,
    higher_is_better,
    ranks,
    scale_of,
)

RANKED_WITHIN = [*COMPARABLE, "number", "column"]
"""Columns whose values agree in numbers that compete."""
RANK_COLUMNS = [
    *RANKED_WITHIN,
    "run",
    "method",
    "metric",
    "scale",
    "value",
    "ci_low",
    "ci_high",
    "rank",
    "is_tied",
]
"""Columns of ranked numbers.

`number` is the name of a task or of an average, and `column` the length that it is at, or the name
of a number over lengths; `is_tied` tells whether others have the same rank.
"""


def ranked_numbers(gathered: GatheredRuns) -> pd.DataFrame:
    """Return the numbers of complete cells with their ranks, lengths of a number ascending."""
    numbers = pd.concat(list(_numbers(gathered)), ignore_index=True)
    numbers = numbers.astype(dict.fromkeys(["value", "ci_low", "ci_high"], float))
    ranked: list[pd.DataFrame] = []
    for _, competing in numbers.groupby(RANKED_WITHIN, sort=False, dropna=False):
        rank = ranks(competing, higher_is_better=higher_is_better(competing))
        is_tied = rank.duplicated(keep=False) & rank.notna()
        ranked.append(competing.assign(rank=rank, is_tied=is_tied))
    return pd.concat(ranked)[RANK_COLUMNS] if ranked else pd.DataFrame(columns=RANK_COLUMNS)


def _numbers(gathered: GatheredRuns) -> Iterator[pd.DataFrame]:
    """Yield the numbers of each benchmark in comparable runs."""
    details = gathered.details
    averages = details[details["task"].isna() & details["value"].notna()]
    scores = gathered.scores
    for key, cells in scores.groupby(COMPARABLE, sort=False):
        comparable: dict[str, Any] = dict(zip(COMPARABLE, key, strict=True))
        # Averages carry no window or settings; they are found by run, model and bench.
        of_bench = averages.merge(cells[["run", "model", "bench"]].drop_duplicates())
        if of_bench.empty:
            numbers = _of_tasks(cells)
        else:
            scale, metric = scale_of(cells), cells["metric"].iloc[0]
            numbers = _of_averages(of_bench).assign(scale=scale, metric=metric)
        yield numbers.assign(**comparable)


def _of_tasks(cells: pd.DataFrame) -> pd.DataFrame:
    complete = cells[complete_cells(cells)].sort_values("length", kind="stable")
    return complete.assign(
        number=complete["task"], column=complete["length"].map(str), value=complete["score"]
    )


def _of_averages(averages: pd.DataFrame) -> pd.DataFrame:
    """Return averages over tasks; numbers over lengths stand beside the first of a method's."""
    at_lengths = averages[averages["length"].notna()].sort_values("length", kind="stable")
    methods = ["run", "method"]
    first_names = at_lengths.drop_duplicates(methods)[[*methods, "name"]]
    over_lengths = averages[averages["length"].isna()].merge(
        first_names.rename(columns={"name": "number"}), on=methods
    )
    return pd.concat(
        [
            at_lengths.assign(number=at_lengths["name"], column=at_lengths["length"].map(str)),
            over_lengths.assign(column=over_lengths["name"]),
        ]
    )
