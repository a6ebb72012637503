"""What a bench reports over its tasks at each length, and over lengths; of complete cells alone."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from lampe_eval.benches.bench import Bench, Score
from lampe_eval.prompts.protocol import Protocol

STEP = 100.0
"""So large that what a benchmark rounds does not matter."""


def bench_averages(
    bench: Bench, protocol: Protocol, rows: pd.DataFrame
) -> Iterator[dict[str, Any]]:
    """The averages of one method, its cells given: length, name, value and standard error, as far as each has them."""
    firsts: dict[int, float] = {}
    for length, at in rows.groupby("length"):
        if (at["n"] > 0).all() and not at[["missing", "errors", "skipped"]].any(axis=None):
            cells: Any = at[["task", "score", "stderr", "n", "details"]].itertuples(index=False)
            scores = {task: Score(*numbers) for task, *numbers in cells}
            found = bench.task_averages(scores, protocol)
            firsts |= {int(str(length)): value for value in list(found.values())[:1]}
            for name, value in found.items():
                stderr = _stderr(bench, protocol, scores, name)
                yield {"length": length, "name": name, "value": value, "stderr": stderr}
    if 1 < len(firsts) == rows["length"].nunique():
        yield from (
            {"name": name, "value": value} for name, value in bench.length_averages(firsts).items()
        )


def _stderr(bench: Bench, protocol: Protocol, scores: Mapping[str, Score], name: str) -> float:
    """Standard error of an average of independent tasks; NaN where it is not made of their scores.

    An average is linear, so that a step of a task's score shows its weight.
    """
    value, weights = bench.task_averages(scores, protocol)[name], {}
    for task, score in scores.items():
        moved = {**scores, task: replace(score, value=score.value + STEP)}
        weights[task] = (bench.task_averages(moved, protocol)[name] - value) / STEP
    if not any(weights.values()):
        return math.nan
    return math.hypot(*(weight * scores[task].stderr for task, weight in weights.items() if weight))
