"""Plot of one fit: scores around each length's best value, and the best values with the curve."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

import lampe
from lampe_eval.calibration.calibration_run import SweepResult
from lampe_eval.calibration.resolved_calibration import ResolvedCalibration
from lampe_eval.method_specs import MethodSpec

AXIS_LABELS = {
    "mapping_length": "mapping length (positions)",
    "attention_factor": "attention factor (on cos and sin)",
}
CURVE_POINTS = 100


def draw_calibration(
    calibration: ResolvedCalibration, result: SweepResult, stages: Sequence[MethodSpec]
) -> bytes:
    """Return the plot of one sweep as a PNG.

    Args:
        calibration: the calibration.
        result: the sweep with its scores.
        stages: the method as given, then as fitted.
    """
    setting, task = result.sweep.setting, calibration.prepared.resolved.tasks[0]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    title = (
        f"{stages[0].label} on {calibration.prepared.sources[0].name}, window {calibration.window}"
    )
    figure.suptitle(title, parse_math=False)
    left, right = figure.subplots(1, 2)
    best = {each.length: each.value for each in result.best}
    _draw_scores(left, result.table, best)
    left.set(
        xlabel=AXIS_LABELS[setting],
        ylabel=f"{task.full_name}: {task.card.metric} minus that at the best value",
    )
    right.plot(list(best), list(best.values()), "o", color="black", label="best at its length")
    for spec, style, label in ((stages[0], ":", "as given"), (stages[-1], "-", "fitted")):
        _draw_curve(right, calibration, spec, setting, linestyle=style, label=label)
    right.axvline(calibration.window, color="0.7", linewidth=0.8)
    right.set(xlabel="prompt (tokens)", ylabel=AXIS_LABELS[setting], xscale="log")
    lengths = calibration.config.lengths
    right.set_xticks(lengths, labels=[str(length) for length in lengths])
    right.minorticks_off()
    right.legend(frameon=False)
    buffer = io.BytesIO()
    # without the name of the software, equal plots are equal files
    figure.savefig(buffer, dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _draw_scores(axes: Any, table: pd.DataFrame, best: Mapping[int, float]) -> None:
    """Draw one line for each length, lighter for longer: scores minus that nearest to the best."""
    for rank, (length, rows) in enumerate(table.groupby("length")):
        colour = colormaps["viridis"](0.85 * rank / max(1, len(best) - 1))
        nearest = int((rows["value"] - best[int(str(length))]).abs().argmin())
        differences = rows["score"] - rows["score"].iloc[nearest]
        axes.plot(rows["value"], differences, "o-", color=colour, markersize=4, label=str(length))
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.legend(frameon=False, title="prompt (tokens)")


def _draw_curve(
    axes: Any, calibration: ResolvedCalibration, spec: MethodSpec, setting: str, **style: Any
) -> None:
    """Draw the setting's value over the length of the prompt."""
    source, lengths = calibration.prepared.sources[0], calibration.config.lengths
    method = spec.build(source.settings)
    points = np.geomspace(lengths[0], lengths[-1], CURVE_POINTS).round().astype(int)
    tokens = np.unique(points).tolist()
    values = [_value_at(method, setting, source.geometry, length) for length in tokens]
    axes.plot(tokens, values, color="tab:blue", **style)


def _value_at(method: lampe.Method, setting: str, geometry: lampe.Geometry, length: int) -> float:
    if setting == "attention_factor":
        return method.encode(geometry, length).attention_factor.factor
    return float(method.resolved(geometry, length).settings["mapping_length"])
