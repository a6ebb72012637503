"""Sweep of one setting of a method: the rows of a run that try its values, and their scores."""

from dataclasses import dataclass

import pandas as pd

from lampe_eval.calibration.calibration_config import SweptSetting
from lampe_eval.calibration.curve_fitting import BestValue, best_value
from lampe_eval.method_specs import MethodSpec

SWEEP_COLUMNS = [
    "method",
    "setting",
    "length",
    "value",
    "score",
    "stderr",
    "ci_low",
    "ci_high",
    "n",
]


@dataclass(frozen=True)
class SettingSweep:
    """Sweep of values of one setting of a method.

    Attributes:
        spec: the method.
        setting: the setting.
        values: values to try.
    """

    spec: MethodSpec
    setting: SweptSetting
    values: tuple[float, ...]

    @property
    def name(self) -> str:
        """Return what is swept, as tables call it."""
        return self.setting

    @property
    def specs(self) -> list[MethodSpec]:
        """Return the method with each of the values: the rows of the run."""
        # A model's card may let the factor grow with the length; within a sweep it is constant.
        constant = {"attention_factor_rate": 0} if self.setting == "attention_factor" else {}
        return [
            self.spec.with_settings(**{self.setting: value}, **constant) for value in self.values
        ]

    def table(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Return the sweep's scores among those of a run.

        Args:
            scores: scores of a run.

        Returns:
            Columns method, setting, length (tokens), value, score, stderr, ci_low, ci_high and n,
            sorted by length and value.
        """
        labels = [spec.label for spec in self.specs]
        value_of_label = dict(zip(labels, self.values, strict=True))
        rows = scores[scores["method"].isin(labels)]
        values = rows["method"].map(value_of_label)
        table = rows.assign(method=self.spec.label, setting=self.name, value=values)
        return table.sort_values(["length", "value"], ignore_index=True)[SWEEP_COLUMNS]

    def best(self, table: pd.DataFrame, *, higher_is_better: bool) -> list[BestValue]:
        """Return the best value at each length of the sweep's table."""
        best: list[BestValue] = []
        for length, rows in table.groupby("length"):
            losses = -rows["score"] if higher_is_better else rows["score"]
            best.append(self._best_of(int(str(length)), rows["value"], losses))
        return best

    def _best_of(self, length: int, values: pd.Series, losses: pd.Series) -> BestValue:
        return best_value(length, values, losses)


@dataclass(frozen=True)
class GroupSizeSweep(SettingSweep):
    """Sweep of DPE's group size of one band of rotated pairs.

    Attributes:
        sizes: group sizes of all bands; the swept band has each of the values instead.
        band: index of the swept band.
    """

    sizes: tuple[int, ...]
    band: int

    @property
    def name(self) -> str:
        return f"{self.setting}, band {self.band + 1}"

    @property
    def specs(self) -> list[MethodSpec]:
        return [self.spec.with_settings(group_sizes=self._joined(value)) for value in self.values]

    def _joined(self, value: float) -> str:
        sizes = list(self.sizes)
        sizes[self.band] = int(value)
        return "/".join(map(str, sizes))

    def _best_of(self, length: int, values: pd.Series, losses: pd.Series) -> BestValue:
        """Return the size that was tried with the lowest loss.

        Of several it is the one nearest to the size of the other bands: where a band makes no
        difference, a small size would only leave the window.
        """
        begin = self.sizes[self.band]
        lowest = [int(value) for value in values[losses == losses.min()]]
        size = min(lowest, key=lambda value: max(value / begin, begin / value))
        # 1 is an end of the grid too, but none lies beyond it.
        is_last = size == max(self.values)
        return BestValue(length, size, float(losses.max() - losses.min()), is_last)
