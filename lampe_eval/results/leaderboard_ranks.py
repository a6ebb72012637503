"""Numbers by which a leaderboard ranks methods: averages of benchmarks, or scores of their tasks.

A benchmark that reports averages of its tasks' scores is ranked by these, at each length and over
lengths; one that reports none is ranked task by task. The rank of a method is 1 and the number of
methods that are shown to be better, by the same tests that make scores bold in tables.
"""

from collections import ChainMap, Counter
from collections.abc import Iterator
from typing import Any

import pandas as pd

from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.method_differences import ComparableCells
from lampe_eval.results.ranking import COMPARABLE, complete_cells, scale_of

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
    numbers = gathered.labelled(pd.concat(list(_numbers(gathered)), ignore_index=True))
    numbers = numbers.astype(dict.fromkeys(["value", "ci_low", "ci_high"], float))
    ranked: list[pd.DataFrame] = []
    for key, competing in numbers.groupby(RANKED_WITHIN, sort=False, dropna=False):
        rank = _ranks(competing, gathered.comparable[key[: len(COMPARABLE)]])
        is_tied = rank.duplicated(keep=False) & rank.notna()
        ranked.append(competing.assign(rank=rank, is_tied=is_tied))
    return pd.concat(ranked)[RANK_COLUMNS] if ranked else pd.DataFrame(columns=RANK_COLUMNS)


def _ranks(numbers: pd.DataFrame, cells: ComparableCells) -> "pd.Series[int]":
    """Return the rank of each number; <NA> where no test compares it.

    That is so for what has no interval or is no average of scores, and for cells that stop by rule.
    """
    rank = pd.Series(pd.NA, index=numbers.index, dtype="Int64")
    weights = numbers.loc[numbers["weights"].map(_is_of_scores), "weights"]
    if cells.stopping or weights.empty:
        return rank
    shown_better = cells.shown_better(numbers["label"], dict(ChainMap(*weights)))
    methods_above = Counter(worse for _, worse in shown_better)
    rank = 1 + numbers["label"].map(lambda label: methods_above[label]).astype("Int64")
    return rank.where(numbers["ci_low"].notna())


def _numbers(gathered: GatheredRuns) -> Iterator[pd.DataFrame]:
    """Yield the numbers of each benchmark in comparable runs."""
    details = gathered.details
    averages = details[details["task"].isna() & details["value"].notna()]
    scores = gathered.scores
    for key, cells in scores.groupby(COMPARABLE, sort=False):
        comparable: dict[str, Any] = dict(zip(COMPARABLE, key, strict=True))
        # Averages carry no window or settings; they are found by run, model and bench.
        of_bench = averages.merge(cells[["run", "model", "bench"]].drop_duplicates())
        scale, metric = scale_of(cells), cells["metric"].iloc[0]
        numbers = [_of_averages(of_bench).assign(scale=scale, metric=metric)]
        if not of_bench["weights"].map(_is_of_scores).any():
            numbers.insert(0, _of_tasks(cells))
        yield pd.concat(numbers).assign(**comparable)


def _is_of_scores(weights: Any) -> bool:
    """Return whether these are weights of cells; of another number there are none, or NaN."""
    return isinstance(weights, dict) and bool(weights)


def _of_tasks(cells: pd.DataFrame) -> pd.DataFrame:
    complete = cells[complete_cells(cells)].sort_values("length", kind="stable")
    strata = complete[["task", "length"]].itertuples(index=False, name=None)
    weights = pd.Series([{stratum: 1.0} for stratum in strata], index=complete.index, dtype=object)
    return complete.assign(
        number=complete["task"],
        column=complete["length"].map(str),
        value=complete["score"],
        weights=weights,
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
