"""The fit that LaMPE's paper describes, and the same for attention_factors: sweep, fit, and compare on lengths held out."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.calibration import curve_fitting
from lampe_eval.calibration.calibration_config import ResolvedCalibration
from lampe_eval.calibration.setting_sweep import SettingSweep
from lampe_eval.errors import UserError
from lampe_eval.method_specs import MethodSpec
from lampe_eval.results.cell_scores import run_scores
from lampe_eval.running.configuration import run_folder
from lampe_eval.running.progress import Progress
from lampe_eval.running.run_plan import RunPlan
from lampe_eval.running.runner import run

Telling = Callable[[], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class SweepResult:
    """A sweep with what it found: its scores, as ``Sweep.table``, and each length's best value."""

    sweep: SettingSweep
    table: pd.DataFrame
    found: Sequence[curve_fitting.BestValue]


@dataclass(frozen=True)
class FittedSettings:
    """What a calibration found.

    Attributes:
        stages: of each method, the row as given, then with each setting that was fitted.
        held_out: scores of all stages on the lengths held out.
    """

    stages: list[list[MethodSpec]]
    swept: list[SweepResult]
    held_out: pd.DataFrame

    def loss(self, spec: MethodSpec) -> float:
        """A row's mean score over the lengths held out, turned so that less is better."""
        own = self.held_out[self.held_out["method"] == spec.label]
        return float(own["score"].mean()) * (
            -1 if BENCHES[str(own["bench"].iloc[0])].higher_is_better else 1
        )

    def kept(self, stages: Sequence[MethodSpec]) -> MethodSpec:
        """The best of a method's rows on the lengths held out: what a card should say, be it what was given."""
        return min(reversed(stages), key=self.loss)


def calibrate(wanted: ResolvedCalibration, telling: Telling) -> FittedSettings:
    """Runs what is left of the sweeps, fits, and compares on the lengths held out.

    Raises:
        UserError: for what a person can mend; what is finished stays stored.
    """
    stages: list[list[MethodSpec]] = [[spec] for spec in wanted.plan.specs]
    swept: list[SweepResult] = []
    for setting in wanted.settings:
        pairs = [
            (own, wanted.sweep(own[-1], setting)) for own in stages if wanted.has(own[0], setting)
        ]
        labels = [label for _, sweep in pairs for label in sweep.rows]
        frame = _measured(wanted.run(labels, wanted.order.lengths, setting), telling)
        for own, sweep in pairs:
            swept.append(SweepResult(sweep, sweep.table(frame), sweep.found(frame)))
            own.append(own[-1].with_settings(**_fitted(swept[-1], wanted.window)))
    rows = [spec.label for own in stages for spec in own]
    held_out = _measured(wanted.run(rows, wanted.order.held_out, "held-out", seed=1), telling)
    return FittedSettings(stages, swept, held_out)


def _measured(plan: RunPlan, telling: Telling) -> pd.DataFrame:
    """Runs what is left of a plan; its scores, which are whole and finite."""
    with telling() as progress:
        frame = run_scores(run(plan, progress))
    if lacking := int(frame[["missing", "errors", "skipped"]].to_numpy().sum()):
        raise UserError(
            f"{run_folder(plan)}: {lacking} samples failed or were left out, see samples/; nothing was fitted"
        )
    for row in frame[~np.isfinite(frame["score"].astype(float))].itertuples():
        raise UserError(
            f"{run_folder(plan)}: {row.method} at {row.length} tokens scores {row.score}; nothing was fitted"
        )
    return frame


def _fitted(swept: SweepResult, window: int) -> dict[str, Any]:
    """The settings that give each length about its best value."""
    sweep = swept.sweep
    try:
        if sweep.setting == "mapping_length":
            curve = curve_fitting.fit_sigmoid(swept.found, window, max(sweep.values))
            return {"slope": curve.slope, "intercept": curve.intercept, "ceiling": curve.ceiling}
        factor, rate = curve_fitting.fit_attention_factor(swept.found, window)
        return {"attention_factor": factor, "attention_factor_rate": rate}
    except ValueError as error:
        raise UserError(f"{sweep.spec.label}: {sweep.setting}: {error}") from None
