"""Picture of many tasks at one length: a method's scores, the others as faint strokes."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lampe_eval.report.pictures.panels import METHOD_COLOUR, OTHERS_COLOUR, panels
from lampe_eval.report.table_model import table_conditions
from lampe_eval.results.ranking import complete_cells


def draw(rows: pd.DataFrame) -> Figure:
    """Draw the picture of one benchmark."""
    first = rows.iloc[0]
    tasks = list(dict.fromkeys(rows["task"]))
    line_of_task = {task: index for index, task in enumerate(tasks)}
    title = f"{first['bench']} · at {first['length']} tokens · {table_conditions(first)}"
    figure, methods = panels(rows, title, height=0.6 + 0.14 * len(tasks))
    stroke: dict[str, Any] = {"color": OTHERS_COLOUR, "markersize": 5, "zorder": 1}
    hollow: dict[str, Any] = {"color": METHOD_COLOUR, "markerfacecolor": "white", "markersize": 3.5}
    for axes, method_rows in methods:
        axes.plot(rows["score"], rows["task"].map(line_of_task), "|", **stroke)
        axes.errorbar(
            method_rows["score"],
            method_rows["task"].map(line_of_task),
            xerr=_distances_to_ends(method_rows),
            fmt="o",
            color=METHOD_COLOUR,
            markersize=3.5,
            elinewidth=1,
            zorder=3,
        )
        incomplete = method_rows[~complete_cells(method_rows)]
        axes.plot(incomplete["score"], incomplete["task"].map(line_of_task), "o", **hollow)
        axes.grid(axis="y", color=OTHERS_COLOUR, alpha=0.4, linewidth=0.4)
    axes.set_yticks(range(len(tasks)), tasks)
    # Downwards: tasks stand in the order of the tables.
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    figure.supxlabel("score with its 95 % interval (strokes: the other methods)")
    return figure


def _distances_to_ends(rows: pd.DataFrame) -> list[pd.Series]:
    """Return how far the ends of intervals are from the scores; 0 where they are unknown."""
    distances = [rows["score"] - rows["ci_low"], rows["ci_high"] - rows["score"]]
    # a score that the benchmark rounds may lie beyond an end by a rounding error
    return [distance.fillna(0).clip(lower=0) for distance in distances]
