"""Differences between methods: one row for every two that are in the same cell of a table, of one run or of several."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from lampe_eval.results.paired_tests import CellSamples, compare_methods
from lampe_eval.store import Cell

CELL = ["settings", "model", "window", "protocol", "bench", "task", "length"]
"""What methods have in common that are compared; p-values are corrected for the pairs of one such cell."""
COLUMNS = (
    *CELL,
    "first",
    "second",
    "n",
    "lacking",
    "difference",
    "low",
    "high",
    "p",
    "p_corrected",
)


def method_differences(
    labelled: pd.DataFrame, sampled: Mapping[tuple[str, Cell], CellSamples]
) -> pd.DataFrame:
    """First less second on the ``n`` samples that both have; ``lacking`` is how many of the cell these are too few.

    Args:
        labelled: scores, with a column ``label`` that tells methods, and runs, apart.
        sampled: what the samples of a run's cells give.
    """
    records: list[dict[str, Any]] = []
    for key, rows in labelled.groupby(CELL, sort=False):
        samples = dict(
            zip(rows["label"], rows[["n", "missing", "errors", "skipped"]].sum(axis=1), strict=True)
        )
        for pair in compare_methods(dict(_sampled(rows, sampled))):
            lacking = max(samples[pair.first], samples[pair.second]) - pair.n
            records.append(
                {**dict(zip(CELL, key, strict=True)), **asdict(pair), "lacking": lacking}
            )
    return pd.DataFrame(records, columns=list(COLUMNS))


def _sampled(
    rows: pd.DataFrame, sampled: Mapping[tuple[str, Cell], CellSamples]
) -> Iterator[tuple[str, CellSamples]]:
    """By label, of those that have any sample."""
    for row in rows.to_dict("records"):
        cell = Cell(*(row[name] for name in ("model", "method", "bench", "task", "length")))
        if (row["run"], cell) in sampled:
            yield row["label"], sampled[row["run"], cell]
