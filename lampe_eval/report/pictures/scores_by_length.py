"""Score against length: a method with its standard error, the others faint behind it, the window a vertical line.

Arrows at the top have the numbers that are off the scale.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lampe_eval.report.pictures.panels import FAINT, INK, LIMIT, panels, title_of, tokens
from lampe_eval.report.table_model import complete, higher_is_better

OFF = 2
"""Perplexities above this many times the lowest are off the scale, or nothing would tell the others apart."""


def draw(rows: pd.DataFrame) -> Figure:
    """The picture of one task."""
    rows = rows.sort_values("length", kind="stable")
    first = rows.iloc[0]
    figure, methods = panels(rows, title_of(rows))
    top = 100 if higher_is_better(rows) else OFF * float(rows["score"].min())
    for axes, own in methods:
        _panel(axes, rows, own)
        if not (off := own[own["score"] > top]).empty:
            _off(axes, off)
    axes.set_xscale("log", base=2)
    lengths = sorted(set(rows["length"]))
    axes.set_xticks(lengths, [tokens(length) for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    figure.supxlabel(f"length in tokens (dashed: the window, {first['window']})")
    figure.supylabel(f"{first['metric']} (band: ± standard error)")
    if higher_is_better(rows):
        axes.set_ylim(-4, 104)
    elif rows["score"].max() > top:
        axes.set_ylim(0.95 * top / OFF, top)
    return figure


def _off(axes: Axes, own: pd.DataFrame) -> None:
    """An arrow for each number off the scale, the number below it."""
    at_top = axes.get_xaxis_transform()
    axes.plot(
        own["length"], [0.97] * len(own), "^", color=INK, markersize=3.5, transform=at_top, zorder=5
    )
    for length, score in zip(own["length"], own["score"], strict=True):
        axes.text(
            length, 0.91, _short(score), transform=at_top, rotation=90, ha="center", va="top", color=INK, zorder=5,
            fontsize="small", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )  # fmt: skip


def _short(score: float) -> str:
    """Three digits, or all before the point of what is no longer than six."""
    return f"{score:.0f}" if 100 <= score < 1e6 else f"{score:.3g}"


def _panel(axes: Axes, rows: pd.DataFrame, own: pd.DataFrame) -> None:
    for _, other in rows.groupby("label", sort=False):
        axes.plot(other["length"], other["score"], color=FAINT, linewidth=0.7, zorder=1)
    error = own["stderr"].fillna(0)
    axes.fill_between(
        own["length"],
        own["score"] - error,
        own["score"] + error,
        color=INK,
        alpha=0.25,
        linewidth=0,
    )
    axes.plot(
        own["length"], own["score"], color=INK, linewidth=1.6, marker="o", markersize=3.5, zorder=3
    )
    short = own[~complete(own)]
    axes.plot(
        short["length"],
        short["score"],
        "o",
        color=INK,
        markerfacecolor="white",
        markersize=3.5,
        zorder=4,
    )
    axes.axvline(own.iloc[0]["window"], color=LIMIT, linestyle="--", linewidth=0.9, zorder=2)
