"""Paired tests: worked examples, intervals that agree with p-values, size, power, a real run."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import paired_coverage
from lampe_eval.results.all_pairs import corrected_p_values
from lampe_eval.results.detectable import detectable_difference, power, units_needed
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.results.paired_tests import (
    BoundedTest,
    CellSamples,
    PairedTest,
    StudentTest,
    UnitDifferences,
    holm,
    paired_test,
    pool,
    unit_differences,
)
from lampe_eval.scoring.estimates import Array, Estimate

RESULTS = Path(__file__).parents[2] / "results"


def _samples(values: Sequence[float], ids: str = "abcdefghijklmnopqrstuvwxyz") -> CellSamples:
    """Return samples with these shares of right answers."""
    named = [(sample_id, "") for sample_id in ids[: len(values)]]
    return CellSamples(named, Estimate.mean([100 * value for value in values]))


def _losses(losses: Sequence[float]) -> CellSamples:
    named = [(f"{index}", "") for index in range(len(losses))]
    parts = np.array([[10 * loss, 10] for loss in losses])
    return CellSamples(named, Estimate(parts, _perplexity))


def _perplexity(means: Array) -> Array:
    return np.asarray(np.exp(means[..., 0] / means[..., 1]))


def _units(
    method: CellSamples, reference: CellSamples, *, is_perplexity: bool = False
) -> UnitDifferences:
    found = unit_differences(method, reference, is_perplexity=is_perplexity)
    assert found is not None
    return found


def _test(method: Sequence[float], reference: Sequence[float]) -> PairedTest:
    test = paired_test(_units(_samples(method), _samples(reference)))
    assert test is not None
    return test


@pytest.mark.parametrize(("wins", "losses"), [(6, 0), (5, 1), (9, 2), (10, 0), (4, 4), (0, 7)])
def test_right_or_wrong_answers_have_the_p_value_of_mcnemar(wins: int, losses: int) -> None:
    method = [1] * wins + [0] * losses + [1] * 3
    reference = [0] * wins + [1] * losses + [1] * 3
    chi_square = (wins - losses) ** 2 / (wins + losses)
    expected = stats.chi2.sf(chi_square, 1)
    assert _test(method, reference).p_value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("n", "wins", "low", "high"),
    [
        # Wilson's interval of 10 of 10, and of 0 of 10 and 50 in both directions
        (10, 10, (10 - 3.8415) / (10 + 3.8415), 1),
        (10, 0, -3.8415 / 13.8415, 3.8415 / 13.8415),
        (50, 0, -3.8415 / 53.8415, 3.8415 / 53.8415),
    ],
)
def test_samples_that_are_all_alike_have_the_interval_of_wilson(
    n: int, wins: int, low: float, high: float
) -> None:
    test = BoundedTest(wins / n, 0, n, 1)
    assert test.interval() == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("method", [0, 0.5, 1])
def test_no_interval_of_scores_is_blank_or_a_point(n: int, method: float) -> None:
    low, high = _test([method] * n, [0.5] * n).interval()
    assert -1 <= low < high <= 1
    assert low <= method - 0.5 <= high


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("difference", [0, 0.5])
def test_losses_that_all_differ_alike_have_an_interval(n: int, difference: float) -> None:
    losses = [1.0 + index for index in range(n)]
    units = _units(
        _losses([loss + difference for loss in losses]), _losses(losses), is_perplexity=True
    )
    test = paired_test(units)
    assert test is not None
    low, high = test.interval()
    assert low < difference < high
    assert (test.p_value == 1) == (difference == 0)


def test_perplexities_have_the_t_test_of_log_losses() -> None:
    rng = np.random.default_rng(3)
    method, reference = rng.normal(2, 0.3, (2, 7))
    units = _units(_losses(method), _losses(reference), is_perplexity=True)
    test, expected = paired_test(units), stats.ttest_rel(method, reference)
    assert test is not None
    assert test.difference == pytest.approx(np.mean(method - reference))
    assert test.p_value == pytest.approx(expected.pvalue)
    assert test.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_a_single_window_and_an_infinite_loss_have_no_test() -> None:
    for method, reference in (([1.0], [2.0]), ([1.0, math.inf], [1.0, 2.0])):
        units = _units(_losses(method), _losses(reference), is_perplexity=True)
        assert paired_test(units) is None


def _random_tests() -> list[PairedTest]:
    rng = np.random.default_rng(1)
    tests: list[PairedTest] = []
    for n, kind in itertools.product((1, 2, 3, 4, 7, 10, 30, 200), range(12)):
        right = rng.binomial(1, rng.random(), (2, n))
        parts = rng.binomial(4, rng.random(), (2, n)) / 4
        smooth = np.clip(rng.normal(0.4, 0.1, (2, n)) + np.array([[0.05 * kind], [0]]), 0, 1)
        for method, reference in (right, parts, smooth, [np.ones(n), right[0]]):
            tests.append(_test_of_arrays(method, reference))
        if n > 1:
            losses = rng.normal(2, 0.2, (2, n)) + np.array([[0.1 * kind], [0]])
            found = paired_test(_units(_losses(losses[0]), _losses(losses[1]), is_perplexity=True))
            assert found is not None
            tests.append(found)
    return tests


def _test_of_arrays(method: Array, reference: Array) -> PairedTest:
    named = [(f"{index}", "") for index in range(len(method))]
    samples = [CellSamples(named, Estimate.mean(100 * scores)) for scores in (method, reference)]
    test = paired_test(_units(*samples))
    assert test is not None
    return test


def test_intervals_exclude_0_exactly_where_the_p_value_is_small() -> None:
    for test in _random_tests():
        for level in (0.3, 0.1, 0.05, 0.05 / 11, 1e-5, test.p_value * 0.999, test.p_value * 1.001):
            if not 1e-9 < level < 1:  # a smaller one is not exact as a confidence
                continue
            low, high = test.interval(1 - level)
            assert low < high
            assert low <= test.difference <= high
            excludes_zero = low > 0 or high < 0
            assert excludes_zero == (test.p_value < level), (test, level)


def test_a_narrower_interval_lies_within_a_wider_one() -> None:
    for test in _random_tests():
        ends = np.array([test.interval(confidence) for confidence in (0.5, 0.8, 0.95, 0.999)])
        assert (np.diff(ends[:, 0]) <= 0).all()
        assert (np.diff(ends[:, 1]) >= 0).all()


def test_methods_are_compared_on_the_samples_that_both_have() -> None:
    method, reference = _samples([1, 0, 1], ids="xyz"), _samples([1, 1, 0], ids="wzx")
    units = _units(method, reference)
    assert (units.n, units.difference) == (2, 0.5)
    assert unit_differences(_samples([1], "x"), _samples([1], "y"), is_perplexity=False) is None


def test_documents_are_units_that_weigh_as_their_samples() -> None:
    """Three documents of 1, 2 and 3 samples: means -1, 0.5 and 1."""
    ids = [(f"{index}", "") for index in range(6)]
    groups = [7, 3, 3, 5, 5, 5]
    method = Estimate(100 * np.array([[0.0], [1], [1], [1], [1], [1]]), groups=groups)
    reference = Estimate(100 * np.array([[1.0], [0], [1], [0], [0], [0]]), groups=groups)
    units = _units(CellSamples(ids, method), CellSamples(ids, reference))
    assert units.values == pytest.approx({("", 3): 0.5, ("", 5): 1, ("", 7): -1})
    assert units.weights == pytest.approx({("", 3): 2 / 6, ("", 5): 3 / 6, ("", 7): 1 / 6})
    assert units.difference == pytest.approx(3 / 6)
    test = paired_test(units)
    assert test is not None
    assert test.n == pytest.approx(36 / (1 + 4 + 9))


def test_a_geometric_mean_is_compared_as_such() -> None:
    """Summaries of L-Eval: a unit's difference is a pseudo-value of the jackknife."""
    rng = np.random.default_rng(0)
    ids = [(f"{index}", "") for index in range(40)]

    def geometric(means: Array) -> Array:
        return np.asarray(np.prod(means, axis=-1) ** (1 / 3))

    method, reference = (Estimate(rng.uniform(20, 40, (40, 3)), geometric) for _ in range(2))
    units = _units(CellSamples(ids, method), CellSamples(ids, reference))
    assert units.difference == pytest.approx((method.value - reference.value) / 100, abs=1e-4)


def test_a_question_at_several_lengths_is_one_unit() -> None:
    strata: list[UnitDifferences] = []
    for length, right in ((512, [1, 1, 1]), (1024, [1, 0, 0])):
        ids = [(f"{length}/{index}", "") for index in range(3)]
        method, reference = (
            CellSamples(ids, Estimate.mean([100 * each for each in of_method]))
            for of_method in (right, [0, 0, 0])
        )
        found = unit_differences(
            method, reference, is_perplexity=False, task="single", length=length
        )
        assert found is not None
        strata.append(found)
    pooled = pool(strata)
    assert pooled.n == 6
    expected = {("single", "0"): 1, ("single", "1"): 0.5, ("single", "2"): 0.5}
    assert pooled.values == pytest.approx(expected)
    assert pooled.difference == pytest.approx(2 / 3)
    weighted = pool(strata, [0.75, 0.25])
    assert weighted.difference == pytest.approx(0.75 + 0.25 / 3)


def _stratum(
    task: str, length: int, right: Sequence[float], documents: Sequence[str]
) -> UnitDifferences:
    """Return how much better a method is than one that is always wrong."""
    ids = [(f"{length}/{index}", "") for index in range(len(right))]
    method, reference = (
        CellSamples(ids, Estimate.mean([100 * each for each in scores]), documents)
        for scores in (right, [0] * len(right))
    )
    found = unit_differences(method, reference, is_perplexity=False, task=task, length=length)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("first", "second", "units"),
    [
        # other tasks share a document, at the same or another length
        (("a", 512, "xyz"), ("b", 512, "xyz"), [0.5, 1, 0.5]),
        (("a", 512, "xyz"), ("b", 1024, "zyx"), [1, 1, 0]),
        (("a", 512, "xyz"), ("b", 512, "uvw"), [1, 1, 0, 0, 1, 1]),
        (("a", 512, "xyz"), ("b", 512, ["x", "", "w"]), [0.5, 1, 0, 1, 1]),
        # the same question at another length has a haystack of that length
        (("a", 512, "xyz"), ("a", 1024, "uvw"), [0.5, 1, 0.5]),
        # documents are one unit by way of others
        (("a", 512, "xyz"), ("a", 1024, "xxz"), [0.75, 0.5]),
        # a single document, or none known: keys alone
        (("a", 512, "xxx"), ("b", 512, "xxx"), [1, 1, 0, 0, 1, 1]),
        (("a", 512, "xxx"), ("a", 1024, "yyy"), [0.5, 1, 0.5]),
        (("a", 512, ["", "", ""]), ("b", 512, ["", "", ""]), [1, 1, 0, 0, 1, 1]),
        (("a", 512, ""), ("b", 512, "xyz"), [1, 1, 0, 0, 1, 1]),
    ],
)
def test_samples_of_a_document_are_one_unit_in_any_task_and_length(
    first: tuple[str, int, Sequence[str]],
    second: tuple[str, int, Sequence[str]],
    units: list[float],
) -> None:
    strata = [
        _stratum(task, length, right, documents)
        for (task, length, documents), right in ((first, [1, 1, 0]), (second, [0, 1, 1]))
    ]
    pooled = pool(strata)
    assert sorted(pooled.values.values()) == pytest.approx(sorted(units), abs=1e-9)
    assert pooled.independent_units == len(units)
    assert sum(pooled.weights.values()) == pytest.approx(1)
    assert pooled.difference == pytest.approx(2 / 3)


@pytest.mark.parametrize("numbers", [(4, 4), (4, 7)])
def test_the_error_of_a_perplexity_over_lengths_is_the_mean_of_theirs(
    numbers: tuple[int, int],
) -> None:
    """Windows of several lengths overlap; however they depend, no mean has a larger error."""
    rng = np.random.default_rng(5)
    strata = [
        _units(_losses(rng.normal(2, 0.3, n)), _losses(rng.normal(2, 0.3, n)), is_perplexity=True)
        for n in numbers
    ]
    pooled = pool(strata)
    test, tests = paired_test(pooled), [paired_test(stratum) for stratum in strata]
    assert isinstance(test, StudentTest)
    errors = [math.sqrt(each.variance / each.n) for each in tests if each]
    assert math.sqrt(test.variance / test.n) == pytest.approx(np.mean(errors))
    assert test.n == pytest.approx(min(numbers)) == pooled.independent_units
    assert test.difference == pytest.approx(np.mean([each.difference for each in tests if each]))
    single = _units(_losses([1.0]), _losses([2.0]), is_perplexity=True)
    assert paired_test(pool([*strata, single])) is None


def _all_pairs(right: Sequence[Sequence[int]]) -> list[float]:
    """Return the corrected p-values of all pairs of methods with these right answers."""
    return corrected_p_values(
        [
            _units(_samples(first), _samples(second))
            for first, second in itertools.combinations(right, 2)
        ]
    )


def test_all_pairs_of_twelve_methods_are_told_apart_by_ten_samples() -> None:
    """Expect what Holm's correction of 66 pairs cannot show: 10 of 10 against 0 of 10."""
    p_values = _all_pairs([[1] * 10] * 6 + [[0] * 10] * 6)
    # all pairs that differ do so in the same samples: 2 of 2^10 choices of signs
    assert sorted(p_values) == pytest.approx([2**-9] * 36 + [1] * 30)


def test_a_pair_alone_is_not_corrected() -> None:
    method, reference = [1] * 5 + [0] * 5, [0] * 10
    assert _all_pairs([method, reference]) == [_test(method, reference).p_value]
    assert corrected_p_values([]) == []


def test_corrected_p_values_are_in_the_order_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    for n in (6, 12, 20):
        right = [rng.binomial(1, share, n).tolist() for share in (0.1, 0.4, 0.6, 0.95)]
        p_values = _all_pairs(right)
        statistics = [
            abs(np.sum(first) - np.sum(second)) / math.sqrt(max(1, np.sum(first != second)))
            for first, second in itertools.combinations(np.array(right), 2)
        ]
        assert (np.diff(np.array(p_values)[np.argsort(statistics)]) <= 0).all()
        assert min(p_values) >= 2 ** (1 - n)


@pytest.mark.parametrize(
    "name",
    [
        "0/1, 0.5, correlation 0.0, n = 10",
        "0/1, 0.9, correlation 0.0, n = 50",
        "perplexity, n = 10",
    ],
)
def test_twelve_equal_methods_are_rarely_shown_worse(name: str) -> None:
    (family,) = (each for each in paired_coverage.families() if each.name == name)
    simulations = 100
    result = paired_coverage.simulate_family(family, simulations)
    assert result.wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / simulations)


def test_rounding_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.integers(0, 11, 12) / 11
        test = _test(scores.tolist(), (scores * 7 / 7 + 1e-12).tolist())
        assert test.p_value == 1
        low, high = test.interval()
        assert low < -0.1 < 0.1 < high


def test_holm() -> None:
    """Factors 4, 3, 2 and 1 by rank: 0.01 x 4, 0.02 x 3, 0.03 x 2; then 0.04 is raised to 0.06."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([math.nan, 0.02, 0.04]) == pytest.approx([math.nan, 0.04, 0.04], nan_ok=True)
    assert holm([]) == []


@pytest.mark.parametrize(
    "name",
    [
        "0/1, 0.5 against 0.5, correlation 0.0, n = 10",
        "0/1, 0.98 against 0.98, correlation 0.6, n = 10",
        "0/1, 0.98 against 0.5, correlation 0.3, n = 10",
        "0/1, 0.1 against 0.1, correlation 0.6, n = 50",
        "4 parts, .9 against .5, n = 10",
        "ROUGE, equal, n = 10",
        "perplexity, 2 % higher, n = 5",
        "15 documents of questions, difference 0.1",
        "4 lengths pooled, 0.9 against 0.9",
    ],
)
def test_intervals_cover_and_errors_are_rare(name: str) -> None:
    """Simulate few runs with a fixed seed; benchmarks/paired_coverage.py has the whole table."""
    (scenario,) = (each for each in paired_coverage.scenarios() if each.name == name)
    simulations = 300
    result = paired_coverage.simulate(scenario, simulations)
    deviation = math.sqrt(0.05 * 0.95 / simulations)
    assert result.coverage >= 0.95 - 2 * deviation
    if scenario.difference == 0:
        assert result.found <= 0.05 + 2 * deviation
        assert result.found_corrected <= 0.05 / paired_coverage.METHODS + deviation


@pytest.mark.parametrize(("n", "level"), [(10, 0.05), (64, 0.05), (64, 0.05 / 11), (200, 0.05)])
@pytest.mark.parametrize("variance", [0, 0.2])
def test_the_detectable_difference_is_found_as_often_as_it_says(
    n: int, level: float, variance: float
) -> None:
    difference = detectable_difference(BoundedTest(0, variance, n, 1), level)
    share = max(difference, min(1, variance + difference**2))
    rng = np.random.default_rng(2)
    wins = (share + difference) / 2
    found = 0
    for steps in rng.choice([-1, 0, 1], (400, n), p=[share - wins, 1 - share, wins]):
        mean, reach = steps.mean(), float(np.abs(steps).max()) or 1.0
        found += BoundedTest(mean, steps.var(), n, reach).p_value < level
    assert found / 400 == pytest.approx(0.8, abs=0.05)


def test_the_detectable_perplexity_is_that_of_the_t_test() -> None:
    test = StudentTest(0, 0.01, 10)
    difference = detectable_difference(test, 0.05)
    rng = np.random.default_rng(2)
    samples = rng.normal(difference, 0.1, (4000, 10))
    assert np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05) == pytest.approx(
        0.8, abs=0.02
    )


@pytest.mark.parametrize(
    "test", [BoundedTest(0, 0.25, 10, 1), BoundedTest(0, 0.01, 10, 0.3), StudentTest(0, 0.01, 5)]
)
def test_needed_units_show_a_useful_difference(test: PairedTest) -> None:
    needed = units_needed(test, 0.05)
    assert needed is not None
    useful = 0.15 if isinstance(test, BoundedTest) else math.log(1.05)
    assert power(test, useful, 0.05, needed) >= 0.8
    assert power(test, useful, 0.05, needed // 2) < 0.8


def test_nobody_is_told_a_number_of_units_that_is_a_bound_of_the_search() -> None:
    assert units_needed(StudentTest(0, 1e6, 5), 0.05) is None


def test_too_few_samples_can_show_nothing() -> None:
    assert math.isinf(detectable_difference(BoundedTest(0, 0.1, 4, 1), 0.05 / 11))


def test_the_pooled_test_separates_what_the_pictures_of_pocket_show() -> None:
    gathered = gather_runs([RESULTS / "pocket"], reference="lampe")
    pairs = gathered.pairs
    assert len(pairs[pairs["scope"] != "cell"]) == 2 * 2 * 11  # benches, scopes, methods
    pooled = pairs[(pairs["scope"] == "beyond the window") & (pairs["bench"] == "niah")]
    by_method = pooled.set_index("method")
    for method in ("pi", "ntk", "string"):
        assert by_method.loc[method, "p_value_holm"] < 0.01
        assert by_method.loc[method, "ci_high"] < -25
    assert by_method.loc["selfextend", "p_value_holm"] > 0.05
    assert pairs[["ci_low", "ci_high"]].notna().all().all()
    assert (pairs["ci_low"] < pairs["ci_high"]).all()
    excludes_zero = (pairs["ci_low"] > 0) | (pairs["ci_high"] < 0)
    assert (excludes_zero == (pairs["p_value"] < 0.05)).all()


def test_groups_that_one_side_knows_hold_for_both() -> None:
    ids = [(str(number), "") for number in range(40)]
    right = np.array([[100.0 * (number % 3 > 0)] for number in range(40)])
    wrong = np.array([[100.0 * (number % 5 > 2)] for number in range(40)])
    grouped = CellSamples(ids, Estimate(right, groups=[number // 8 for number in range(40)]))
    alone = CellSamples(ids, Estimate(wrong))
    one_way = unit_differences(grouped, alone, is_perplexity=False)
    other_way = unit_differences(alone, grouped, is_perplexity=False)
    assert one_way and other_way
    assert len(one_way.values) == len(other_way.values) == 5
    tests = [paired_test(one_way), paired_test(other_way)]
    assert tests[0] and tests[1]
    assert tests[0].p_value == pytest.approx(tests[1].p_value) != 1
