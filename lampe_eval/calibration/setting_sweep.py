"""A sweep: rows of a run that differ in one setting of a method, and what they found at each length."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.calibration.curve_fitting import BestValue, best_value
from lampe_eval.method_specs import MethodSpec

SweptSetting = Literal["mapping_length", "attention_factor"]
FITTED_SETTINGS: Mapping[SweptSetting, tuple[str, ...]] = {
    "mapping_length": ("mapping_length", "slope", "intercept", "ceiling"),
    "attention_factor": ("attention_factor", "attention_factor_rate"),
}
"""The settings of a method that a sweep sets, or a fit."""


@dataclass(frozen=True)
class SettingSweep:
    """Values of one setting of a method."""

    spec: MethodSpec
    setting: SweptSetting
    values: tuple[float, ...]

    @property
    def rows(self) -> dict[str, float]:
        """The label of each row, with its value; a attention_factor stays the same at every length."""
        fixed = {"attention_factor_rate": 0} if self.setting == "attention_factor" else {}
        return {
            self.spec.with_settings(**{self.setting: value}, **fixed).label: value
            for value in self.values
        }

    def table(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Its scores among those of a run: columns method, setting, length, value, score, stderr and n."""
        own = frame[frame["method"].isin(list(self.rows))]
        table = own.assign(
            method=self.spec.label, setting=self.setting, value=own["method"].map(self.rows)
        )
        columns = ["method", "setting", "length", "value", "score", "stderr", "n"]
        return table.sort_values(["length", "value"], ignore_index=True)[columns]

    def found(self, frame: pd.DataFrame) -> list[BestValue]:
        """The best value at each length."""
        higher = BENCHES[str(frame["bench"].iloc[0])].higher_is_better
        return [
            best_value(int(str(length)), at["value"], -at["score"] if higher else at["score"])
            for length, at in self.table(frame).groupby("length")
        ]
