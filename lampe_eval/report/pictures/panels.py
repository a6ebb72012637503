"""What all pictures share: a panel for each method, all on the same axes, and how lengths are written."""

from collections.abc import Iterator
from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lampe_eval.report.labels import wrap_label
from lampe_eval.report.table_model import table_conditions

INK, FAINT, LIMIT = "#0b4f8a", "#b8b8b8", "#a4301f"
"""A method in its own panel, the others there, and the window."""
NARROWEST = 3.4
"""Inches that the labels of a picture's axes take."""
PAD = 0.07
"""Inches around panels and at the borders."""
LETTERS, LINE = 14, 0.14
"""Letters to the inch of a panel's heading, and inches of a line of it; the picture's title is somewhat larger."""


def panels(
    rows: pd.DataFrame, title: str, width: float = 1.9, height: float = 1.6
) -> tuple[Figure, Iterator[tuple[Axes, pd.DataFrame]]]:
    """A figure with a panel for each method, its rows beside it.

    Args:
        width, height: of a panel, in inches.
    """
    methods = list(rows.groupby("label", sort=False))
    columns = (
        min((4, 3), key=lambda wide: -len(methods) % wide) if len(methods) > 4 else len(methods)
    )
    down = ceil(len(methods) / columns)
    headings = [wrap_label(str(label), int(LETTERS * width)) for label, _ in methods]
    across = max(NARROWEST, columns * width + 0.7)
    titled = wrap_label(title, int(0.9 * LETTERS * across))
    lines = len(titled) + sum(
        max(map(len, headings[row * columns :][:columns])) for row in range(down)
    )
    figure = Figure(
        figsize=(across, down * (height - LINE) + LINE * lines + 0.6),
        layout=ConstrainedLayoutEngine(w_pad=PAD, h_pad=PAD),
    )
    figure.suptitle("\n".join(titled))
    grid = figure.subplots(down, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(methods) :]:
        axes.remove()
    for axes in grid.flat[max(0, len(methods) - columns) : len(methods)]:
        axes.tick_params(labelbottom=True)
    for axes, heading in zip(grid.flat, headings, strict=False):
        axes.set_title("\n".join(heading), loc="left")
    return figure, ((axes, own) for axes, (_, own) in zip(grid.flat, methods, strict=False))


def title_of(rows: pd.DataFrame) -> str:
    """What a picture of one task shows."""
    first = rows.iloc[0]
    return f"{first['bench']}/{first['task']} · {table_conditions(first)}"


def tokens(length: int) -> str:
    """A length as axes have it: 4k for 4096."""
    return f"{length // 1024}k" if length % 1024 == 0 else str(length)
