"""Comparison of the methods of a table: which are best, which differ, what samples can show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lampe_eval.results.detectable import POWER, USEFUL
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.method_differences import (
    CELL,
    ComparableCells,
    StratumKey,
    reference_label,
)
from lampe_eval.results.paired_tests import LEVEL
from lampe_eval.results.ranking import COMPARABLE

DIFFERS = "†"
"""Mark of a score that is shown to differ from that of the reference method."""
TEST = f"paired test, p < {LEVEL:.2g} after Holm's correction"


@dataclass(frozen=True)
class TableComparison:
    """Comparison of the methods of a table.

    Attributes:
        cells: cells of the methods.
        reference: label of the method that others are compared with.
        pairs: differences of single cells, with `method_differences.PAIR_COLUMNS`.
        unit: name of an independent unit.
    """

    cells: ComparableCells
    reference: str
    pairs: pd.DataFrame
    unit: str

    @classmethod
    def of_scores(
        cls, gathered: GatheredRuns, key: tuple[Any, ...], scores: pd.DataFrame
    ) -> "TableComparison":
        """Return the comparison of labelled scores whose `ranking.COMPARABLE` have these values."""
        pairs = gathered.pairs[gathered.pairs["scope"] == CELL]
        of_scores = (pairs[COMPARABLE] == list(key)).all(axis=1)
        reference = reference_label(scores, gathered.reference)
        unit = str(scores["unit"].iloc[0])
        return cls(gathered.comparable[key], reference, pairs[of_scores], unit)

    def best(self, scores: Mapping[str, float], weights: Mapping[StratumKey, float]) -> set[str]:
        """Return the labels with the best score, or not shown to be worse; none of a single one."""
        return self.cells.not_shown_worse(scores, weights) if len(scores) > 1 else set()

    def differing(
        self, scores: Mapping[str, float], weights: Mapping[StratumKey, float]
    ) -> set[str]:
        """Return the labels whose scores are shown to differ from the reference's."""
        if self.reference not in scores:
            return set()
        return self.cells.shown_different(scores, self.reference, weights)

    def power_notes(self, tasks: Sequence[str]) -> list[str]:
        """Return in one line which differences the cells of tasks can show; none if unknown."""
        pairs = self.pairs[self.pairs["task"].isin(tasks) & self.pairs["p_value"].notna()]
        if pairs.empty:
            return []
        # Half of the differences need no more than the median.
        numbers = pairs[["units", "detectable", "units_needed"]].fillna(math.inf).median()
        units, detectable, needed = map(float, numbers)
        unit = str(pairs["unit"].iloc[0])
        useful = USEFUL[unit]
        if math.isinf(detectable):
            shown = f"no difference from {self.reference}"
        else:
            shown = f"differences of {detectable:.3g} {unit} or more from {self.reference}"
        methods = pairs["method"].nunique()
        note = (
            f"{units:.0f} {self.unit}s can show {shown} ({POWER:.0%} power, p < {LEVEL:.2g} "
            f"corrected for {methods} method{'s' if methods > 1 else ''})"
        )
        if detectable > useful and math.isfinite(needed):
            note += f"; {needed:.0f} would show {useful:g}"
        return [note]
