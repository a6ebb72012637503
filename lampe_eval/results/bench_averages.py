"""Averages that a benchmark reports over its tasks at each length, and over lengths.

An average stands only where every cell that it is made of has all its samples.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from lampe_eval.benches.bench import Bench, Score
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.results.ranking import complete_cells

WEIGHT_PROBE = 100.0
"""Percent added to one score to find its weight: so much that the benchmarks' rounding of averages
to one or two decimals does not matter."""


def bench_averages(
    bench: Bench, protocol: Protocol, rows: pd.DataFrame
) -> Iterator[dict[str, Any]]:
    """Yield the averages of one method.

    Args:
        bench: the benchmark.
        protocol: the protocol of the run.
        rows: the method's cells, with the columns of `cell_scores.SCORE_COLUMNS` and `details`.

    Yields:
        Dictionaries with `name` and `value`, and `length`, `stderr` and `weights` (of tasks) where
        the average has them.
    """
    main_averages: dict[int, float] = {}
    for length, cells in rows.groupby("length"):
        if not complete_cells(cells).all():
            continue
        scores = _scores_by_task(cells)
        averages = bench.task_averages(scores, protocol)
        if averages:
            # the first average is the one that a benchmark reports over lengths
            main_averages[int(str(length))] = next(iter(averages.values()))
        for name, value in averages.items():
            weights = _weights(bench, protocol, scores, name, value)
            stderr = _stderr(scores, weights)
            average = {"length": length, "name": name, "value": value, "stderr": stderr}
            yield {**average, "weights": weights}
    # an incomplete length would make an average over lengths incomparable
    if 1 < len(main_averages) == rows["length"].nunique():
        for name, value in bench.length_averages(main_averages).items():
            yield {"name": name, "value": value}


def _scores_by_task(cells: pd.DataFrame) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    columns = cells[["task", "score", "stderr", "n", "details"]]
    for task, value, stderr, n, details in columns.itertuples(index=False):
        scores[str(task)] = Score(value, stderr, n, details)
    return scores


def _weights(
    bench: Bench, protocol: Protocol, scores: Mapping[str, Score], name: str, average: float
) -> dict[str, float]:
    """Return the weight of each task that an average is computed from.

    There is none for a number that is not computed from the tasks' scores.
    """
    weights: dict[str, float] = {}
    for task, score in scores.items():
        # Averages are linear, so that the change of one score shows its weight.
        changed = {**scores, task: replace(score, value=score.value + WEIGHT_PROBE)}
        difference = bench.task_averages(changed, protocol)[name] - average
        if difference:
            weights[task] = difference / WEIGHT_PROBE
    return weights


def _stderr(scores: Mapping[str, Score], weights: Mapping[str, float]) -> float:
    """Return the standard error of an average of independent tasks; NaN without weights."""
    if not weights:
        return math.nan
    return math.hypot(*(weight * scores[task].stderr for task, weight in weights.items()))
