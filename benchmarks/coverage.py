"""Coverage of 95 % intervals: of score ± 1.96 standard errors, and of the intervals in tables.

    python -m benchmarks.coverage [SIMULATIONS]

Each row is a kind of score and a number of samples: documents × questions where the answers to the
questions about a document are correlated, tasks × samples for averages. Its percentages are the
lowest and the highest coverage of any true mean from 0.02 to 0.98. Scores of 0 or 1 are computed
exactly, all others are simulated; with 1,000 simulations one percentage is within 1.5.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import binom

from lampe_eval.scoring.estimates import Array, Estimate
from lampe_eval.scoring.intervals import Interval, average, percent_interval

Intervals = tuple[Interval, Interval]
"""Interval of score ± 1.96 standard errors, and the one of tables."""
Draw = Callable[[Generator, float], Intervals]
"""Function from a true score to both intervals of a drawn cell; both in percent."""

FINE = np.arange(0.02, 0.9805, 0.001)
COARSE = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""True means that are tried."""
SPREADS = {"beta, narrow": 20, "beta, broad": 4}
"""Sums of the beta distribution's parameters: ROUGE of summaries is about as concentrated."""
LIMITS = (93.0, 99.5)
"""Lowest and highest coverage in percent that 95 % intervals of single cells should have."""


@dataclass(frozen=True)
class Coverage:
    """Coverage of both intervals over all true means.

    Attributes:
        kind: kind of score.
        size: number of samples.
        before: coverage in percent of score ± 1.96 standard errors, by true mean.
        after: coverage in percent of the intervals in tables, by true mean.
    """

    kind: str
    size: str
    before: Sequence[float]
    after: Sequence[float]


def main(simulations: int = 1_000) -> None:
    """Print the table.

    Args:
        simulations: simulated cells for each true mean.
    """
    title = f"Coverage in percent of 95 % intervals, {simulations} simulations"
    table = Table(title=title, title_justify="left")
    for heading in ("scores", "samples", "score ± 1.96 errors", "interval in tables"):
        table.add_column(heading, no_wrap=True, justify="right" if table.columns else "left")
    for row in coverages(simulations):
        table.add_row(row.kind, row.size, _range(row.before), _range(row.after))
    Console().print(table)


def coverages(simulations: int) -> Iterator[Coverage]:
    """Yield the rows of the table."""
    for n in (10, 50, 200):
        yield right_or_wrong(n)
    rng = np.random.default_rng(0)
    for n in (10, 50, 200):
        yield simulated("like F1", f"{n}", f1_like(n), rng, simulations)
        for name, total in SPREADS.items():
            yield simulated(f"{name}", f"{n}", beta(n, total), rng, simulations)
    for documents, questions in ((15, 18), (5, 18), (30, 4)):
        for correlation in (0.0, 0.2, 0.5):
            yield simulated(
                f"0 or 1, correlation {correlation:g}",
                f"{documents} × {questions}",
                clustered(documents, questions, correlation),
                rng,
                simulations,
            )
    for tasks in (3, 13):
        for n in (5, 10, 50):
            yield simulated(
                "average, tasks alike",
                f"{tasks} × {n}",
                tasks_alike(tasks, n),
                rng,
                simulations,
            )
            yield simulated(
                "average, tasks apart",
                f"{tasks} × {n}",
                tasks_apart(tasks, n),
                rng,
                simulations,
            )
    for n in (10, 50):
        for correlation in (0.0, 0.2, 0.5):
            yield simulated(
                f"average, shared documents, correlation {correlation:g}",
                f"3 × {n}",
                tasks_of_shared_documents(3, n, correlation),
                rng,
                simulations,
            )
    for n in (2, 5, 20):
        yield simulated("perplexity of 8", f"{n}", perplexity(n), rng, simulations, (0.08,))


def right_or_wrong(n: int) -> Coverage:
    """Return the exact coverage for scores of 0 or 1."""
    cells = [Estimate.mean([100.0] * right + [0.0] * (n - right)) for right in range(n + 1)]
    probability = binom.pmf(np.arange(n + 1), n, FINE[:, None])
    columns: list[Sequence[float]] = []
    for intervals in zip(*map(_both, cells), strict=True):
        low, high = np.array(intervals).T
        covers = (low <= 100 * FINE[:, None]) & (100 * FINE[:, None] <= high)
        columns.append((100 * (probability * covers).sum(1)).tolist())
    return Coverage("0 or 1", f"{n}", *columns)


def simulated(
    kind: str,
    size: str,
    draw: Draw,
    rng: Generator,
    simulations: int,
    truths: Sequence[float] = COARSE,
) -> Coverage:
    """Return the simulated coverage at each true mean.

    Args:
        kind: kind of score.
        size: number of samples, as text.
        draw: draws a cell.
        rng: generator of random numbers.
        simulations: cells for each true mean.
        truths: the true scores, as shares.
    """
    columns: list[list[float]] = [[], []]
    for truth in truths:
        covered = np.zeros(2)
        for _ in range(simulations):
            covered += [low <= 100 * truth <= high for low, high in draw(rng, truth)]
        for column, count in zip(columns, covered.tolist(), strict=True):
            column.append(100 * count / simulations)
    return Coverage(kind, size, *columns)


def beta(n: int, total: float) -> Draw:
    """Return the draw of scores with a beta distribution whose parameters have this sum."""
    return lambda rng, mean: _both(
        Estimate.mean(100 * rng.beta(mean * total, (1 - mean) * total, n))
    )


def f1_like(n: int) -> Draw:
    """Return the draw of scores of which many are 0 or 1 and the others lie anywhere between."""

    def draw(rng: Generator, mean: float) -> Intervals:
        partly = 1.2 * min(mean, 1 - mean)
        kinds = rng.random(n)
        whole = np.where(kinds < partly + mean - partly / 2, 1.0, 0.0)
        return _both(Estimate.mean(100 * np.where(kinds < partly, rng.beta(2, 2, n), whole)))

    return draw


def clustered(documents: int, questions: int, correlation: float) -> Draw:
    """Return the draw of right or wrong answers to as many questions about each document."""
    groups = np.repeat(np.arange(documents), questions).tolist()

    def draw(rng: Generator, mean: float) -> Intervals:
        right = _answers_by_document(rng, mean, documents, questions, correlation)
        parts = 100.0 * right.reshape(-1, 1)
        before, _ = _both(Estimate(parts))
        return before, Estimate(parts, groups=groups, unit="document").interval()

    return draw


def tasks_of_shared_documents(tasks: int, documents: int, correlation: float) -> Draw:
    """Return the draw of an average of tasks that ask one question each about the same documents.

    Args:
        tasks: number of tasks.
        documents: number of documents.
        correlation: correlation between the answers about a document.
    """

    def draw(rng: Generator, mean: float) -> Intervals:
        right = _answers_by_document(rng, mean, documents, tasks, correlation)
        return _average(100.0 * right.T, range(documents))

    return draw


def _answers_by_document(
    rng: Generator, mean: float, documents: int, questions: int, correlation: float
) -> NDArray[np.bool_]:
    """Return which answers are right, [documents, questions]."""
    shares = np.full(documents, mean)
    if correlation:
        total = 1 / correlation - 1
        shares = rng.beta(mean * total, (1 - mean) * total, documents)
    right: NDArray[np.bool_] = rng.random((documents, questions)) < shares[:, None]
    return right


def tasks_alike(tasks: int, n: int) -> Draw:
    """Return the draw of an average of tasks that have the same true mean."""
    return lambda rng, mean: _average_of_tasks(rng, np.full(tasks, mean), n)


def tasks_apart(tasks: int, n: int) -> Draw:
    """Return the draw of an average of tasks whose true means lie far apart."""
    steps = np.linspace(-1, 1, tasks)

    def draw(rng: Generator, mean: float) -> Intervals:
        return _average_of_tasks(rng, mean + 0.95 * min(mean, 1 - mean) * steps, n)

    return draw


def perplexity(n: int) -> Draw:
    """Return the draw of windows whose losses vary by a tenth."""

    def draw(rng: Generator, mean: float) -> Intervals:
        loss = np.log(100 * mean)
        losses = rng.normal(loss, 0.1 * loss, (n, 1))
        return _both(Estimate(losses, lambda means: np.exp(means[..., 0]), (), "window", "log"))

    return draw


def _average_of_tasks(rng: Generator, means: Array, n: int) -> Intervals:
    return _average(100.0 * (rng.random((len(means), n)) < means[:, None]))


def _average(scores: Array, documents: Sequence[int] = ()) -> Intervals:
    """Return both intervals of the average of tasks, whose scores are [tasks, samples]."""
    cells = [replace(Estimate.mean(of_task.tolist()), documents=documents) for of_task in scores]
    weights = [1 / len(cells)] * len(cells)
    error = float(np.sqrt(sum(cell.stderr**2 for cell in cells))) / len(cells)
    after = percent_interval(average(weights, [cell.proportion for cell in cells]))
    return _around(float(scores.mean()), error), after


def _both(cell: Estimate) -> Intervals:
    return _around(cell.value, cell.stderr), cell.interval()


def _around(value: float, error: float) -> Interval:
    return Interval(value - 1.96 * error, value + 1.96 * error)


def _range(values: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys(f"{end:.1f}" for end in (min(values), max(values))))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
