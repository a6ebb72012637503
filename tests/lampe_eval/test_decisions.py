"""Decisions against a reference: right in at least 95 of 100 runs, whenever a run looks."""

from typing import Any

import numpy as np
import pytest

from benchmarks.sequential import peeking_verdicts, simulated
from lampe_eval.results.decisions import (
    alpha_of_comparison,
    observed_differences,
    seeded_order,
    verdict,
    verdicts,
)
from tests.lampe_eval.stored_runs import configuration


@pytest.mark.parametrize(("tasks", "samples"), [(1, 150), (5, 40)])
@pytest.mark.parametrize("difference", [0, 0.05, 0.1, 0.4])
def test_a_simulated_year_of_runs_is_wrong_in_at_most_5_percent(
    tasks: int, samples: int, difference: float
) -> None:
    one_right = max(0.2, difference)
    used, decided, wrong = simulated(tasks, 150, difference, one_right, samples=samples, alpha=0.05)
    assert wrong <= 0.05
    assert 0 < used <= 1
    if difference == 0.4:
        assert decided == 1 and used < 0.3


def test_peeking_at_ordinary_intervals_is_wrong_more_often() -> None:
    _, _, wrong = simulated(1, 150, 0, 0.2, peeking_verdicts, samples=150, alpha=0.05)
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


def test_differences_are_of_equally_many_samples_that_both_methods_have() -> None:
    first = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0}
    reference = {"a": 0.0, "b": 1.0, "c": 1.0}
    on_second_task = ({"a": 0.5, "c": 0.5}, {"a": 0.0, "c": 0.5})
    order = seeded_order("abc", 0)
    of_first = [{"a": 1.0, "b": 0.0, "c": -1.0}[name] for name in order][:2]
    of_second = [{"a": 0.5, "c": 0.0}[name] for name in order if name != "b"]
    pairs = [(first, reference), on_second_task]
    averaged = observed_differences(pairs, 0, independent_tasks=False)
    single = observed_differences(pairs, 0, independent_tasks=True)
    assert list(averaged) == [(of_first[n] + of_second[n]) / 2 for n in (0, 1)]
    assert list(single) == [of_first[0], of_second[0], of_first[1], of_second[1]]


def test_tasks_that_differ_from_each_other_make_no_wrong_decision() -> None:
    # better on one task by as much as worse on the other: equivalent on average
    rng = np.random.default_rng(0)
    chances = np.array([0.7, 0.3])
    differences = np.where(rng.random((200, 75, 2)) < chances, 1.0, -1.0).reshape(200, 150)
    found = verdicts(differences, 0.05, 0.05)[:, 1::2]
    wrong = np.isin(found, ["better", "worse"]).any(-1)
    assert wrong.mean() <= 0.05


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
