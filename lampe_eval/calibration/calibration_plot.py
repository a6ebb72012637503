"""A picture of one fit: what other values than the best cost, and each length's best beside the fitted curve."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

import lampe
from lampe_eval.calibration.calibration_config import ResolvedCalibration
from lampe_eval.calibration.calibration_run import SweepResult
from lampe_eval.method_specs import MethodSpec

NAMES = {
    "mapping_length": "mapping length (positions)",
    "attention_factor": "attention_factor (on cos and sin)",
}


def draw_calibration(
    wanted: ResolvedCalibration, swept: SweepResult, stages: Sequence[MethodSpec]
) -> bytes:
    """The sweep of one setting of one method as a PNG.

    Args:
        stages: the method as given, then as fitted.
    """
    setting, task, lengths = swept.sweep.setting, wanted.plan.tasks[0], wanted.order.lengths
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    title = f"{stages[0].label} on {wanted.plan.sources[0].name}, window {wanted.window}"
    figure.suptitle(title, parse_math=False)
    left, right = figure.subplots(1, 2)
    best = {each.length: each.value for each in swept.found}
    _costs(left, swept.table, best)
    left.set(
        xlabel=NAMES[setting],
        ylabel=f"{task.full_name}: {task.card.metric} beside that at the best",
    )
    right.plot(list(best), list(best.values()), "o", color="black", label="best at its length")
    for spec, style, label in ((stages[0], ":", "as given"), (stages[-1], "-", "fitted")):
        _curve(right, wanted, spec, setting, linestyle=style, label=label)
    right.axvline(wanted.window, color="0.7", linewidth=0.8)
    right.set(xlabel="prompt (tokens)", ylabel=NAMES[setting], xscale="log")
    right.set_xticks(lengths, labels=[str(length) for length in lengths])
    right.minorticks_off()
    right.legend(frameon=False)
    target = io.BytesIO()
    figure.savefig(target, dpi=150, metadata={"Software": None})
    return target.getvalue()


def _costs(axes: Any, table: pd.DataFrame, best: Mapping[int, float]) -> None:
    """One line for each length, lighter for longer: how far each value's score is from that at the best."""
    for rank, (length, at) in enumerate(table.groupby("length")):
        colour = colormaps["viridis"](0.85 * rank / max(1, len(best) - 1))
        nearest = int((at["value"] - best[int(str(length))]).abs().argmin())
        beside = at["score"] - at["score"].iloc[nearest]
        axes.plot(at["value"], beside, "o-", color=colour, markersize=4, label=str(length))
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.legend(frameon=False, title="prompt (tokens)")


def _curve(
    axes: Any, wanted: ResolvedCalibration, spec: MethodSpec, setting: str, **style: Any
) -> None:
    source, lengths = wanted.plan.sources[0], wanted.order.lengths
    method = spec.build(source.settings)
    tokens = np.unique(np.geomspace(lengths[0], lengths[-1], 100).round().astype(int)).tolist()
    axes.plot(
        tokens,
        [_value(method, setting, source.geometry, each) for each in tokens],
        color="tab:blue",
        **style,
    )


def _value(method: lampe.Method, setting: str, geometry: lampe.Geometry, length: int) -> float:
    if setting == "attention_factor":
        return method.encode(geometry, length).attention_factor.factor
    return float(method.resolved(geometry, length).settings["mapping_length"])
