"""Samples that stopping rules save, and how often they are wrong, by simulation.

    python -m benchmarks.sequential [REPEATS] [RUN ...]

The first tables are of simulated runs with 4 methods at 5 lengths (15 comparisons): of one task
with 500 samples, and of 13 independent tasks with 500 each, as in RULER. "one right" is the share
of samples that only one of two methods answers right. "peeking" stops as soon as an ordinary
interval, also corrected for 15 comparisons, excludes 0 or lies within the margin.

Each RUN is a folder whose stored samples are replayed: what `--decide` would have done.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from lampe_eval.benches import BENCHES
from lampe_eval.results.cell_scores import score_run
from lampe_eval.results.decisions import (
    ALPHA,
    has_independent_tasks,
    is_precise,
    observed_differences,
    pairs_by_task,
    scores_by_id,
    verdicts,
)
from lampe_eval.running.rounds import ROUND
from lampe_eval.scoring.confidence_sequences import anytime_interval
from lampe_eval.scoring.estimates import Array
from lampe_eval.store import Store

SAMPLES = 500
COMPARISONS = 15
MARGIN = 0.05
DIFFERENCES = ((0, 0), (0, 5), (0, 20), (5, 20), (10, 20), (20, 20), (40, 40))
"""True differences in points, each with the percentage of samples that one method gets right."""
SCORES = (50, 80, 90, 95, 99, 100)
BATCH = 10
"""Simulated comparisons in memory at a time."""

Verdicts = NDArray[np.str_]
Rule = Callable[[Array, float, float], Verdicts]
"""Function from differences, margin and alpha to the verdict after each difference."""


def main(repeats: int = 1000, runs: Sequence[Path] = ()) -> None:
    """Print the tables.

    Args:
        repeats: simulated comparisons in each row.
        runs: folders of runs to replay.
    """
    console = Console()
    for tasks in (1, 13):
        console.print(decision_table(tasks, repeats))
    console.print(precision_table(max(1, repeats // 20)))
    for run in runs:
        console.print(replay_table(run))


def decision_table(tasks: int, repeats: int) -> Table:
    """Return what `--decide` and peeking do by true difference."""
    table = Table(title=f"--decide, {tasks} tasks x {SAMPLES}, margin 5", title_justify="left")
    columns = ("true difference", "one right", "samples used", "decided", "wrong")
    for column in (*columns, "peeking: used", "wrong"):
        table.add_column(column, justify="right")
    for difference, one_right in DIFFERENCES:
        shares = (difference / 100, one_right / 100)
        used, decided, wrong = simulated(tasks, repeats, *shares, samples=SAMPLES)
        of_peeking, _, peeking_wrong = simulated(
            tasks, repeats, *shares, peeking_verdicts, samples=SAMPLES
        )
        table.add_row(
            str(difference),
            f"{one_right}%",
            f"{used:.0%}",
            f"{decided:.0%}",
            f"{wrong:.1%}",
            f"{of_peeking:.0%}",
            f"{peeking_wrong:.1%}",
        )
    return table


def simulated(
    tasks: int,
    repeats: int,
    difference: float,
    one_right: float,
    rule: Rule = verdicts,
    *,
    samples: int,
    alpha: float = ALPHA / COMPARISONS,
) -> tuple[float, float, float]:
    """Return shares over simulated comparisons: samples used, decided, and wrongly decided."""
    rng = np.random.default_rng(0)
    found: list[tuple[float, bool, bool]] = []
    right = {"equivalent"} if difference == 0 else {"better"}
    # A difference below the margin is equivalent as well.
    if 0 < difference < MARGIN:
        right.add("equivalent")
    for begin in range(0, repeats, BATCH):
        rows = min(BATCH, repeats - begin)
        differences = paired_differences(rng, (rows, tasks, samples), difference, one_right)
        # All tasks of the first sample, then of the next.
        in_order = differences.swapaxes(1, 2).reshape(rows, -1)
        for of_row in rule(in_order, MARGIN, alpha):
            looks = of_row[ROUND * tasks - 1 :: ROUND * tasks]
            decided = np.flatnonzero(looks != "undecided")
            if len(decided):
                first = int(decided[0])
                share = (first + 1) * ROUND / samples
                found.append((share, True, str(looks[first]) not in right))
            else:
                found.append((1.0, False, False))
    used, decided_share, wrong = np.array(found, dtype=float).mean(0).tolist()
    return used, decided_share, wrong


def paired_differences(
    rng: np.random.Generator, shape: tuple[int, ...], difference: float, one_right: float
) -> Array:
    """Return differences of right answers: 1, 0 or -1."""
    drawn = rng.random(shape)
    first_right = (one_right + difference) / 2
    return (drawn < first_right) * 1.0 - (drawn >= 1 - one_right + first_right)


def peeking_verdicts(differences: Array, margin: float, alpha: float) -> Verdicts:
    """Return the verdicts of ordinary intervals, one after each difference."""
    n = np.arange(1, differences.shape[-1] + 1)
    means = np.cumsum(differences, -1) / n
    squares = np.cumsum(differences**2, -1) / n
    error = norm.ppf(1 - alpha / 2) * np.sqrt(np.maximum(squares - means**2, 0) / n)
    low, high = means - error, means + error
    conditions = [low > 0, high < 0, (low > -margin) & (high < margin)]
    return np.select(conditions, ["better", "worse", "equivalent"], "undecided")


def precision_table(repeats: int) -> Table:
    """Return what `--precision 5` does by true score."""
    table = Table(title=f"--precision 5, at most {SAMPLES}", title_justify="left")
    for column in ("true score", "samples used", "interval misses the score"):
        table.add_column(column, justify="right")
    rng = np.random.default_rng(0)
    for score in SCORES:
        used: list[int] = []
        missed = 0
        for _ in range(repeats):
            answers = rng.random(SAMPLES) < score / 100
            n = ROUND
            while n < SAMPLES and not is_precise(dict(enumerate_ids(answers[:n])), 5):
                n += ROUND
            low, high = anytime_interval(answers[:n])
            missed += not low <= score / 100 <= high
            used.append(n)
        table.add_row(str(score), f"{np.mean(used) / SAMPLES:.0%}", f"{missed / repeats:.1%}")
    return table


def enumerate_ids(values: NDArray[np.bool_]) -> list[tuple[str, float]]:
    """Return values with names, as the scores of a cell are stored."""
    return [(str(index), float(value)) for index, value in enumerate(values)]


def replay_table(folder: Path) -> Table:
    """Return what `--decide` would have done on the stored samples of a run."""
    store = Store(folder)
    rows = score_run(store).rows
    scores = {cell: scores_by_id(of_cell) for cell, of_cell in rows.items()}
    scored = [cell for cell in scores if scores[cell] and BENCHES[cell.bench].averages_scores]
    methods = list(dict.fromkeys(cell.method for cell in scored))
    places = dict.fromkeys((cell.model, cell.bench, cell.length) for cell in scored)
    alpha = ALPHA / max(1, (len(methods) - 1) * len(places))
    table = Table(title=f"{folder} against original", title_justify="left")
    for column in ("bench", "length", "samples used", "decided"):
        table.add_column(column, justify="right")
    for model, bench, length in places:
        here = {
            cell: scores[cell]
            for cell in scored
            if (cell.model, cell.bench, cell.length) == (model, bench, length)
        }
        decided: list[str] = []
        used = most = 0
        for method in methods:
            if method == "original":
                continue
            pairs = pairs_by_task(here, method, "original")
            independent = has_independent_tasks(store.config, bench)
            differences = observed_differences(
                pairs, store.config["seed"], independent_tasks=independent
            )
            step = ROUND * (len(pairs) if independent else 1)
            looks = verdicts(differences, MARGIN, alpha)[step - 1 :: step]
            found = np.flatnonzero(looks != "undecided")
            most += len(differences)
            used += (int(found[0]) + 1) * step if len(found) else len(differences)
            if len(found):
                decided.append(f"{method} {looks[found[0]]}")
        table.add_row(bench, str(length), f"{used / most:.0%}", ", ".join(decided) or "none")
    return table


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), [Path(name) for name in sys.argv[2:]])
