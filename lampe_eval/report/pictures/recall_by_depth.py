"""Picture of recall by depth and length: the brighter, the more needles were found.

Lengths to the right of the dashed line are beyond the window. Rings mark lengths at which samples
are missing or failed.
"""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lampe_eval.report.pictures.panels import (
    METHOD_COLOUR,
    WINDOW_COLOUR,
    panels,
    title_of,
    tokens,
)
from lampe_eval.results.ranking import complete_cells


def has_depths(rows: pd.DataFrame) -> bool:
    """Return whether the needles of these cells lie at known depths."""
    return bool(_depths(rows))


def draw(rows: pd.DataFrame) -> Figure:
    """Draw the picture of one task."""
    depths = _depths(rows)
    lengths = sorted(set(rows["length"]))
    width = max(1.7, 0.7 + 0.28 * len(lengths))
    figure, methods = panels(rows, title_of(rows), width=width, height=1.75)
    drawn: list[Axes] = []
    for axes, method_rows in methods:
        drawn.append(axes)
        image = axes.imshow(
            _recall_grid(method_rows, depths, lengths),
            cmap=colormaps["cividis"].with_extremes(bad="white"),
            vmin=0,
            vmax=100,
            aspect="auto",
            interpolation="nearest",
        )
        _mark_incomplete(axes, method_rows, depths, lengths)
        window = method_rows.iloc[0]["window"]
        lengths_inside = sum(length <= window for length in lengths)
        _draw_lines(axes, len(lengths), len(depths), lengths_inside)
    axes.set_xticks(range(len(lengths)), [tokens(length) for length in lengths])
    labelled_depths = range(0, len(depths), max(1, len(depths) // 4))
    axes.set_yticks(labelled_depths, [f"{depths[row]:g}" for row in labelled_depths])
    rings = "" if complete_cells(rows).all() else "; rings: samples are missing"
    figure.supxlabel(f"length in tokens (dashed: the window ends{rings})")
    figure.supylabel("depth of the needle in %")
    figure.colorbar(image, ax=drawn, label=f"{rows.iloc[0]['metric']} in %", aspect=30)
    return figure


def _mark_incomplete(
    axes: Axes, method_rows: pd.DataFrame, depths: list[float], lengths: list[int]
) -> None:
    """Draw rings at every depth of a length with unscored samples."""
    incomplete = [lengths.index(n) for n in method_rows[~complete_cells(method_rows)]["length"]]
    columns = np.repeat(incomplete, len(depths))
    rows = np.tile(np.arange(len(depths)), len(incomplete))
    axes.plot(columns, rows, "o", color=METHOD_COLOUR, markerfacecolor="white", markersize=3)


def _draw_lines(axes: Axes, lengths: int, depths: int, lengths_inside: int) -> None:
    """Draw thin lines between cells, and a dashed one after the lengths inside the window."""
    axes.spines[:].set_visible(False)
    between_rows = [row - 0.5 for row in range(1, depths)]
    between_columns = [column - 0.5 for column in range(1, lengths)]
    axes.hlines(between_rows, -0.5, lengths - 0.5, color="white", linewidth=0.4)
    axes.vlines(between_columns, -0.5, depths - 0.5, color="white", linewidth=0.4)
    line = axes.axvline(
        lengths_inside - 0.5, color=WINDOW_COLOUR, linestyle="--", linewidth=1.4, zorder=3
    )
    # White around the line, so that it is seen on dark and on bright cells.
    line.set_path_effects([withStroke(linewidth=3, foreground="white")])


def _depths(rows: pd.DataFrame) -> list[float]:
    names: set[str] = set()
    for details in rows["details"]:
        names.update(name for name in details if name.startswith("depth "))
    return sorted(float(name.removeprefix("depth ")) for name in names)


def _recall_grid(method_rows: pd.DataFrame, depths: list[float], lengths: list[int]) -> np.ndarray:
    """Return recall in percent, [depths, lengths]; NaN where no needle was asked for."""
    details = dict(zip(method_rows["length"], method_rows["details"], strict=True))
    grid = np.full((len(depths), len(lengths)), np.nan)
    for row, depth in enumerate(depths):
        for column, length in enumerate(lengths):
            grid[row, column] = details.get(length, {}).get(f"depth {depth:g}", np.nan)
    return grid
