"""Table of differences between methods: a row for every two that were run on the same cell."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from lampe_eval.results.paired_tests import CellSamples, compare_methods
from lampe_eval.results.ranking import UNSCORED
from lampe_eval.store import Cell

COMPARED_WITHIN = ["settings", "model", "window", "protocol", "bench", "task", "length"]
"""Columns that two methods must agree in; p-values are corrected for all pairs that do."""
PAIR_COLUMNS = (
    *COMPARED_WITHIN,
    "first",
    "second",
    "n",
    "unpaired",
    "difference",
    "ci_low",
    "ci_high",
    "p_value",
    "p_value_holm",
)
"""Columns of pairs.csv.

`difference` is the first method's score minus the second's on the `n` samples that both have, with
a 95 % interval from `ci_low` to `ci_high`; `unpaired` counts the samples of the cell beyond these.
"""


def method_differences(
    labelled: pd.DataFrame, cell_samples: Mapping[tuple[str, Cell], CellSamples]
) -> pd.DataFrame:
    """Return the differences between all methods that were run on the same cell.

    Args:
        labelled: scores with a column `label`, which tells methods, and runs, apart.
        cell_samples: by run and cell, what the samples contribute to its score.
    """
    records: list[dict[str, Any]] = []
    for key, rows in labelled.groupby(COMPARED_WITHIN, sort=False):
        cell_key = dict(zip(COMPARED_WITHIN, key, strict=True))
        # Samples that failed or are missing in one of the runs count as unpaired.
        planned = rows[["n", *UNSCORED]].sum(axis=1)
        planned_samples = dict(zip(rows["label"], planned, strict=True))
        for pair in compare_methods(_samples_by_label(rows, cell_samples)):
            # runs may have planned different numbers of samples of the cell
            most = max(planned_samples[pair.first], planned_samples[pair.second])
            records.append({**cell_key, **asdict(pair), "unpaired": most - pair.n})
    return pd.DataFrame(records, columns=list(PAIR_COLUMNS))


def _samples_by_label(
    rows: pd.DataFrame, cell_samples: Mapping[tuple[str, Cell], CellSamples]
) -> dict[str, CellSamples]:
    """Return the samples of each method that has any."""
    samples: dict[str, CellSamples] = {}
    for row in rows.to_dict("records"):
        cell = Cell(row["model"], row["method"], row["bench"], row["task"], row["length"])
        if (row["run"], cell) in cell_samples:
            samples[row["label"]] = cell_samples[row["run"], cell]
    return samples
