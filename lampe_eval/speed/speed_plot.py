"""Cost against length on logarithmic axes: seconds of a prompt on the left, milliseconds of a token on the right."""

import io

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from lampe_eval.report.pictures import STYLE
from lampe_eval.report.pictures.panels import tokens
from lampe_eval.speed.speed_comparison import PLAIN_ATTENTION

MARKS = "osD^vP*Xdh<>"


def draw_speed(frame: pd.DataFrame) -> bytes:
    """The picture as a PNG."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        figure.suptitle(f"{frame['model'].iloc[0]}, {frame['dtype'].iloc[0]}, {_where(frame)}")
        for axes, cost, unit in zip(
            figure.subplots(1, 2),
            ("prefill_s", "step_s"),
            ("a prompt, s", "a token, ms"),
            strict=True,
        ):
            groups = frame.groupby(["method", "attention"], sort=False)
            for mark, (_, rows) in zip(MARKS * len(groups), groups, strict=False):
                method, backend = rows.iloc[0][["method", "backend"]]
                axes.plot(
                    rows["length"], rows[cost] * (1000 if unit.endswith("ms") else 1), marker=mark, markersize=4,
                    color="black" if method == PLAIN_ATTENTION else None, linestyle="--" if method == PLAIN_ATTENTION else "-",
                    label=f"{method} · {backend}",
                )  # fmt: skip
            axes.set(xscale="log", yscale="log", xlabel="tokens of the prompt", ylabel=unit)
            lengths = sorted(set(frame["length"]))
            axes.set_xticks(lengths, [tokens(length) for length in lengths])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_locator(NullLocator())
        axes.legend(frameon=False, fontsize=7)
        target = io.BytesIO()
        figure.savefig(target, dpi=200, metadata={"Software": None})
    return target.getvalue()


def _where(frame: pd.DataFrame) -> str:
    first = frame.iloc[0]
    return str(first["gpu"] if first["device"] == "cuda" else first["processor"])
