"""Plot of cost against length on logarithmic axes: seconds of prefill, milliseconds of a token."""

import io
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from lampe_eval.report.pictures import STYLE
from lampe_eval.report.pictures.panels import tokens
from lampe_eval.speed.speed_comparison import PLAIN_ATTENTION

MARKERS = "osD^vP*Xdh<>"


def draw_speed(table: pd.DataFrame) -> bytes:
    """Return the plot of a comparison as a PNG.

    Args:
        table: rows as `SpeedComparison.table` has them.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        first = table.iloc[0]
        figure.suptitle(f"{first['model']}, {first['dtype']}, {_hardware(first)}")
        left, right = figure.subplots(1, 2)
        _draw_costs(left, table, "prefill_s", 1)
        left.set_ylabel("prefill (s)")
        _draw_costs(right, table, "step_s", 1000)
        right.set_ylabel("decode step (ms)")
        right.legend(frameon=False, fontsize=7)
        buffer = io.BytesIO()
        # without the name of the software, equal plots are equal files
        figure.savefig(buffer, dpi=200, metadata={"Software": None})
    return buffer.getvalue()


def _draw_costs(axes: Any, table: pd.DataFrame, column: str, factor: float) -> None:
    """Draw one line for each method and backend.

    Args:
        axes: axes to draw on.
        table: rows of all methods and lengths.
        column: column of the cost, in seconds.
        factor: number that seconds are multiplied by.
    """
    groups = table.groupby(["method", "attention"], sort=False)
    markers = MARKERS * len(groups)
    for marker, (_, rows) in zip(markers, groups, strict=False):
        method, backend = rows.iloc[0][["method", "backend"]]
        is_plain = method == PLAIN_ATTENTION
        axes.plot(
            rows["length"],
            rows[column] * factor,
            marker=marker,
            markersize=4,
            color="black" if is_plain else None,
            linestyle="--" if is_plain else "-",
            label=f"{method} · {backend}",
        )
    axes.set(xscale="log", yscale="log", xlabel="prompt (tokens)")
    lengths = sorted(set(table["length"]))
    axes.set_xticks(lengths, [tokens(length) for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _hardware(row: pd.Series) -> str:
    return str(row["gpu"] if row["device"] == "cuda" else row["processor"])
