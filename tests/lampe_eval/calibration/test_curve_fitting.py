"""Fits recover the constants of the curve that made their points."""

import math
from collections.abc import Sequence

import pytest

import lampe
from lampe_eval.calibration import curve_fitting

LENGTHS = (8192, 16384, 32768, 65536, 131072)


def best_values(
    lengths: Sequence[int], values: Sequence[float], weights: Sequence[float] = ()
) -> list[curve_fitting.BestValue]:
    return [
        curve_fitting.BestValue(*each, False)
        for each in zip(lengths, values, weights or [1.0] * len(lengths), strict=True)
    ]


def test_the_lowest_point_of_a_parabola_lies_between_the_values_tried() -> None:
    values = [10, 20, 30, 50]
    best = curve_fitting.best_value(256, values, [(value - 23) ** 2 + 7 for value in values])
    assert (best.value, best.weight, best.edge) == (pytest.approx(23), 27**2 - 3**2, False)


@pytest.mark.parametrize(
    ("losses", "value", "edge"),
    [
        ([1, 2, 3, 4], 10, True),
        ([4, 3, 2, 1], 60, True),
        ([5, -100, -100, 0], 25, False),
        ([5, -100, -100, -100], (20 + 30 + 60) / 3, True),
        ([0, 5, 0, 0], 45, True),  # the mean of neighbours only, as 20 is the worst of all
    ],
)
def test_a_lowest_end_is_best_and_so_is_the_middle_of_equal_values(
    losses: list[int], value: float, edge: bool
) -> None:
    best = curve_fitting.best_value(256, [10, 20, 30, 60], losses)
    assert (best.value, best.edge) == (pytest.approx(value), edge)


@pytest.mark.parametrize("name", ["llama3", "llama3.1"])
def test_published_curves_are_recovered(name: str) -> None:
    curve = lampe.PUBLISHED_CURVES[name]
    lengths = [length for length in LENGTHS if length >= curve.short_below]
    fitted = curve_fitting.fit_sigmoid(
        best_values(lengths, [curve(length) for length in lengths]), curve.window, curve.window
    )
    # the curve's values are whole positions, so its constants are recovered only about as exactly
    assert [fitted(length) for length in lengths] == pytest.approx(
        [curve(length) for length in lengths], abs=2
    )
    assert fitted.slope == pytest.approx(curve.slope, rel=1e-2)
    assert fitted.ceiling == pytest.approx(curve.ceiling, rel=1e-2)


def test_a_curve_never_decreases_nor_exceeds_its_ceiling() -> None:
    lengths = (256, 512, 1024, 2048)
    falling = curve_fitting.fit_sigmoid(best_values(lengths, (250, 200, 150, 100)), 256, 256)
    assert falling(2048) == pytest.approx(falling(256), abs=1) == pytest.approx(175, abs=1)
    assert (
        curve_fitting.fit_sigmoid(best_values(lengths, (240, 240, 240, 240)), 256, 200)(4096) <= 200
    )


def test_a_flat_curve_has_no_slope() -> None:
    # As found on a real model: a slope of 3e-23 would stand in the names of methods.
    best = best_values((8192, 10240, 14336), (4984, 4096, 4096))
    assert curve_fitting.fit_sigmoid(best, 8192, 7680).slope == 0


def test_mapping_lengths_of_a_small_part_of_the_window_are_fitted() -> None:
    fitted = curve_fitting.fit_sigmoid(
        best_values((131072, 262144, 524288), (1000, 1100, 1200)), 131072, 131072
    )
    assert fitted(262144) == pytest.approx(1100, rel=0.02)


def test_a_length_at_which_no_value_is_better_has_no_influence() -> None:
    lengths, rising = (256, 512, 1024, 2048), (50, 100, 150, 175)
    weighted = curve_fitting.fit_sigmoid(
        best_values((*lengths, 4096), (*rising, 10), (1, 1, 1, 1, 0)), 256, 256
    )
    assert weighted == curve_fitting.fit_sigmoid(best_values(lengths, rising), 256, 256)
    factors = (1.0, 1.1, 1.15, 1.2)
    assert curve_fitting.fit_attention_factor(
        best_values((*lengths, 4096), (*factors, 3.0), (1, 1, 1, 1, 0)), 256
    ) == curve_fitting.fit_attention_factor(best_values(lengths, factors), 256)


def test_two_lengths_are_too_few_for_a_sigmoid() -> None:
    with pytest.raises(ValueError, match="2 lengths"):
        curve_fitting.fit_sigmoid(
            best_values((256, 512, 1024), (100, 200, 200), (1, 1, 0)), 256, 256
        )


def test_an_attention_factor_that_grows_is_recovered() -> None:
    factors = [math.sqrt(1.1 + 0.05 * math.log(length / 8192)) for length in LENGTHS]
    assert curve_fitting.fit_attention_factor(best_values(LENGTHS, factors), 8192) == pytest.approx(
        (math.sqrt(1.1), 0.05), rel=1e-5
    )
    method = lampe.method_of("dca", attention_factor=math.sqrt(1.1), attention_factor_rate=0.05)
    encoded = [
        method.encode(lampe.Geometry(window=8192), length).attention_factor.factor
        for length in LENGTHS
    ]
    assert encoded == pytest.approx(factors)


def test_an_attention_factor_is_constant_within_the_window() -> None:
    best = best_values((64, 128, 256, 512), (1.0, 1.0, 1.0, 1.2))
    assert curve_fitting.fit_attention_factor(best, 256) == pytest.approx(
        (1.0, 0.44 / math.log(2)), rel=1e-5
    )


def test_constant_factors_have_a_rate_of_exactly_zero() -> None:
    assert curve_fitting.fit_attention_factor(
        best_values((256, 512, 1024), (1.1, 1.1, 1.1)), 256
    ) == (
        1.1,
        0.0,
    )


@pytest.mark.parametrize(
    ("lengths", "factors", "message"),
    [
        ((64, 128, 256), (1, 1.1, 1.2), "beyond the window"),
        ((256, 512, 1024), (2, 1, 0.1), "below zero"),
    ],
)
def test_factors_that_determine_no_rate_are_refused(
    lengths: tuple[int, ...], factors: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        curve_fitting.fit_attention_factor(best_values(lengths, factors), 256)
