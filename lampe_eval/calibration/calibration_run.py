"""Calibration: sweep settings, fit their curves, and compare on held-out lengths.

The procedure is the one that LaMPE's paper describes for mapping lengths, applied to attention
factors as well.
"""

import datetime
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from lampe_eval.calibration import curve_fitting
from lampe_eval.calibration.calibration_config import SweptSetting
from lampe_eval.calibration.resolved_calibration import (
    HELD_OUT_SEED_OFFSET,
    ResolvedCalibration,
    distinct_rows,
)
from lampe_eval.calibration.setting_sweep import SettingSweep
from lampe_eval.errors import UserError
from lampe_eval.method_specs import MethodSpec
from lampe_eval.results.cell_scores import score_run, scored_cells
from lampe_eval.results.ranking import UNSCORED, higher_is_better
from lampe_eval.run_description import calibration_date
from lampe_eval.running.configuration import run_configuration
from lampe_eval.running.prepared_run import PreparedRun
from lampe_eval.running.progress import Progress
from lampe_eval.running.remaining import planned_cells
from lampe_eval.running.runner import run
from lampe_eval.scoring.intervals import Interval, weighted_ends

OpenProgress = Callable[[], AbstractContextManager[Progress]]
"""Function that opens a display of the progress of a run."""


@dataclass(frozen=True)
class SweepResult:
    """Sweep with its scores and the best value of each length.

    Attributes:
        sweep: the sweep.
        table: its scores; for the columns see `SettingSweep.table`.
        best: best value of each length.
    """

    sweep: SettingSweep
    table: pd.DataFrame
    best: Sequence[curve_fitting.BestValue]


@dataclass(frozen=True)
class FittedSettings:
    """Result of a calibration.

    Attributes:
        stages: for each method, the method as given, then with each further setting fitted.
        sweeps: results of all sweeps.
        held_out: scores of all stages at the held-out lengths.
    """

    stages: list[list[MethodSpec]]
    sweeps: list[SweepResult]
    held_out: pd.DataFrame

    def mean(self, spec: MethodSpec) -> float:
        """Return a method's mean score over the held-out lengths."""
        return float(self._scores(spec)["score"].mean())

    def mean_interval(self, spec: MethodSpec) -> Interval:
        """Return the interval of that mean; its ends are NaN where a length has none."""
        ends = self._scores(spec)[["ci_low", "ci_high"]].itertuples(index=False)
        intervals = [Interval(*pair) for pair in ends]
        return weighted_ends([1 / len(intervals)] * len(intervals), intervals)

    def loss(self, spec: MethodSpec) -> float:
        """Return that mean, negated if higher is better."""
        mean = self.mean(spec)
        return -mean if higher_is_better(self.held_out) else mean

    def _scores(self, spec: MethodSpec) -> pd.DataFrame:
        return self.held_out[self.held_out["method"] == spec.label]

    def best_stage(self, stages: Sequence[MethodSpec]) -> MethodSpec:
        """Return the stage of a method with the lowest loss, which the card gets.

        It may be the method as given. Of equal stages it is the one with most settings fitted.
        """
        # ``min`` returns the first of equal ones, and the stage with most settings fitted is the
        # last.
        return min(reversed(stages), key=self.loss)


def calibrate(calibration: ResolvedCalibration, open_progress: OpenProgress) -> FittedSettings:
    """Run what is left of the sweeps, fit, and compare at the held-out lengths.

    Args:
        calibration: what to calibrate.
        open_progress: opens a display of progress; called once for each run.

    Raises:
        UserError: if samples fail or nothing can be fitted; finished samples stay stored.
    """
    stages: list[list[MethodSpec]] = [[spec] for spec in calibration.prepared.resolved.specs]
    results: list[SweepResult] = []
    # Of all steps, so that their prompts differ in nothing but samples.
    date = calibration_date(calibration.folder)
    for setting in calibration.settings:
        fitted = [own for own in stages if calibration.config.is_fitted(own[0], setting)]
        # each sweep starts from the settings that the previous one has fitted
        sweeps = [calibration.sweeps_of(own[-1], setting) for own in fitted]
        scores = _run_sweeps(
            calibration, setting, list(chain.from_iterable(sweeps)), open_progress, date
        )
        for own, own_sweeps in zip(fitted, sweeps, strict=True):
            own_results = [_result(sweep, scores) for sweep in own_sweeps]
            results += own_results
            own.append(own[-1].with_settings(**_fit(own_results, calibration.window)))
    rows: list[MethodSpec] = []
    for own in stages:
        rows += own
    prepared = calibration.run(
        rows, calibration.config.held_out, "held-out", seed=HELD_OUT_SEED_OFFSET
    )
    return FittedSettings(stages, results, _run_scores(prepared, open_progress, date))


def _result(sweep: SettingSweep, scores: pd.DataFrame) -> SweepResult:
    table = sweep.table(scores)
    best = sweep.best(table, higher_is_better=higher_is_better(scores))
    return SweepResult(sweep, table, best)


def _run_sweeps(
    calibration: ResolvedCalibration,
    setting: SweptSetting,
    sweeps: Sequence[SettingSweep],
    open_progress: OpenProgress,
    date: datetime.date,
) -> pd.DataFrame:
    """Run all sweeps of a setting in one run, which loads the model once, and return its scores."""
    rows = distinct_rows(sweeps)
    prepared = calibration.run(rows, calibration.lengths_of(setting), setting)
    return _run_scores(prepared, open_progress, date)


def _run_scores(
    prepared: PreparedRun, open_progress: OpenProgress, date: datetime.date
) -> pd.DataFrame:
    """Run what is left of a run and return its scores.

    Raises:
        UserError: if a sample is missing or a score is not finite, since a fit to them is wrong.
    """
    with open_progress() as progress:
        store = run(prepared, run_configuration(prepared), progress, date=date)
    scores = score_run(store).scores
    # An earlier calibration in the same folder may have had further methods or lengths.
    cells = planned_cells(prepared)
    scores = scores[[cell in cells for cell in scored_cells(scores)]]
    failed = int(scores[UNSCORED].to_numpy().sum())
    if failed:
        raise UserError(
            f"{store.folder}: {failed} samples failed or were left out, see samples/; "
            "nothing was fitted"
        )
    for row in scores[~np.isfinite(scores["score"].astype(float))].itertuples():
        raise UserError(
            f"{store.folder}: {row.method} at {row.length} tokens scores {row.score}; "
            "nothing was fitted"
        )
    return scores


def _fit(results: Sequence[SweepResult], window: int) -> dict[str, Any]:
    """Return the settings that the sweeps of one setting of a method give.

    They are those whose curve is nearest to each length's best value, or each band's best size.
    """
    result, sweep = results[0], results[0].sweep
    if sweep.setting == "group_sizes":
        # Each was found while the other bands had the size of the start, as the authors do.
        return {"group_sizes": "/".join(f"{each.best[0].value:.0f}" for each in results)}
    try:
        if sweep.setting == "mapping_length":
            curve = curve_fitting.fit_sigmoid(result.best, window, max(sweep.values))
            return {"slope": curve.slope, "intercept": curve.intercept, "ceiling": curve.ceiling}
        factor, rate = curve_fitting.fit_attention_factor(result.best, window)
        return {"attention_factor": factor, "attention_factor_rate": rate}
    except ValueError as error:
        raise UserError(f"{sweep.spec.label}: {sweep.setting}: {error}") from None
