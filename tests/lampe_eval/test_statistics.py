"""Scores of a cell and their errors, against worked examples."""

import math

import numpy as np
import pytest

from lampe_eval.scoring.estimates import Array, Estimate
from lampe_eval.scoring.value_recall import recall


def test_a_mean_and_its_error() -> None:
    estimate = Estimate.mean([1, 2, 3, 4])
    assert (estimate.value, estimate.stderr) == pytest.approx((2.5, math.sqrt(5 / 3 / 4)))
    assert Estimate.mean([7]).value == 7
    assert math.isnan(Estimate.mean([7]).stderr)


def _ratio(means: Array) -> Array:
    return np.asarray(means[..., 0] / means[..., 1])


def test_a_ratio_of_sums() -> None:
    assert Estimate(np.array([[2.0, 1], [6, 3]]), _ratio).value == 2
    assert Estimate(np.array([[1.0, 1], [9, 3]]), _ratio).value == 2.5


def test_the_bootstrap_of_a_mean_is_its_standard_error() -> None:
    """Use denominators of 1, which make the ratio a mean; 4,000 resamples are within 3 %."""
    values = np.random.default_rng(1).normal(size=7)
    estimate = Estimate(np.stack([values, np.ones(7)], axis=1), _ratio)
    assert estimate.stderr == pytest.approx(Estimate.mean(values.tolist()).stderr, rel=0.03)


def test_the_bootstrap_of_a_ratio_agrees_with_linearisation() -> None:
    rng = np.random.default_rng(2)
    weights = rng.uniform(1, 3, 500)
    losses = weights * rng.normal(2, 0.3, 500)
    ratio = losses.sum() / weights.sum()
    linear = np.std(losses - ratio * weights, ddof=1) / math.sqrt(500) / weights.mean()
    assert Estimate(np.stack([losses, weights], axis=1), _ratio).stderr == pytest.approx(
        linear, rel=0.04
    )


def test_samples_of_a_group_count_once() -> None:
    """Repeating each sample three times adds no information; the bootstrap is within 3 %."""
    values = np.random.default_rng(4).normal(5, 1, size=(12, 1))
    alone = Estimate.mean(values[:, 0].tolist())
    groups = sorted([*range(12)] * 3)
    thrice = Estimate(np.repeat(values, 3, axis=0), groups=groups, unit="document")
    assert (thrice.value, thrice.independent_units) == (pytest.approx(alone.value), 12)
    assert thrice.stderr == pytest.approx(alone.stderr, rel=0.03)
    assert Estimate(np.repeat(values, 3, axis=0)).stderr < 0.6 * alone.stderr


def test_a_single_group_has_no_error() -> None:
    assert math.isnan(Estimate(np.array([[1.0], [2.0]]), groups=[7, 7]).stderr)


@pytest.mark.parametrize(
    ("prediction", "values", "score"),
    [
        (" 48213.", ["48213"], 1),
        ("48213 and 77120", ["77120", "10934"], 0.5),
        ("the code is 482130", ["48213"], 0),
        ("148213", ["48213"], 0),
        ("", ["48213"], 0),
        ("(48213)", ["48213"], 1),
    ],
)
def test_recall_counts_whole_values(prediction: str, values: list[str], score: float) -> None:
    assert recall(prediction, values) == score
