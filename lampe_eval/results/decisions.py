"""Decisions of a run that stops by rule: which methods are better or worse than the reference.

A decision is about one model, one benchmark and one length: the difference between a method and the
reference, averaged over the benchmark's tasks as its tables are. Every task has as many samples in
it, in the seeded order in which samples run. A method is decided when the confidence sequence of
its difference lies above 0, below 0, or within the margin: a function of stored samples alone.

Where a benchmark draws its tasks independently, each sample of each task is an observation. Else an
observation is the mean over tasks of the differences on their n-th samples, which may have parts in
common, such as a haystack; this takes more samples.

Each of the run's comparisons has an equal share of 5 %, so that a run makes a wrong decision with
probability at most 5 %, however often it looks.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, groupby
from typing import Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lampe_eval.benches import BENCHES
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.records import RunConfiguration, SampleRecord, StoppingRecord
from lampe_eval.scoring.confidence_sequences import (
    anytime_interval,
    final_log_capital,
    log_capital,
)
from lampe_eval.scoring.estimates import Array
from lampe_eval.store import Cell, Store

ALPHA = 0.05
"""Probability that any decision of a run is wrong, and that an interval of `--precision` is."""

Verdict = Literal["better", "worse", "equivalent", "undecided"]
ScoresById = Mapping[str, float]
"""Scores of a cell's samples, from 0 to 1, by the samples' ids."""


@dataclass(frozen=True)
class Decision:
    """Decision on one method at one length of a benchmark.

    Attributes:
        model: name of the model.
        bench: name of the benchmark.
        length: tokens of the cells.
        method: label of the method.
        reference: label of the method that it is compared with.
        verdict: whether the method is better or worse than the reference or equivalent to it.
        difference: mean difference in points, averaged over tasks.
        ci_low: lower end of its interval, which accounts for all looks and comparisons of the run.
        ci_high: upper end of that interval.
        n: samples of each task that both methods have.
    """

    model: str
    bench: str
    length: int
    method: str
    reference: str
    verdict: Verdict
    difference: float
    ci_low: float
    ci_high: float
    n: int


DECISION_COLUMNS = tuple(Decision.__annotations__)
"""Columns of decisions.csv."""


def seeded_order(ids: Iterable[str], seed: int) -> list[str]:
    """Return ids in a random order that depends on the seed and on nothing else.

    Files are often sorted, by length or by document, and an interval needs a random order.
    """
    return sorted(ids, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


def alpha_of_comparison(config: RunConfiguration) -> float:
    """Return the share of the run's error probability that each comparison has."""
    lengths = chain.from_iterable(by_bench.values() for by_bench in config["lengths"].values())
    comparisons = (len(config["methods"]) - 1) * sum(map(len, lengths))
    return ALPHA / comparisons


def has_independent_tasks(config: RunConfiguration, bench: str) -> bool:
    """Return whether the samples of a benchmark's tasks have nothing in common in a run."""
    protocol = Protocol.model_validate(config["protocols"][bench])
    return BENCHES[bench].has_independent_tasks(protocol)


def is_precise(scores: ScoresById, precision: float) -> bool:
    """Return whether the interval of a cell's score is narrower than +-`precision` points."""
    low, high = anytime_interval(list(scores.values()), alpha=ALPHA)
    return 100 * (high - low) < 2 * precision


def observed_differences(
    pairs_by_task: Sequence[tuple[ScoresById, ScoresById]], seed: int, *, independent_tasks: bool
) -> Array:
    """Return the differences between two methods from which their verdict follows.

    Args:
        pairs_by_task: for each task the scores of the method and of the reference.
        seed: seed of the order.
        independent_tasks: whether tasks share no part of their samples.

    Returns:
        Numbers from -1 to 1: one for each sample that both methods have, of as many samples as the
        task with the fewest has; or the averages over tasks.
    """
    by_task: list[list[float]] = []
    for scores, of_reference in pairs_by_task:
        shared = seeded_order(scores.keys() & of_reference.keys(), seed)
        by_task.append([scores[name] - of_reference[name] for name in shared])
    n = min(map(len, by_task))
    differences = np.array([of_task[:n] for of_task in by_task])
    observed: Array = differences.T.ravel() if independent_tasks else differences.mean(0)
    return observed


def verdict(differences: Array, margin: float, alpha: float) -> Verdict:
    """Return the verdict on the difference between a method and the reference.

    Args:
        differences: the method's score minus the reference's, from -1 to 1.
        margin: size below which a difference does not matter, on the same scale.
        alpha: probability of a wrong verdict, after whatever number of differences.
    """
    return cast(Verdict, _verdicts(final_log_capital, differences, margin, alpha).item())


def verdicts(differences: Array, margin: float, alpha: float) -> NDArray[np.str_]:
    """Return the verdict after each of the differences, [..., n], as `verdict` does at the end."""
    return _verdicts(log_capital, differences, margin, alpha)


def _verdicts(
    capital: Callable[[Array, float], Array | float],
    differences: Array,
    margin: float,
    alpha: float,
) -> NDArray[np.str_]:
    enough = -np.log(alpha / 2)
    # Scores from -1 to 1 as shares from 0 to 1.
    higher, lower = (1 + differences) / 2, (1 - differences) / 2
    above_zero = capital(higher, 0.5) >= enough
    below_zero = capital(lower, 0.5) >= enough
    above_margin = capital(higher, (1 - margin) / 2) >= enough
    below_margin = capital(lower, (1 - margin) / 2) >= enough
    within_margin = np.logical_and(above_margin, below_margin)
    return np.select(
        [above_zero, below_zero, within_margin], ["better", "worse", "equivalent"], "undecided"
    )


def describe_rule(rule: StoppingRecord) -> str:
    """Return in words when a run's cells stop."""
    if "precision" in rule:
        return f"a cell stops when its interval is narrower than ±{rule['precision']:g} points"
    return (
        f"a method stops when it is shown better or worse than {rule['reference']}, "
        f"or equivalent within {rule['margin']:g} points"
    )


def decisions(store: Store, rows: Mapping[Cell, Sequence[SampleRecord]]) -> pd.DataFrame:
    """Return what a run with `--decide` has decided, with `DECISION_COLUMNS`.

    Lengths at which samples are left to run are not in it.

    Args:
        store: the run.
        rows: by cell, its stored samples with their scores.
    """
    rule = store.config.get("stopping", {})
    if "reference" not in rule or "margin" not in rule:
        return pd.DataFrame(columns=list(DECISION_COLUMNS))
    reference, margin = rule["reference"], rule["margin"]
    planned = store.cells()
    found: list[Decision] = []
    for cells in _cells_decided_together(planned):
        if any(len(rows[cell]) < planned[cell] for cell in cells):
            continue
        scores = {cell: scores_by_id(rows[cell]) for cell in cells}
        for method in dict.fromkeys(cell.method for cell in cells):
            if method != reference:
                found.append(_decision(store.config, scores, method, reference, margin))
    return pd.DataFrame(map(asdict, found), columns=list(DECISION_COLUMNS))


def scores_by_id(rows: Iterable[SampleRecord]) -> dict[str, float]:
    """Return the scores of the samples that have one."""
    return {row["id"]: row["score"] for row in rows if "score" in row and "error" not in row}


def pairs_by_task(
    scores: Mapping[Cell, ScoresById], method: str, reference: str
) -> list[tuple[ScoresById, ScoresById]]:
    """Return the scores of a method and of the reference on each task.

    Args:
        scores: of one model, benchmark and length.
        method: label of the method.
        reference: label of the reference.
    """
    by_task = {cell.task: of_cell for cell, of_cell in scores.items() if cell.method == reference}
    return [
        (of_cell, by_task[cell.task]) for cell, of_cell in scores.items() if cell.method == method
    ]


def _decision(
    config: RunConfiguration,
    scores: Mapping[Cell, ScoresById],
    method: str,
    reference: str,
    margin: float,
) -> Decision:
    cell = next(iter(scores))
    pairs = pairs_by_task(scores, method, reference)
    independent = has_independent_tasks(config, cell.bench)
    differences = observed_differences(pairs, config["seed"], independent_tasks=independent)
    alpha = alpha_of_comparison(config)
    low, high = anytime_interval(differences, -1, 1, alpha)
    direction = 1 if BENCHES[cell.bench].higher_is_better else -1
    return Decision(
        cell.model,
        cell.bench,
        cell.length,
        method,
        reference,
        verdict(direction * differences, margin / 100, alpha),
        100 * float(differences.mean()) if len(differences) else float("nan"),
        100 * low,
        100 * high,
        len(differences) // (len(pairs) if independent else 1),
    )


def _cells_decided_together(cells: Iterable[Cell]) -> Iterator[list[Cell]]:
    """Yield the cells of each model, benchmark and length."""
    key = lambda cell: (cell.model, cell.bench, cell.length)  # noqa: E731
    for _, together in groupby(sorted(cells, key=key), key):
        yield list(together)
