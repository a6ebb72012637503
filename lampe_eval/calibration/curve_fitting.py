"""Fit of a curve's constants to scores on a grid.

LaMPE's paper (arXiv 2508.02308) measures a few pairs of length and best mapping length and fits a
scaled sigmoid to them. Its procedure is not released. Here the best value of a length is the lowest
point of the parabola through the best value tried and its neighbours, and the fit is by least
squares in units of the window. The square of an attention factor is fitted as
``p + q ln(length / window)``, constant within the window.

The weight of a length is the range of its losses, so a length at which no value is better than
another has no influence.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit

from lampe import Sigmoid

FLAT_SLOPE = 1e-9
"""Slope per window below which a curve maps all lengths alike."""
SIGMOID_CONSTANTS = 3
SIGNIFICANT_DIGITS = 6
"""Digits that a card and a table show."""


@dataclass(frozen=True)
class BestValue:
    """Best value of a setting at one length.

    Attributes:
        length: tokens of the prompt.
        value: where the loss is lowest.
        weight: difference between the highest and the lowest loss.
        edge: whether the best value is the first or the last that was tried, so that a better one
            may lie beyond.
    """

    length: int
    value: float
    weight: float
    edge: bool


def best_value(length: int, values: Iterable[float], losses: Iterable[float]) -> BestValue:
    """Return the lowest point of the losses of a length.

    If several values have the lowest loss, it is the mean of those next to each other.

    Args:
        length: tokens of the prompt.
        values: values that were tried, increasing.
        losses: their losses, finite; lower is better.
    """
    x, y = np.array([*values], dtype=float), np.array([*losses], dtype=float)
    lowest = _longest_run(np.flatnonzero(y == y.min()))
    edge = bool(lowest[0] == 0 or lowest[-1] == len(x) - 1)
    weight = float(np.ptp(y))
    # At an edge or on a plateau no parabola has its lowest point between neighbours.
    if edge or len(lowest) > 1:
        return BestValue(length, float(x[lowest].mean()), weight, edge)
    center = lowest[0]
    neighbours = slice(center - 1, center + 2)
    # relative to the best value tried, so that large values lose no digits
    curvature, slope, _ = np.polyfit(x[neighbours] - x[center], y[neighbours], 2)
    return BestValue(length, float(x[center] - slope / (2 * curvature)), weight, False)


def fit_sigmoid(best: Sequence[BestValue], window: int, ceiling: float) -> Sigmoid:
    """Return the scaled sigmoid nearest to each length's best mapping length.

    Args:
        best: best mapping length, in positions, of each length.
        window: tokens of the model's pretraining.
        ceiling: positions that the sigmoid must not exceed. It never decreases either.

    Raises:
        ValueError: if fewer lengths have a weight than the sigmoid has constants.
    """
    best = [each for each in best if each.weight > 0]
    if len(best) < SIGMOID_CONSTANTS:
        raise ValueError(
            "a sigmoid has three constants, "
            f"but at {len(best)} lengths alone one value beats another"
        )
    lengths = np.array([each.length for each in best]) / window
    mappings = np.array([each.value for each in best]) / window
    weights = np.array([each.weight for each in best])
    scales = np.sqrt(weights / weights.max())  # least_squares squares the residuals

    def residuals(constants: np.ndarray) -> np.ndarray:
        slope, intercept, top = constants
        return np.asarray(scales * (top * expit(slope * lengths + intercept) - mappings))

    highest = ceiling / window
    # In windows: the slope per window of prompt, the top in windows of positions. A slope of at
    # least 0 never decreases.
    bounds = ((0.0, -20.0, 0.0), (50.0, 20.0, highest))
    start = (1.0, 0.0, min(highest, mappings.max()))
    slope, intercept, top = least_squares(residuals, start, bounds=bounds).x
    # The solver stops anywhere below FLAT_SLOPE; such digits would stand in names of methods.
    flattened = slope if slope >= FLAT_SLOPE else 0.0
    return Sigmoid(
        _rounded(flattened / window), _rounded(intercept), _rounded(top * window), window
    )


def fit_attention_factor(best: Sequence[BestValue], window: int) -> tuple[float, float]:
    """Return the attention factor within the window and its rate of growth beyond.

    The rate is that of the factor's square with ln(length / window).

    Args:
        best: best attention factor of each length.
        window: tokens of the model's pretraining.

    Raises:
        ValueError: if the lengths do not determine a rate, or the fitted square is not positive.
    """
    best = [each for each in best if each.weight > 0]
    extensions = [log_extension(each.length, window) for each in best]
    if len(set(extensions)) < 2:
        raise ValueError(
            "two lengths, one beyond the window, are needed where one value beats another"
        )
    squares = np.square([each.value for each in best])
    scales = np.sqrt([each.weight for each in best])  # polyfit squares the residuals
    rate, square = np.polyfit(extensions, squares, 1, w=scales)
    if min(square, square + rate * max(extensions)) <= 0:
        raise ValueError("the fit falls below zero; sweep higher attention factors")
    return round(math.sqrt(square), SIGNIFICANT_DIGITS), round(float(rate), SIGNIFICANT_DIGITS)


def log_extension(length: int, window: int) -> float:
    """Return ln(length / window), or 0 for a length within the window."""
    return max(0.0, math.log(length / window))


def _longest_run(indices: np.ndarray) -> np.ndarray:
    """Return the longest run of neighbours among increasing indices, the first of several."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return max(runs, key=len)


def _rounded(number: float) -> float:
    return float(f"{number:.{SIGNIFICANT_DIGITS}g}")
