"""Comparison of the methods of a table: which are best, which differ, what samples can show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lampe_eval.results.bench_averages import StratumKey
from lampe_eval.results.detectable import (
    MAX_UNITS,
    POWER,
    USEFUL_PERCENT,
    USEFUL_POINTS,
    detectable_difference,
    units_needed,
)
from lampe_eval.results.gathered_runs import GatheredRuns
from lampe_eval.results.method_differences import (
    ComparableCells,
    readable,
    reference_label,
)
from lampe_eval.results.paired_tests import LEVEL, BoundedTest, PairedTest, paired_test
from lampe_eval.scoring.estimates import ONE_DOCUMENT

DIFFERS = "†"
"""Mark of a score that is shown to differ from that of the reference method."""
TEST = f"paired test, p < {LEVEL:.2g} after Holm's correction"
TEST_OF_ALL = f"paired tests, p < {LEVEL:.2g} corrected for all pairs"


@dataclass(frozen=True)
class TableComparison:
    """Comparison of the methods of a table.

    Attributes:
        cells: cells of the methods.
        reference: label of the method that others are compared with.
        unit: name of an independent unit.
    """

    cells: ComparableCells
    reference: str
    unit: str

    @classmethod
    def of_scores(
        cls, gathered: GatheredRuns, key: tuple[Any, ...], scores: pd.DataFrame
    ) -> "TableComparison":
        """Return the comparison of labelled scores whose `ranking.COMPARABLE` have these values."""
        reference = reference_label(scores, gathered.reference)
        return cls(gathered.comparable[key], reference, str(scores["unit"].iloc[0]))

    def best(self, scores: Mapping[str, float], weights: Mapping[StratumKey, float]) -> set[str]:
        """Return the labels not shown to be worse than another one; none of a single one.

        Nor is there any where cells stop by rule, since the tests are of a fixed number of samples.
        """
        if len(scores) < 2 or self.cells.stopping:
            return set()
        return self.cells.not_shown_worse(scores, weights)

    def differing(
        self, scores: Mapping[str, float], weights: Mapping[StratumKey, float]
    ) -> set[str]:
        """Return the labels whose scores are shown to differ from the reference's."""
        if self.reference not in scores or self.cells.stopping:
            return set()
        return self.cells.shown_different(scores, self.reference, weights)

    def power_notes(self, tasks: Sequence[str]) -> list[str]:
        """Return in one line which differences the cells of tasks can show; none if unknown."""
        if self.cells.stopping:
            return []
        tests: list[PairedTest] = []
        methods: set[str] = set()
        for label, (task, length) in self.cells.samples:
            found = self.cells.difference(label, self.reference, (task, length))
            test = paired_test(found) if found and task in tasks else None
            if test and label != self.reference:
                methods.add(label)
                tests.append(test)
        if not tests:
            return []
        units = "samples of one document" if self.unit == ONE_DOCUMENT else f"{self.unit}s"
        return [power_note(tests, len(methods), self.reference, units)]


def power_note(tests: Sequence[PairedTest], comparisons: int, reference: str, units: str) -> str:
    """Return in one line which differences tests of the same kind can show.

    Args:
        tests: the tests, of which there is at least one.
        comparisons: number of p-values that are corrected together.
        reference: label of the method that others are compared with.
        units: name of the independent units, in the plural.
    """
    # Half of the pairs spread no more than the median.
    test = sorted(tests, key=lambda test: test.variance)[len(tests) // 2]
    is_perplexity = not isinstance(test, BoundedTest)
    unit, useful = ("%", USEFUL_PERCENT) if is_perplexity else ("points", USEFUL_POINTS)
    level = LEVEL / comparisons
    detectable = readable(detectable_difference(test, level), is_perplexity)
    shown = f"no difference from {reference}"
    if math.isfinite(detectable):
        shown = f"differences of {detectable:.2g} {unit} or more from {reference}"
    methods = "method" if comparisons == 1 else "methods"
    note = (
        f"{test.n:.0f} {units} can show {shown} ({100 * POWER:.0f} % power, "
        f"p < {LEVEL:.2g} corrected for {comparisons} {methods})"
    )
    if detectable > useful:
        needed = units_needed(test, level)
        note += f"; {needed or f'more than {MAX_UNITS}'} {units} would show {useful:g} {unit}"
    return note
