"""A sweep: rows of a run that differ in one setting of a method, and what they found at each length."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from lampe_eval.benches import BENCHES
from lampe_eval.calibration.fit import Best, best
from lampe_eval.methods import MethodSpec

Setting = Literal["mapping_length", "temperature"]
FITTED: Mapping[Setting, tuple[str, ...]] = {
    "mapping_length": ("mapping_length", "slope", "intercept", "ceiling"),
    "temperature": ("temperature", "temperature_rate"),
}
"""The settings of a method that a sweep sets, or a fit."""


@dataclass(frozen=True)
class Sweep:
    """Values of one setting of a method."""

    spec: MethodSpec
    setting: Setting
    values: tuple[float, ...]

    @property
    def rows(self) -> dict[str, float]:
        """The label of each row, with its value; a temperature stays the same at every length."""
        fixed = {"temperature_rate": 0} if self.setting == "temperature" else {}
        return {
            self.spec.plus(**{self.setting: value}, **fixed).label: value for value in self.values
        }

    def table(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Its scores among those of a run: columns method, setting, length, value, score, stderr and n."""
        own = frame[frame["method"].isin(list(self.rows))]
        table = own.assign(
            method=self.spec.label, setting=self.setting, value=own["method"].map(self.rows)
        )
        columns = ["method", "setting", "length", "value", "score", "stderr", "n"]
        return table.sort_values(["length", "value"], ignore_index=True)[columns]

    def found(self, frame: pd.DataFrame) -> list[Best]:
        """The best value at each length."""
        higher = BENCHES[str(frame["bench"].iloc[0])].higher_is_better
        return [
            best(int(str(length)), at["value"], -at["score"] if higher else at["score"])
            for length, at in self.table(frame).groupby("length")
        ]
