"""Averages that a benchmark reports over its tasks at each length, and over lengths.

An average stands only where every cell that it is made of has all its samples. Over tasks its
interval is that of independent proportions; over lengths it is not narrower than those of the
lengths, since the samples of a task ask the same questions at every length.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from lampe_eval.benches.bench import Bench, Score
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.results.ranking import complete_cells
from lampe_eval.scoring.intervals import (
    UNKNOWN,
    Interval,
    Proportion,
    average,
    percent_interval,
    weighted_ends,
)

WEIGHT_PROBE = 100.0
"""Percent added to one score to find its weight: so much that the benchmarks' rounding of averages
to one or two decimals does not matter."""
MAX_WEIGHT_ERROR = 0.01
"""Most that the weights of an average may miss a sum of 1 by, for the same rounding."""

StratumKey = tuple[str, int]
"""Task and length of a cell."""
Part = tuple[str, str]
"""Name of a task, and of one of its details; the latter is empty for the task's score."""


def bench_averages(
    bench: Bench, protocol: Protocol, rows: pd.DataFrame
) -> Iterator[dict[str, Any]]:
    """Yield the averages of one method.

    Args:
        bench: the benchmark.
        protocol: the protocol of the run.
        rows: the method's cells, with the columns of `cell_scores.ScoredRun.scores`.

    Yields:
        Dictionaries with `name`, `value`, `ci_low` and `ci_high`, and `length`, `stderr` and
        `weights` (of cells, by task and length) where the average is one of scores.
    """
    main_averages: dict[int, dict[str, Any]] = {}
    for length, cells in rows.groupby("length"):
        if not complete_cells(cells).all():
            continue
        over_tasks = list(_averages_over_tasks(bench, protocol, cells, int(str(length))))
        if over_tasks:
            # the first average is the one that a benchmark reports over lengths
            main_averages[int(str(length))] = over_tasks[0]
        yield from over_tasks
    # an incomplete length would make an average over lengths incomparable
    if 1 < len(main_averages) == rows["length"].nunique():
        yield from _averages_over_lengths(bench, main_averages)


def _averages_over_tasks(
    bench: Bench, protocol: Protocol, cells: pd.DataFrame, length: int
) -> Iterator[dict[str, Any]]:
    scores = _scores_by_task(cells)
    averages = bench.task_averages(scores, protocol)
    if not averages:
        return
    proportions = _proportions(cells)
    # Averages are linear, so that the change of one score shows its weight.
    raised = {part: bench.task_averages(_raised(scores, part), protocol) for part in proportions}
    for name, value in averages.items():
        weights = {part: (raised[part][name] - value) / WEIGHT_PROBE for part in proportions}
        low, high = _interval(weights, proportions)
        stderr = _stderr(weights, scores)
        numbers = {"value": value, "stderr": stderr, "ci_low": low, "ci_high": high}
        of_cells = _cell_weights(weights, length)
        yield {"length": length, "name": name, **numbers, "weights": of_cells}


def _averages_over_lengths(
    bench: Bench, averages: Mapping[int, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the numbers over lengths of an average over tasks, given by length."""
    values = {length: average["value"] for length, average in averages.items()}
    raised = {
        length: bench.length_averages({**values, length: value + WEIGHT_PROBE})
        for length, value in values.items()
    }
    intervals = [Interval(each["ci_low"], each["ci_high"]) for each in averages.values()]
    for name, value in bench.length_averages(values).items():
        weights = [(raised[length][name] - value) / WEIGHT_PROBE for length in values]
        low, high = UNKNOWN
        of_cells: dict[StratumKey, float] = {}
        if _is_mean(weights):
            low, high = weighted_ends(weights, intervals)
            for weight, average in zip(weights, averages.values(), strict=True):
                of_cells |= {cell: weight * part for cell, part in average["weights"].items()}
        yield {"name": name, "value": value, "ci_low": low, "ci_high": high, "weights": of_cells}


def _scores_by_task(cells: pd.DataFrame) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    columns = cells[["task", "score", "stderr", "n", "details"]]
    for task, value, stderr, n, details in columns.itertuples(index=False):
        scores[str(task)] = Score(value, stderr, n, details)
    return scores


def _proportions(cells: pd.DataFrame) -> dict[Part, Proportion | None]:
    """Return the proportions that averages may be made of; None for what is none, a perplexity."""
    proportions: dict[Part, Proportion | None] = {}
    columns = cells[["task", "proportion", "details", "detail_estimates"]]
    for task, proportion, details, estimates in columns.itertuples(index=False):
        proportions[task, ""] = proportion
        # a metric of one part has no details besides the score
        for name in details:
            if name in estimates:
                proportions[task, name] = estimates[name].proportion
    return proportions


def _raised(scores: Mapping[str, Score], part: Part) -> dict[str, Score]:
    """Return the scores with one of them, or one of the details, raised by the probe."""
    task, detail = part
    score = scores[task]
    if not detail:
        return {**scores, task: replace(score, value=score.value + WEIGHT_PROBE)}
    details = {**score.details, detail: score.details[detail] + WEIGHT_PROBE}
    return {**scores, task: replace(score, details=details)}


def _interval(
    weights: Mapping[Part, float], proportions: Mapping[Part, Proportion | None]
) -> Interval:
    """Return the interval of an average of independent tasks.

    It is unknown for a number that is not such an average.
    """
    used: list[float] = []
    averaged: list[Proportion] = []
    for part, proportion in proportions.items():
        if weights[part]:
            if proportion is None:
                return UNKNOWN
            used.append(weights[part])
            averaged.append(proportion)
    return percent_interval(average(used, averaged)) if _is_mean(used) else UNKNOWN


def _is_mean(weights: list[float]) -> bool:
    return abs(math.fsum(weights) - 1) < MAX_WEIGHT_ERROR


def _cell_weights(weights: Mapping[Part, float], length: int) -> dict[StratumKey, float]:
    """Return the weight of each cell's score; none for an average of anything else."""
    if any(weight and detail for (_, detail), weight in weights.items()):
        return {}
    return {(task, length): weight for (task, _), weight in weights.items() if weight}


def _stderr(weights: Mapping[Part, float], scores: Mapping[str, Score]) -> float:
    """Return the standard error of an average of independent tasks.

    There is none for a number that is not computed from the tasks' scores.
    """
    errors = [
        weights[task, ""] * score.stderr for task, score in scores.items() if weights[task, ""]
    ]
    return math.hypot(*errors) if errors else math.nan
