"""Needles by depth and length: the brighter, the more were found; right of the dashed line is beyond the window.

Rings mark the depths of a length at which samples are missing or failed.
"""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lampe_eval.report.pictures.panels import INK, LIMIT, panels, title_of, tokens
from lampe_eval.report.table_model import complete


def has_depths(rows: pd.DataFrame) -> bool:
    """Whether needles lie at known depths."""
    return bool(_depths(rows))


def draw(rows: pd.DataFrame) -> Figure:
    """The picture of one task."""
    depths, lengths = _depths(rows), sorted(set(rows["length"]))
    figure, methods = panels(
        rows, title_of(rows), width=max(1.7, 0.7 + 0.28 * len(lengths)), height=1.75
    )
    drawn = []
    for axes, own in methods:
        drawn.append(axes)
        image = axes.imshow(
            _grid(own, depths, lengths), cmap=colormaps["cividis"].with_extremes(bad="white"), vmin=0, vmax=100,
            aspect="auto", interpolation="nearest",
        )  # fmt: skip
        short = [lengths.index(length) for length in own[~complete(own)]["length"]]
        ringed = np.array(
            [(column, row) for column in short for row in range(len(depths))]
        ).reshape(-1, 2)
        axes.plot(*ringed.T, "o", color=INK, markerfacecolor="white", markersize=3)
        _frame(
            axes,
            len(lengths),
            len(depths),
            sum(length <= own.iloc[0]["window"] for length in lengths),
        )
    axes.set_xticks(range(len(lengths)), [tokens(length) for length in lengths])
    shown = range(0, len(depths), max(1, len(depths) // 4))
    axes.set_yticks(shown, [f"{depths[row]:g}" for row in shown])
    rings = "" if complete(rows).all() else "; rings: samples are missing"
    figure.supxlabel(f"length in tokens (dashed: the window ends{rings})")
    figure.supylabel("depth of the needle in %")
    figure.colorbar(image, ax=drawn, label=f"{rows.iloc[0]['metric']} in %", aspect=30)
    return figure


def _frame(axes: Axes, lengths: int, depths: int, inside: int) -> None:
    """Thin lines between cells, and a dashed one behind the lengths inside the window."""
    axes.spines[:].set_visible(False)
    axes.hlines(
        [row - 0.5 for row in range(1, depths)], -0.5, lengths - 0.5, color="white", linewidth=0.4
    )
    axes.vlines(
        [column - 0.5 for column in range(1, lengths)],
        -0.5,
        depths - 0.5,
        color="white",
        linewidth=0.4,
    )
    line = axes.axvline(inside - 0.5, color=LIMIT, linestyle="--", linewidth=1.4, zorder=3)
    line.set_path_effects([withStroke(linewidth=3, foreground="white")])


def _depths(rows: pd.DataFrame) -> list[float]:
    names = {name for details in rows["details"] for name in details if name.startswith("depth ")}
    return sorted(float(name.removeprefix("depth ")) for name in names)


def _grid(own: pd.DataFrame, depths: list[float], lengths: list[int]) -> np.ndarray:
    """Found needles in percent, [depths, lengths]; NaN where none was asked for."""
    details = dict(zip(own["length"], own["details"], strict=True))
    return np.array(
        [[details.get(n, {}).get(f"depth {at:g}", np.nan) for n in lengths] for at in depths]
    )
