"""Coverage and size of the paired tests, by simulation of pairs of methods.

    python -m benchmarks.paired_coverage [SIMULATIONS]

Prints for each scenario how often the 95 % interval contains the true difference (coverage), how
often a difference is found at 5 % and at 5 % corrected for eleven methods, and the mean width of
the interval. Where the true difference is 0, finding one is an error (the size of the test).

The second table is of twelve methods, all of which or the best six of which are equally good: how
often any of these is shown to be worse than another one, so that it is not bold in tables; by
`all_pairs.corrected_p_values`, by Holm's correction for all pairs, and by comparisons with the best
score alone (as version 0.1 and early 0.2 did). The last column is how many of the six methods that
are worse than the best ones are shown to be.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from rich.console import Console
from rich.table import Table

from lampe_eval.results.all_pairs import corrected_p_values
from lampe_eval.results.paired_tests import (
    LEVEL,
    CellSamples,
    UnitDifferences,
    holm,
    paired_test,
    pool,
    unit_differences,
)
from lampe_eval.scoring.estimates import Array, Estimate

SIMULATIONS = 1000
METHODS = 11
Pair = tuple[Array, Array]


class Scenario(NamedTuple):
    """Pair of methods on the same samples.

    Attributes:
        name: what is simulated.
        difference: the true difference, as a share of the scale or of log perplexity.
        draw: draws the differences of one run by unit.
    """

    name: str
    difference: float
    draw: Callable[[Generator], UnitDifferences]


class Result(NamedTuple):
    """Share of simulated runs, and mean width of their intervals."""

    coverage: float
    found: float
    found_corrected: float
    width: float


def simulate(scenario: Scenario, simulations: int, seed: int = 0) -> Result:
    """Return how often the interval of a scenario is right."""
    rng = np.random.default_rng(seed)
    covered = found = corrected = 0
    width = 0.0
    for _ in range(simulations):
        test = paired_test(scenario.draw(rng))
        assert test is not None
        low, high = test.interval()
        covered += low <= scenario.difference <= high
        found += test.p_value < 0.05
        corrected += test.p_value < 0.05 / METHODS
        width += high - low
    return Result(
        covered / simulations, found / simulations, corrected / simulations, width / simulations
    )


def scenarios() -> Iterator[Scenario]:
    """Yield what is simulated."""
    for n in (10, 50):
        for p in (0.02, 0.1, 0.5, 0.9, 0.98):
            for correlation in (0.0, 0.6):
                yield _right_or_wrong(n, p, p, correlation)
        for first, second in ((0.1, 0.02), (0.7, 0.5), (0.98, 0.5), (0.98, 0.02)):
            yield _right_or_wrong(n, first, second, 0.3)
        yield _cell(f"2 parts, .9 against .9, n = {n}", 0, n, _partial(2, 0.9, 0.9))
        yield _cell(f"4 parts, .9 against .5, n = {n}", 0.4, n, _partial(4, 0.9, 0.5))
        yield _cell(f"ROUGE, equal, n = {n}", 0, n, _rouge(0))
        yield _cell(f"ROUGE, 5 points, n = {n}", 0.05, n, _rouge(0.05))
        yield _cell(f"F1, equal, n = {n}", 0, n, _f1)
        yield _perplexity(n)
    yield _perplexity(5)
    for shift in (0.0, 0.1):
        yield _documents(shift)
    for p, q in ((0.9, 0.9), (0.98, 0.98), (0.5, 0.5), (0.98, 0.7)):
        yield _pooled(p, q)


EQUAL_METHODS = 12
BEST = 6
"""Methods that are equally good where the others are worse."""


class Family(NamedTuple):
    """Methods on the same samples.

    Attributes:
        name: what is simulated.
        equal: number of methods that are equally good; the others are worse.
        is_perplexity: whether scores are log losses, of which lower ones are better.
        draw: draws scores of one run, [samples, methods].
    """

    name: str
    equal: int
    is_perplexity: bool
    draw: Callable[[Generator], Array]


class FamilyResult(NamedTuple):
    """Share of simulated runs in which one of the best is shown worse, and of worse ones found."""

    wrong: float
    wrong_by_holm: float
    wrong_against_best: float
    found: float


def families() -> Iterator[Family]:
    """Yield the families that are simulated."""
    for n in (10, 50):
        for p in (0.1, 0.5, 0.9):
            for correlation in (0.0, 0.6):
                yield _answers(n, p, correlation)
        yield _answers(n, 0.9, 0.3, difference=0.8)
        yield _answers(n, 0.5, 0.3, difference=0.3)
        yield Family(f"F1, n = {n}", EQUAL_METHODS, False, _f1_scores(n))
    for n in (3, 10, 50):
        yield _log_losses(n, 0.0)
        yield _log_losses(n, 0.1)


def simulate_family(family: Family, simulations: int, seed: int = 0) -> FamilyResult:
    """Return how often methods of a family are shown to be worse."""
    rng = np.random.default_rng(seed)
    wrong = np.zeros(3)
    found = 0
    pairs = list(combinations(range(EQUAL_METHODS), 2))
    for _ in range(simulations):
        scores = family.draw(rng)
        by_pair = {
            pair: _of_columns(scores, *pair, is_perplexity=family.is_perplexity) for pair in pairs
        }
        corrected = corrected_p_values(list(by_pair.values()))
        shown = _shown_worse(by_pair, corrected)
        wrong[0] += any(method < family.equal for method in shown)
        found += sum(method >= family.equal for method in shown)
        tests = {pair: paired_test(units) for pair, units in by_pair.items()}
        p_values = {pair: test.p_value if test else 1.0 for pair, test in tests.items()}
        by_holm = _shown_worse(by_pair, holm(list(p_values.values())))
        wrong[1] += any(method < family.equal for method in by_holm)
        means = scores.mean(0)
        best = int(np.argmin(means) if family.is_perplexity else np.argmax(means))
        with_best = {pair: units for pair, units in by_pair.items() if best in pair}
        against_best = holm([p_values[pair] for pair in with_best])
        wrong[2] += any(m < family.equal for m in _shown_worse(with_best, against_best))
    worse = max(1, EQUAL_METHODS - family.equal)
    return FamilyResult(*(wrong / simulations).tolist(), found / simulations / worse)


def _shown_worse(
    by_pair: dict[tuple[int, int], UnitDifferences], corrected: Sequence[float]
) -> set[int]:
    worse: set[int] = set()
    for ((first, second), units), p_value in zip(by_pair.items(), corrected, strict=True):
        if p_value < LEVEL:
            is_first_better = (units.difference > 0) != units.is_perplexity
            worse.add(second if is_first_better else first)
    return worse


def _of_columns(scores: Array, first: int, second: int, *, is_perplexity: bool) -> UnitDifferences:
    n = len(scores)
    differences = (scores[:, first] - scores[:, second]).tolist()
    units = range(n)
    return UnitDifferences(
        dict(zip(units, differences, strict=True)), dict.fromkeys(units, 1 / n), n, is_perplexity
    )


def _answers(n: int, p: float, correlation: float, difference: float = 0.0) -> Family:
    """Return right and wrong answers; with a difference, half of the methods are worse by it."""
    equal = BEST if difference else EQUAL_METHODS
    shares = [p] * equal + [p - difference] * (EQUAL_METHODS - equal)

    def draw(rng: Generator) -> Array:
        shared = math.sqrt(correlation) * rng.normal(size=n)
        methods = shared + math.sqrt(1 - correlation) * rng.normal(size=(EQUAL_METHODS, n))
        right = [_right(method, share) for method, share in zip(methods, shares, strict=True)]
        return np.stack(right, axis=1)

    worse = f" and {p - difference:.1g}" if difference else ""
    return Family(f"0/1, {p:g}{worse}, correlation {correlation}, n = {n}", equal, False, draw)


def _f1_scores(n: int) -> Callable[[Generator], Array]:
    def draw(rng: Generator) -> Array:
        pairs = [_f1(rng, n) for _ in range(EQUAL_METHODS // 2)]
        return np.stack([scores for pair in pairs for scores in pair], axis=1)

    return draw


def _log_losses(n: int, difference: float) -> Family:
    """Return losses of windows; with a difference, half of the methods are worse by it."""
    equal = BEST if difference else EQUAL_METHODS
    shift = np.array([0.0] * equal + [difference] * (EQUAL_METHODS - equal))

    def draw(rng: Generator) -> Array:
        text = rng.normal(2, 0.3, (n, 1))
        return np.asarray(text + shift + rng.normal(0, 0.03, (n, EQUAL_METHODS)))

    worse = f", half of them {difference:.0%} higher" if difference else ""
    return Family(f"perplexity{worse}, n = {n}", equal, True, draw)


def _samples(scores: Array, groups: Sequence[int] = ()) -> CellSamples:
    ids = [(f"{index}", "") for index in range(len(scores))]
    return CellSamples(ids, Estimate(100 * scores[:, None], groups=groups))


def _difference(pair: Pair, *, length: int = 0, groups: Sequence[int] = ()) -> UnitDifferences:
    method, reference = (_samples(scores, groups) for scores in pair)
    found = unit_differences(method, reference, is_perplexity=False, length=length)
    assert found is not None
    return found


def _cell(name: str, difference: float, n: int, draw: Callable[[Generator, int], Pair]) -> Scenario:
    return Scenario(name, difference, lambda rng: _difference(draw(rng, n)))


def _right_or_wrong(n: int, first: float, second: float, correlation: float) -> Scenario:
    def draw(rng: Generator, n: int) -> Pair:
        shared = math.sqrt(correlation) * rng.normal(size=n)
        methods = shared + math.sqrt(1 - correlation) * rng.normal(size=(2, n))
        return _right(methods[0], first), _right(methods[1], second)

    name = f"0/1, {first} against {second}, correlation {correlation}, n = {n}"
    return _cell(name, first - second, n, draw)


def _right(ability: Array, share: float) -> Array:
    """Return 1 for the lowest share of standard normal numbers, else 0."""
    return (ability < NormalDist().inv_cdf(share)).astype(float)


def _partial(parts: int, first: float, second: float) -> Callable[[Generator, int], Pair]:
    def draw(rng: Generator, n: int) -> Pair:
        return rng.binomial(parts, first, n) / parts, rng.binomial(parts, second, n) / parts

    return draw


def _rouge(shift: float) -> Callable[[Generator, int], Pair]:
    def draw(rng: Generator, n: int) -> Pair:
        text = rng.normal(0.3, 0.08, n)
        return text + rng.normal(shift, 0.08, n), text

    return draw


def _f1(rng: Generator, n: int) -> Pair:
    def scores() -> Array:
        kind = rng.random(n)
        return np.where(kind < 0.4, 0.0, np.where(kind > 0.75, 1.0, rng.beta(1, 1.5, n)))

    return scores(), scores()


def _perplexity(n: int) -> Scenario:
    """Return windows whose losses differ by 0.02 on average; the text sets most of a loss."""

    def draw(rng: Generator) -> UnitDifferences:
        text = rng.normal(2, 0.3, n)
        losses = (text + rng.normal(0.02, 0.03, n), text)
        tokens = np.full(n, 512.0)
        methods: list[CellSamples] = []
        for of_method in losses:
            parts = np.stack([tokens * of_method, tokens], axis=1)
            ids = [(f"{index}", "") for index in range(n)]
            methods.append(CellSamples(ids, Estimate(parts, _exp_of_token_mean)))
        found = unit_differences(*methods, is_perplexity=True)
        assert found is not None
        return found

    return Scenario(f"perplexity, 2 % higher, n = {n}", 0.02, draw)


def _exp_of_token_mean(means: Array) -> Array:
    return np.asarray(np.exp(means[..., 0] / means[..., 1]))


def _documents(shift: float) -> Scenario:
    """Return 15 documents of 6 to 30 questions, with an intra-class correlation of 0.2."""

    def draw(rng: Generator) -> UnitDifferences:
        groups = np.repeat(np.arange(15), rng.integers(6, 31, 15))
        document = math.sqrt(0.2) * rng.normal(size=(2, 15))[:, groups]
        methods = document + math.sqrt(0.8) * rng.normal(size=(2, len(groups)))
        pair = _right(methods[0], 0.5 + shift), _right(methods[1], 0.5)
        return _difference(pair, groups=groups.tolist())

    return Scenario(f"15 documents of questions, difference {shift}", shift, draw)


def _pooled(first: float, second: float) -> Scenario:
    """Return 4 lengths of 30 questions, of which each is easier or harder at all lengths."""

    def draw(rng: Generator) -> UnitDifferences:
        question = math.sqrt(0.4) * rng.normal(size=(2, 30))
        strata: list[UnitDifferences] = []
        for length in (512, 1024, 2048, 4096):
            methods = question + math.sqrt(0.6) * rng.normal(size=(2, 30))
            pair = _right(methods[0], first), _right(methods[1], second)
            strata.append(_difference(pair, length=length))
        return pool(strata)

    return Scenario(f"4 lengths pooled, {first} against {second}", first - second, draw)


def main(simulations: str = str(SIMULATIONS)) -> None:
    """Print the table."""
    table = Table("scenario", "coverage", "found at 5 %", "corrected", "width")
    for scenario in scenarios():
        result = simulate(scenario, int(simulations))
        shares = [f"{100 * share:.1f}" for share in result]
        table.add_row(scenario.name, *shares)
    console = Console(width=120)
    console.print(table)
    table = Table("twelve methods", "wrong", "Holm", "against the best", "found")
    for family in families():
        of_family = simulate_family(family, int(simulations))
        table.add_row(family.name, *(f"{100 * share:.1f}" for share in of_family))
    console.print(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
