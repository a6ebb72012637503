"""Ranking of scores: which cells are complete and comparable, and in which order they stand."""

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.scoring.estimates import Scale

UNSCORED = ["missing", "errors", "skipped"]
"""Columns of scores that count samples without a score: never run, failed, or left out."""
COMPARABLE = ["model", "window", "protocol", "settings", "bench"]
"""Columns of scores whose values agree in everything that may stand in one table."""


def complete_cells(scores: pd.DataFrame) -> "pd.Series[bool]":
    """Return for each cell whether all its samples are scored."""
    unscored = scores[UNSCORED].sum(axis=1)
    return (scores["n"] > 0) & (unscored == 0)


def higher_is_better(scores: pd.DataFrame) -> bool:
    """Return whether a higher score is better in these cells of one benchmark."""
    return BENCHES[str(scores["bench"].iloc[0])].higher_is_better


def scale_of(scores: pd.DataFrame) -> Scale:
    """Return the scale of scores of one task, or of tasks that are averaged.

    It is that of their estimates; percent where no sample is scored.
    """
    scales: list[Scale] = list(scores["scale"].dropna())
    return scales[0] if scales else "percent"


def has_many_tasks_at_one_length(scores: pd.DataFrame) -> bool:
    """Return whether cells of one benchmark are of several tasks at a single length."""
    return scores["length"].nunique() == 1 and scores["task"].nunique() > 1


def ranked(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows task by task, shorter lengths first, then the best score first.

    Tasks stay in the order of their first rows. Cells with unscored samples come last.
    """
    higher = scores["bench"].map(lambda bench: BENCHES[bench].higher_is_better)
    sort_keys = scores.assign(
        task=pd.factorize(scores["task"])[0],
        incomplete=~complete_cells(scores),
        score=scores["score"].where(~higher, -scores["score"]),
    )
    order = sort_keys.sort_values(["task", "length", "incomplete", "score"], kind="stable")
    return scores.loc[order.index]
