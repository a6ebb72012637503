"""Shared parts of the pictures: a panel per method on common axes, and lengths as axis labels."""

from collections.abc import Iterator
from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lampe_eval.report.labels import wrap_label
from lampe_eval.report.table_model import table_conditions

METHOD_COLOUR = "#0b4f8a"
"""Colour of a method in its own panel."""
OTHERS_COLOUR = "#b8b8b8"
"""Colour of the other methods in that panel."""
WINDOW_COLOUR = "#a4301f"
"""Colour of the line at the model's window."""
MIN_WIDTH = 3.4
"""Inches that the labels of a picture's axes need."""
PAD = 0.07
"""Inches around panels and at the borders."""
LETTERS_PER_INCH = 14
"""Letters of a panel's heading per inch."""
LINE_HEIGHT = 0.14
"""Inches of a line of a heading."""
TITLE_SCALE = 0.9
"""Letters of the picture's title per letter of a heading; the title is set somewhat larger."""


def panels(
    rows: pd.DataFrame, title: str, width: float = 1.9, height: float = 1.6
) -> tuple[Figure, Iterator[tuple[Axes, pd.DataFrame]]]:
    """Return a figure with a panel for each method, and the axes with the method's scores.

    Args:
        rows: scores with a column `label`.
        title: title of the figure.
        width: inches of a panel.
        height: inches of a panel, with one line of heading.
    """
    methods = list(rows.groupby("label", sort=False))
    columns = _column_count(len(methods))
    row_count = ceil(len(methods) / columns)
    headings = [wrap_label(str(label), int(LETTERS_PER_INCH * width)) for label, _ in methods]
    figure_width = max(MIN_WIDTH, columns * width + 0.7)
    title_lines = wrap_label(title, int(TITLE_SCALE * LETTERS_PER_INCH * figure_width))
    text_lines = len(title_lines)
    for row in range(row_count):
        text_lines += max(map(len, headings[row * columns :][:columns]))
    figure = Figure(
        figsize=(
            figure_width,
            row_count * (height - LINE_HEIGHT) + LINE_HEIGHT * text_lines + 0.6,
        ),
        layout=ConstrainedLayoutEngine(w_pad=PAD, h_pad=PAD),
    )
    figure.suptitle("\n".join(title_lines))
    grid = figure.subplots(row_count, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(methods) :]:
        axes.remove()
    # shared axes hide the labels of panels above another row, even where that row has none below
    for axes in grid.flat[max(0, len(methods) - columns) : len(methods)]:
        axes.tick_params(labelbottom=True)
    for axes, heading in zip(grid.flat, headings, strict=False):
        axes.set_title("\n".join(heading), loc="left")
    scores = (method_scores for _, method_scores in methods)
    return figure, zip(grid.flat, scores, strict=False)


def _column_count(panel_count: int) -> int:
    """Return up to four columns for one row, else 4 or 3, whichever leaves fewer gaps."""
    if panel_count <= 4:
        return panel_count
    return min((4, 3), key=lambda columns: -panel_count % columns)


def title_of(rows: pd.DataFrame) -> str:
    """Return the title of a picture of one task."""
    first = rows.iloc[0]
    return f"{first['bench']}/{first['task']} · {table_conditions(first)}"


def tokens(length: int) -> str:
    """Return a length as axis labels show it: 4k for 4096."""
    return f"{length // 1024}k" if length % 1024 == 0 else str(length)
