"""Scores of many tasks at one length: a method's with their standard errors, the others' as faint strokes."""

import pandas as pd
from matplotlib.figure import Figure

from lampe_eval.report.pictures.panels import FAINT, INK, panels
from lampe_eval.report.table_model import complete, table_conditions


def draw(rows: pd.DataFrame) -> Figure:
    """The picture of one bench."""
    first, tasks = rows.iloc[0], list(dict.fromkeys(rows["task"]))
    place = {task: index for index, task in enumerate(tasks)}
    title = f"{first['bench']} · at {first['length']} tokens · {table_conditions(first)}"
    figure, methods = panels(rows, title, height=0.6 + 0.14 * len(tasks))
    for axes, own in methods:
        axes.plot(rows["score"], rows["task"].map(place), "|", color=FAINT, markersize=5, zorder=1)
        axes.errorbar(
            own["score"], own["task"].map(place), xerr=own["stderr"].fillna(0), fmt="o", color=INK, markersize=3.5,
            elinewidth=1, zorder=3,
        )  # fmt: skip
        short = own[~complete(own)]
        axes.plot(
            short["score"],
            short["task"].map(place),
            "o",
            color=INK,
            markerfacecolor="white",
            markersize=3.5,
        )
        axes.grid(axis="y", color=FAINT, alpha=0.4, linewidth=0.4)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    figure.supxlabel("score ± standard error (strokes: the other methods)")
    return figure
