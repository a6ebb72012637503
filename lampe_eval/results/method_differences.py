"""Differences of methods from a reference method, and which methods are not shown to be worse.

The question is set before the results are seen: every method against the reference. For each
benchmark there is one pooled test beyond the model's window and one within it, over all tasks and
lengths; the tests of single cells are details of these.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pandas as pd

from lampe_eval.method_specs import choose_reference
from lampe_eval.results.all_pairs import corrected_p_values
from lampe_eval.results.bench_averages import StratumKey
from lampe_eval.results.paired_tests import (
    LEVEL,
    CellSamples,
    PairedTest,
    UnitDifferences,
    holm,
    paired_test,
    pool,
    unit_differences,
)
from lampe_eval.results.ranking import COMPARABLE, UNSCORED, complete_cells, higher_is_better
from lampe_eval.store import Cell

BEYOND = "beyond the window"
WITHIN = "within the window"
CELL = "cell"
"""Scopes of a difference: all cells longer than the window, all others, or a single one."""
COMPARISON_COLUMNS = (*COMPARABLE, "scope", "task", "length")
"""Columns that tell families of comparisons apart; p-values are corrected within each."""
PAIR_COLUMNS = (
    *COMPARISON_COLUMNS,
    "reference",
    "method",
    "n",
    "units",
    "unpaired",
    "difference",
    "unit",
    "ci_low",
    "ci_high",
    "p_value",
    "p_value_holm",
)
"""Columns of pairs.csv.

`difference` is the method's score minus the reference's on the `n` samples that both have, in
points, or by how many percent its perplexity is higher; its 95 % interval reaches from `ci_low` to
`ci_high`. `units` are independent units; `unpaired` counts the samples of the cells beyond `n`.
`p_value_holm` is empty where cells stop by rule.
"""
SMALLEST_P = 1e-6
"""Smaller p-values are given as this: so many decimals are written, and none is 0."""


@dataclass(frozen=True)
class ComparableCells:
    """Cells that may be compared: they agree in all of `COMPARABLE`.

    Attributes:
        samples: samples of each method's cells by label and stratum.
        planned: number of planned samples of these.
        complete: cells all of whose samples are scored.
        higher_is_better: whether a higher score is better.
        stopping: rule by which the cells stop, in words; empty where all samples run. The tests
            here then take as fixed what depends on the scores.
    """

    samples: Mapping[tuple[str, StratumKey], CellSamples]
    planned: Mapping[tuple[str, StratumKey], int]
    complete: frozenset[tuple[str, StratumKey]]
    higher_is_better: bool
    stopping: str = ""
    _differences: dict[Any, UnitDifferences | None] = field(default_factory=dict, repr=False)

    @classmethod
    def of_scores(
        cls, rows: pd.DataFrame, cell_samples: Mapping[tuple[str, Cell], CellSamples]
    ) -> "ComparableCells":
        """Return the cells of labelled scores of one benchmark."""
        samples: dict[tuple[str, StratumKey], CellSamples] = {}
        planned: dict[tuple[str, StratumKey], int] = {}
        complete: set[tuple[str, StratumKey]] = set()
        for row, is_complete in zip(rows.to_dict("records"), complete_cells(rows), strict=True):
            key = (row["label"], (row["task"], row["length"]))
            cell = Cell(row["model"], row["method"], row["bench"], row["task"], row["length"])
            planned[key] = row["n"] + sum(row[column] for column in UNSCORED)
            if is_complete:
                complete.add(key)
            if (row["run"], cell) in cell_samples:
                samples[key] = cell_samples[row["run"], cell]
        stopping = str(rows["stopping"].iloc[0])
        return cls(samples, planned, frozenset(complete), higher_is_better(rows), stopping)

    def difference(self, label: str, reference: str, stratum: StratumKey) -> UnitDifferences | None:
        """Return the difference of a method from another one in a cell.

        There is none where they share no sample, and for scores that are not on their scale.
        """
        key = (label, reference, stratum)
        if key not in self._differences:
            of_method = self.samples.get((label, stratum))
            of_reference = self.samples.get((reference, stratum))
            found = None
            if of_method and of_reference and _on_one_scale(of_method, of_reference):
                task, length = stratum
                found = unit_differences(
                    of_method,
                    of_reference,
                    is_perplexity=of_reference.estimate.scale == "log",
                    task=task,
                    length=length,
                )
            self._differences[key] = found
        return self._differences[key]

    def pooled(
        self, label: str, reference: str, weights: Mapping[StratumKey, float]
    ) -> tuple[UnitDifferences, int] | None:
        """Return the weighted difference over cells, and how many of their samples are unpaired.

        There is none where no cell is comparable, and over tasks of different scales.

        Args:
            label: the method.
            reference: the method that it is compared with.
            weights: weight of each cell; they count relative to those that both methods have.
        """
        strata: list[UnitDifferences] = []
        shares: list[float] = []
        unpaired = 0
        for stratum, weight in weights.items():
            found = self.difference(label, reference, stratum)
            if found is None:
                continue
            strata.append(found)
            shares.append(weight)
            # runs may have planned different numbers of samples of the cell
            keys = [(label, stratum), (reference, stratum)]
            unpaired += max(self.planned[key] for key in keys) - found.n
        if len({found.is_perplexity for found in strata}) != 1:
            return None
        return pool(strata, [share / math.fsum(shares) for share in shares]), unpaired

    def not_shown_worse(
        self, labels: Iterable[str], weights: Mapping[StratumKey, float]
    ) -> set[str]:
        """Return the labels than which no other one is shown to be better.

        Args:
            labels: competing labels.
            weights: weight of each cell in their scores.
        """
        competing = list(labels)
        return set(competing) - {worse for _, worse in self.shown_better(competing, weights)}

    def shown_better(
        self, labels: Iterable[str], weights: Mapping[StratumKey, float]
    ) -> set[tuple[str, str]]:
        """Return the pairs of labels of which the first is shown to be better than the second.

        The probability that any pair is wrong is 5 %, for all pairs of the labels together.

        Args:
            labels: competing labels.
            weights: weight of each cell in their scores.
        """
        pairs: list[tuple[str, str]] = []
        differences: list[UnitDifferences] = []
        for first, second in combinations(labels, 2):
            found = self.pooled(first, second, weights)
            if found:
                pairs.append((first, second))
                differences.append(found[0])
        better: set[tuple[str, str]] = set()
        p_values = corrected_p_values(differences)
        for (first, second), units, p_value in zip(pairs, differences, p_values, strict=True):
            if p_value < LEVEL:
                is_first_better = (units.difference > 0) == self.higher_is_better
                better.add((first, second) if is_first_better else (second, first))
        return better

    def shown_different(
        self, labels: Iterable[str], reference: str, weights: Mapping[StratumKey, float]
    ) -> set[str]:
        """Return the labels whose scores are shown to differ from that of one of them."""
        others = [label for label in labels if label != reference]
        p_values: list[float] = []
        for label in others:
            found = self.pooled(label, reference, weights)
            test = found and paired_test(found[0])
            p_values.append(test.p_value if test else math.nan)
        corrected = zip(others, holm(p_values), strict=True)
        return {label for label, p_value in corrected if p_value < LEVEL}


def comparable_cells(
    labelled: pd.DataFrame, cell_samples: Mapping[tuple[str, Cell], CellSamples]
) -> dict[tuple[Any, ...], ComparableCells]:
    """Return cells that may be compared by their values of `COMPARABLE`.

    Args:
        labelled: scores with a column `label`, which tells methods, and runs, apart.
        cell_samples: by run and cell, what the samples contribute to its score.
    """
    cells: dict[tuple[Any, ...], ComparableCells] = {}
    for key, rows in labelled.groupby(COMPARABLE, sort=False):
        cells[key] = ComparableCells.of_scores(rows, cell_samples)
    return cells


def method_differences(
    labelled: pd.DataFrame,
    cells: Mapping[tuple[Any, ...], ComparableCells],
    reference: str | None,
) -> pd.DataFrame:
    """Return the differences of all methods from the reference, pooled first, then by cell.

    The table has `PAIR_COLUMNS` and the column `test`, which is None where there is no test.

    Args:
        labelled: scores with a column `label`, which tells methods, and runs, apart.
        cells: what `comparable_cells` returns of them.
        reference: label of the reference method; where a group of cells lacks it, or for None,
            `original` or the first method.
    """
    records: list[dict[str, Any]] = []
    for key, rows in labelled.groupby(COMPARABLE, sort=False):
        label = reference_label(rows, reference)
        others = [other for other in dict.fromkeys(rows["label"]) if other != label]
        for scope, strata in _scopes(rows):
            about = {**dict(zip(COMPARABLE, key, strict=True)), **scope, "reference": label}
            # A cell that lacks samples would change a mean of cells, so it counts alone only.
            complete_only = scope["scope"] != CELL
            for record in _family(cells[key], others, label, strata, complete_only=complete_only):
                records.append({**about, **record})
    frame = pd.DataFrame(records, columns=[*PAIR_COLUMNS, "test"])
    # Int64 holds missing values: a pooled difference has no length
    return frame.astype({"length": "Int64"})


def reference_label(rows: pd.DataFrame, reference: str | None) -> str:
    """Return the label in these scores that the others are compared with.

    Args:
        rows: labelled scores that may be compared.
        reference: label of the method; where the scores lack it, or for None, `original` or the
            first method.
    """
    method = choose_reference(reference, list(dict.fromkeys(rows["method"])))
    # of several runs the first that has it
    return str(rows.loc[rows["method"] == method, "label"].iloc[0])


def _on_one_scale(first: CellSamples, second: CellSamples) -> bool:
    estimates = (first.estimate, second.estimate)
    return all(each.is_on_scale and each.scale == estimates[0].scale for each in estimates)


def _scopes(rows: pd.DataFrame) -> Iterator[tuple[dict[str, Any], list[StratumKey]]]:
    """Yield what each family of comparisons is of, and its cells."""
    beyond = rows["length"] > rows["window"]
    for scope, of_scope in ((BEYOND, rows[beyond]), (WITHIN, rows[~beyond])):
        yield {"scope": scope}, _strata(of_scope)
    for task, length in _strata(rows):
        yield {"scope": CELL, "task": task, "length": length}, [(task, length)]


def _strata(rows: pd.DataFrame) -> list[StratumKey]:
    strata = rows[["task", "length"]].drop_duplicates()
    return [(str(task), int(length)) for task, length in strata.itertuples(index=False)]


def _family(
    cells: ComparableCells,
    labels: Sequence[str],
    reference: str,
    strata: Sequence[StratumKey],
    *,
    complete_only: bool,
) -> list[dict[str, Any]]:
    """Return a record for each method that shares samples with the reference."""
    found: list[tuple[str, UnitDifferences, int, PairedTest | None]] = []
    for label in labels:
        weights: dict[StratumKey, float] = {}
        for stratum in strata:
            if not complete_only or {(label, stratum), (reference, stratum)} <= cells.complete:
                weights[stratum] = 1.0
        pooled = cells.pooled(label, reference, weights)
        if pooled:
            units, unpaired = pooled
            test = paired_test(units)
            found.append((label, units, unpaired, test))
    corrected = holm([test.p_value if test else math.nan for *_, test in found])
    if cells.stopping:
        # nothing counts as shown by tests of a number of samples that was not fixed before
        corrected = [math.nan] * len(found)
    records: list[dict[str, Any]] = []
    for (label, units, unpaired, test), p_value_holm in zip(found, corrected, strict=True):
        counts = {"n": units.n, "units": units.independent_units, "unpaired": unpaired}
        numbers = _numbers(units, test, p_value_holm)
        records.append({"method": label, **counts, **numbers, "test": test})
    return records


def _numbers(
    units: UnitDifferences, test: PairedTest | None, p_value_holm: float
) -> dict[str, Any]:
    """Return the columns of a difference in the unit that people read."""
    numbers: dict[str, Any] = {
        "difference": readable(units.difference, units.is_perplexity),
        "unit": "%" if units.is_perplexity else "points",
    }
    if test is None:
        return numbers
    low, high = test.interval()
    return {
        **numbers,
        "ci_low": readable(low, units.is_perplexity),
        "ci_high": readable(high, units.is_perplexity),
        "p_value": max(SMALLEST_P, test.p_value),
        # NaN stays NaN only as the first of the two
        "p_value_holm": max(p_value_holm, SMALLEST_P),
    }


def readable(difference: float, is_perplexity: bool) -> float:
    """Return a difference in points, or by how many percent a perplexity is higher."""
    if not is_perplexity:
        return 100 * difference
    try:
        return 100 * math.expm1(difference)
    except OverflowError:
        return math.inf
