"""Picture of scores by length: a method with its 95 % interval, the others faint behind it.

The dashed line is the window. Arrows at the top carry scores that are off the scale.
"""

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lampe_eval.report.pictures.panels import (
    METHOD_COLOUR,
    OTHERS_COLOUR,
    WINDOW_COLOUR,
    panels,
    title_of,
    tokens,
)
from lampe_eval.report.table_model import interval_text
from lampe_eval.results.ranking import complete_cells, higher_is_better, scale_of

OFF_SCALE = 2
"""Perplexities above this multiple of the lowest are off the scale; they would hide the others."""

PERCENT = (0.0, 100.0)
Limits = tuple[float, float]
"""Lowest and highest score that a picture shows."""


def draw(rows: pd.DataFrame) -> Figure:
    """Draw the picture of one task."""
    # lines connect lengths in ascending order; runs may store them in another
    rows = rows.sort_values("length", kind="stable")
    first = rows.iloc[0]
    figure, methods = panels(rows, title_of(rows))
    limits = _limits(rows)
    top = limits[1]
    for axes, method_rows in methods:
        _draw_panel(axes, rows, method_rows, limits)
        off_scale = method_rows[method_rows["score"] > top]
        if not off_scale.empty:
            _draw_off_scale(axes, off_scale)
    axes.set_xscale("log", base=2)
    lengths = sorted(set(rows["length"]))
    axes.set_xticks(lengths, [tokens(length) for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    figure.supxlabel(f"length in tokens (dashed: the window, {first['window']})")
    figure.supylabel(f"{first['metric']} (band: 95 % interval)")
    if limits == PERCENT:
        # Somewhat beyond 0 and 100, so that markers there are drawn whole.
        axes.set_ylim(-4, 104)
    elif rows["score"].max() > top:
        axes.set_ylim(0.95 * top / OFF_SCALE, top)
    return figure


def _limits(rows: pd.DataFrame) -> Limits:
    scores = rows["score"].dropna().round(6)
    if scale_of(rows) == "percent" and scores.between(*PERCENT).all():
        return PERCENT
    if scale_of(rows) == "log" and not higher_is_better(rows):
        lowest = float(scores.min())
        return lowest / OFF_SCALE, OFF_SCALE * lowest
    return -math.inf, math.inf


def _draw_off_scale(axes: Axes, off_scale: pd.DataFrame) -> None:
    """Draw an arrow for each score off the scale, with the number and its interval below it."""
    from_top = axes.get_xaxis_transform()  # x in tokens, y from 0 (bottom) to 1 (top)
    axes.plot(
        off_scale["length"],
        [0.97] * len(off_scale),
        "^",
        color=METHOD_COLOUR,
        markersize=3.5,
        transform=from_top,
        zorder=5,
    )
    for row in off_scale.to_dict("records"):
        interval = interval_text(row["ci_low"], row["ci_high"])
        axes.text(
            row["length"],
            0.91,
            f"{_number_text(row['score'])} {interval}".rstrip(),
            transform=from_top,
            rotation=90,
            ha="center",
            va="top",
            color=METHOD_COLOUR,
            zorder=5,
            fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )


def _number_text(score: float) -> str:
    """Return a score with three digits, or without decimals from 100 up to a million."""
    return f"{score:.0f}" if 100 <= score < 1e6 else f"{score:.3g}"


def _draw_panel(axes: Axes, rows: pd.DataFrame, method_rows: pd.DataFrame, limits: Limits) -> None:
    for _, other in rows.groupby("label", sort=False):
        axes.plot(other["length"], other["score"], color=OTHERS_COLOUR, linewidth=0.7, zorder=1)
    lengths = method_rows["length"]
    scores = method_rows["score"]
    # an unknown interval has no band, and a wide one does not set the scale
    low, high = (method_rows[end].fillna(scores).clip(*limits) for end in ("ci_low", "ci_high"))
    band: dict[str, Any] = {"color": METHOD_COLOUR, "alpha": 0.25, "linewidth": 0}
    axes.fill_between(lengths, low, high, **band)
    dots: dict[str, Any] = {"color": METHOD_COLOUR, "markersize": 3.5}
    axes.plot(lengths, scores, linewidth=1.6, marker="o", zorder=3, **dots)
    incomplete = method_rows[~complete_cells(method_rows)]
    axes.plot(
        incomplete["length"], incomplete["score"], "o", markerfacecolor="white", zorder=4, **dots
    )
    window = method_rows.iloc[0]["window"]
    axes.axvline(window, color=WINDOW_COLOUR, linestyle="--", linewidth=0.9, zorder=2)
