"""Differences between methods: worked examples, comparison with scipy, coverage of intervals."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import permutation_test

from lampe_eval.results.paired_tests import CellSamples, compare_methods, holm, paired_differences
from lampe_eval.scoring.estimates import Array, Estimate, first_mean


def _sampled(values: Sequence[float], ids: str = "abcdefghij") -> CellSamples:
    return CellSamples(list(ids[: len(values)]), Estimate.mean(values))


def test_a_worked_example() -> None:
    """Differences 1, 2, 3 and 6: mean 3; of 16 ways to swap, 2 give a difference as large."""
    (pair,) = compare_methods({"lampe": _sampled([3, 4, 5, 8]), "original": _sampled([2, 2, 2, 2])})
    assert (pair.first, pair.second, pair.n, pair.difference) == ("lampe", "original", 4, 3)
    assert pair.p_value == pair.p_value_holm == 2 / 16
    assert 1 <= pair.ci_low < 3 < pair.ci_high <= 6


def test_a_pair_is_compared_on_the_samples_that_both_have() -> None:
    (pair,) = compare_methods(
        {"a": _sampled([1, 2, 30], ids="xyz"), "b": _sampled([5, 0, 1], ids="wxy")}
    )
    assert (pair.n, pair.difference) == (2, 1)
    assert compare_methods({"a": _sampled([1], ids="x"), "b": _sampled([1], ids="y")}) == []


def test_pairs_stay_in_order_where_one_method_has_fewer_samples() -> None:
    pairs = compare_methods(
        {"a": _sampled([1, 2, 3]), "b": _sampled([2, 2]), "c": _sampled([0, 0, 0])}
    )
    assert [(pair.first, pair.second, pair.n, pair.difference) for pair in pairs] == [
        ("a", "b", 2, -0.5), ("a", "c", 3, 2), ("b", "c", 2, 2),
    ]  # fmt: skip


def test_a_single_unit_has_a_difference_but_no_interval() -> None:
    windows = CellSamples(
        ["a", "b"], Estimate(np.array([[1.0], [2.0]]), groups=[0, 0], unit="block")
    )
    for first, second in ((_sampled([1]), _sampled([3])), (windows, windows)):
        (pair,) = compare_methods({"a": first, "b": second})
        assert math.isfinite(pair.difference)
        assert all(
            math.isnan(value)
            for value in (pair.ci_low, pair.ci_high, pair.p_value, pair.p_value_holm)
        )


def test_an_infinite_loss_proves_nothing() -> None:
    (pair,) = compare_methods({"a": _sampled([1, math.inf]), "b": _sampled([1, 2])})
    assert math.isnan(pair.p_value)


def test_equal_methods_do_not_differ() -> None:
    (pair,) = compare_methods({"a": _sampled([1, 0, 1]), "b": _sampled([1, 0, 1])})
    assert (pair.difference, pair.p_value, pair.p_value_holm) == (0, 1, 1)


@pytest.mark.parametrize("second", [[1, 1, 1], [0, 0, 0]])
def test_samples_that_all_differ_by_the_same_amount_give_no_interval(second: list[float]) -> None:
    (pair,) = compare_methods({"a": _sampled([1, 1, 1]), "b": _sampled(second)})
    assert math.isnan(pair.ci_low)
    assert math.isnan(pair.ci_high)
    assert pair.p_value == (1 if second[0] else 0.25)


def test_rounding_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        first = 100 * rng.integers(0, 11, 12) / 7
        (pair,) = compare_methods(
            {
                "a": _sampled(first, "abcdefghijkl"),
                "b": _sampled(rng.permutation(first), "abcdefghijkl"),
            }
        )
        assert pair.p_value == 1


def test_samples_of_a_group_are_drawn_and_swapped_together() -> None:
    """Twelve samples of four documents: 2 of 16 ways to swap give a difference as large."""
    rng = np.random.default_rng(8)
    ids, groups = list(range(12)), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    first = Estimate(rng.normal(3, 0.1, (12, 1)), groups=groups, unit="document")
    second = Estimate(rng.normal(1, 0.1, (12, 1)), groups=groups, unit="document")
    (pair,) = compare_methods({"a": CellSamples(ids, first), "b": CellSamples(ids, second)})
    assert (pair.n, pair.p_value) == (12, 2 / 16)
    assert pair.ci_low < 2 < pair.ci_high


def _perplexity(means: Array) -> Array:
    return np.asarray(np.exp(means[..., 0] / means[..., 1]))


@pytest.mark.parametrize("n", [8, 40])
def test_p_values_are_those_of_scipy(n: int) -> None:
    """Compare all swaps of 8 samples, and random swaps of 40; the statistic is not a mean."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(50, 100, n).astype(float)
    first, second = (np.stack([tokens * rng.normal(1, 0.2, n), tokens], axis=1) for _ in range(2))
    (ours,) = paired_differences(first[:, None], second[:, None], _perplexity)

    def statistic(x: Array, y: Array, axis: int) -> Array:
        parts = np.concatenate([first, second])
        return _perplexity(parts[x.astype(int)].mean(axis - 1)) - _perplexity(
            parts[y.astype(int)].mean(axis - 1)
        )

    order = np.arange(n)
    theirs = permutation_test(
        (order, order + n), statistic, permutation_type="samples", vectorized=True, rng=4
    )
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=0 if n == 8 else 0.02)


def _simulated(n: int, shift: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return 400 pairs of methods on n samples whose scores share the samples' difficulty."""
    difficulty = rng.exponential(size=(n, 400))
    noise = rng.normal(size=(2, n, 400))
    return (difficulty + shift + noise[0])[..., None], (difficulty + noise[1])[..., None]


@pytest.mark.parametrize("n", [10, 50])
def test_intervals_cover_the_difference_as_often_as_they_promise(n: int) -> None:
    """Count intervals in 400 simulations: 95 %, within 2.5 standard errors of that share."""
    pairs = paired_differences(*_simulated(n, 0.7, np.random.default_rng(5)), first_mean)
    share = np.mean([pair.ci_low <= 0.7 <= pair.ci_high for pair in pairs])
    assert share == pytest.approx(0.95, abs=2.5 * math.sqrt(0.95 * 0.05 / 400))


@pytest.mark.parametrize("n", [10, 30])
def test_p_values_are_uniform_where_nothing_differs(n: int) -> None:
    pairs = paired_differences(*_simulated(n, 0, np.random.default_rng(6)), first_mean)
    p_values = np.array([pair.p_value for pair in pairs])
    for level in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(p_values <= level) == pytest.approx(
            level, abs=2.5 * math.sqrt(level * (1 - level) / 400)
        )


def test_holm() -> None:
    """Factors 4, 3, 2 and 1 by rank: 0.01 x 4, 0.02 x 3, 0.03 x 2; then 0.04 is raised to 0.06."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([math.nan, 0.02, 0.04]) == pytest.approx([math.nan, 0.04, 0.04], nan_ok=True)
    assert holm([]) == []
