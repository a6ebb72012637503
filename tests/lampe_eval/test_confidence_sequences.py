"""Confidence sequences: valid at every number of samples at once, and never of width zero."""

import math

import numpy as np
import pytest

from lampe_eval.scoring.confidence_sequences import anytime_interval, log_capital


@pytest.mark.parametrize(
    ("values", "lowest", "highest"),
    [
        ([1.0] * 10, 0, 1),
        ([0.0] * 10, 0, 1),
        ([0.0] * 500, -1, 1),
        ([0.25, 0.5, 1.0], 0, 1),
        ([0.0, 100.0, 30.0], 0, 100),
        ([-1.0, 1.0, 0.0], -1, 1),
    ],
)
def test_an_interval_has_width_and_holds_the_mean(
    values: list[float], lowest: float, highest: float
) -> None:
    low, high = anytime_interval(values, lowest, highest)
    assert lowest <= low <= np.mean(values) <= high <= highest
    assert high - low > 0.005 * (highest - lowest)


def test_no_sample_says_nothing() -> None:
    assert anytime_interval([]) == (0, 1)


@pytest.mark.parametrize("values", [[1.2], [-0.1], [math.nan], [math.inf]])
def test_a_value_beyond_the_bounds_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        anytime_interval(values)


def test_an_interval_does_not_depend_on_the_order() -> None:
    values = np.random.default_rng(0).random(40)
    assert anytime_interval(values) == pytest.approx(anytime_interval(np.sort(values)), abs=1e-6)


def test_an_interval_is_mirrored_where_its_values_are() -> None:
    values = np.random.default_rng(0).random(40)
    low, high = anytime_interval(values)
    assert anytime_interval(1 - values) == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_more_samples_and_a_larger_alpha_narrow_an_interval() -> None:
    def width(n: int, alpha: float = 0.05) -> float:
        low, high = anytime_interval([0.0, 1.0] * n, alpha=alpha)
        return high - low

    assert width(10) > width(100) > width(1000)
    assert width(100, 0.01) > width(100, 0.05)


def test_the_ends_are_where_the_capital_reaches_its_bound() -> None:
    values = np.random.default_rng(0).random(60)
    low, high = anytime_interval(values, alpha=0.05)
    enough = math.log(2 / 0.05)
    assert log_capital(values, low)[-1] == pytest.approx(enough, abs=1e-4)
    assert log_capital(1 - values, 1 - high)[-1] == pytest.approx(enough, abs=1e-4)


@pytest.mark.parametrize("mean", [0.02, 0.5, 0.9])
def test_the_mean_is_covered_at_all_numbers_of_samples_together(mean: float) -> None:
    answers = (np.random.default_rng(0).random((400, 300)) < mean) * 1.0
    enough = math.log(2 / 0.05)
    above = log_capital(answers, mean).max(-1) >= enough
    below = log_capital(1 - answers, 1 - mean).max(-1) >= enough
    assert (above | below).mean() <= 0.05
