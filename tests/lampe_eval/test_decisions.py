"""Decisions against a reference: right in at least 95 of 100 runs, whenever a run looks."""

from typing import Any

import numpy as np
import pytest

from benchmarks.sequential import peeking_verdicts, simulated
from lampe_eval.results.decisions import (
    alpha_of_comparison,
    averaged_differences,
    seeded_order,
    verdict,
    verdicts,
)
from tests.lampe_eval.stored_runs import configuration


@pytest.mark.parametrize("tasks", [1, 13])
@pytest.mark.parametrize("difference", [0, 0.05, 0.1, 0.4])
def test_a_simulated_year_of_runs_is_wrong_in_at_most_5_percent(
    tasks: int, difference: float
) -> None:
    used, decided, wrong = simulated(tasks, 150, difference, samples=150, alpha=0.05)
    assert wrong <= 0.05
    assert 0 < used <= 1
    if difference == 0.4:
        assert decided == 1 and used < 0.25


def test_peeking_at_ordinary_intervals_is_wrong_more_often() -> None:
    _, _, wrong = simulated(1, 150, 0, peeking_verdicts, samples=150, alpha=0.05)
    assert wrong > 0.1


@pytest.mark.parametrize(
    ("differences", "margin", "expected"),
    [
        ([], 0.05, "undecided"),
        ([1.0] * 3, 0.05, "undecided"),
        ([1.0] * 20, 0.05, "better"),
        ([-1.0] * 20, 0.05, "worse"),
        ([0.0] * 20, 0.05, "undecided"),
        ([0.0] * 200, 0.05, "equivalent"),
        # better, though by less than the margin
        ([0.1] * 200, 0.5, "better"),
        # the answers differ, but as often one way as the other
        ([1.0, -1.0] * 300, 0.2, "equivalent"),
    ],
)
def test_verdicts(differences: list[float], margin: float, expected: str) -> None:
    assert verdict(np.array(differences), margin, 0.05) == expected


def test_a_verdict_does_not_depend_on_what_comes_later() -> None:
    differences = np.random.default_rng(0).integers(-1, 2, 80) * 1.0
    first, both = verdicts(differences[:30], 0.1, 0.05), verdicts(differences, 0.1, 0.05)
    assert list(first) == list(both[:30])


def test_an_order_depends_on_the_seed_and_on_no_other_id() -> None:
    ids = [f"{number}" for number in range(50)]
    order = seeded_order(ids, 0)
    assert sorted(order) == sorted(ids) and order != ids
    assert order == seeded_order(reversed(ids), 0) != seeded_order(ids, 1)
    assert seeded_order(ids[:20], 0) == [name for name in order if name in ids[:20]]


def test_differences_are_averaged_over_tasks_on_the_samples_of_both_methods() -> None:
    first = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0}
    reference = {"a": 0.0, "b": 1.0, "c": 1.0}
    on_second_task = ({"a": 0.5, "c": 0.5}, {"a": 0.0, "c": 0.5})
    order = seeded_order("abc", 0)
    of_first = [{"a": 1.0, "b": 0.0, "c": -1.0}[name] for name in order]
    of_second = [{"a": 0.5, "c": 0.0}[name] for name in order if name != "b"]
    expected = [(one + other) / 2 for one, other in zip(of_first, of_second, strict=False)]
    assert len(expected) == 2
    assert list(averaged_differences([(first, reference), on_second_task], 0)) == expected


@pytest.mark.parametrize(
    ("methods", "lengths", "comparisons"),
    [
        (("original", "lampe"), {"pocket": {"niah": [512]}}, 1),
        (("original", "lampe", "pi"), {"pocket": {"niah": [512, 256]}}, 4),
        (("a", "b"), {"x": {"niah": [1], "ruler": [1, 2]}, "y": {"niah": [1], "ruler": [1]}}, 5),
    ],
)
def test_comparisons_of_a_run_share_its_probability_of_error(
    methods: tuple[str, ...], lengths: dict[str, Any], comparisons: int
) -> None:
    config: Any = configuration(methods={name: {} for name in methods}, lengths=lengths)
    assert alpha_of_comparison(config) == pytest.approx(0.05 / comparisons)
