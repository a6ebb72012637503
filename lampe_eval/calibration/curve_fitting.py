"""From scores on a grid to the constants of a curve.

LaMPE's paper (arXiv 2508.02308) measures a few pairs of length and best mapping length and fits a scaled sigmoid to
them. How is not released; here the best value of a length is the lowest point of the parabola through the best value
tried and its neighbours, and the fit is by least squares in units of the window. The square of a attention_factor is fitted
as ``p + q ln(length / window)``, flat within the window.

Each length weighs as much as its values differ in loss, so that one at which none is better than another says nothing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit

from lampe import Sigmoid


@dataclass(frozen=True)
class BestValue:
    """What a length's losses say of a setting.

    Attributes:
        value: where the loss is lowest.
        weight: how far the losses are apart.
        edge: whether the best value is the first or the last that was tried, so that a better one may lie beyond.
    """

    length: int
    value: float
    weight: float
    edge: bool


def best_value(length: int, values: Iterable[float], losses: Iterable[float]) -> BestValue:
    """The lowest point of finite losses at increasing values; of several as low, the middle of those side by side."""
    x, y = np.array([*values], dtype=float), np.array([*losses], dtype=float)
    tied = _longest_run(np.flatnonzero(y == y.min()))
    edge, weight = tied[0] == 0 or tied[-1] == len(x) - 1, float(np.ptp(y))
    if edge or len(tied) > 1:
        return BestValue(length, float(x[tied].mean()), weight, bool(edge))
    at = slice(tied[0] - 1, tied[0] + 2)
    bend, slope, _ = np.polyfit(x[at] - x[tied[0]], y[at], 2)
    return BestValue(length, float(x[tied[0]] - slope / (2 * bend)), weight, False)


def fit_sigmoid(found: Sequence[BestValue], window: int, ceiling: float) -> Sigmoid:
    """The scaled sigmoid nearest to each length's best mapping length; it never falls nor exceeds ``ceiling``.

    Raises:
        ValueError: where fewer lengths say anything than it has constants.
    """
    found = [each for each in found if each.weight > 0]
    if len(found) < 3:
        raise ValueError(
            f"a sigmoid has three constants, and at {len(found)} lengths alone one value beats another"
        )
    x, y, weight = (
        np.array(column)
        for column in zip(*((b.length, b.value, b.weight) for b in found), strict=True)
    )
    x, y, weight = x / window, y / window, np.sqrt(weight / weight.max())

    def missed(constants: np.ndarray) -> np.ndarray:
        slope, intercept, top = constants
        return np.asarray(weight * (top * expit(slope * x + intercept) - y))

    most = ceiling / window
    bounds = ((0.0, -20.0, 0.0), (50.0, 20.0, most))
    slope, intercept, top = least_squares(missed, (1.0, 0.0, min(most, y.max())), bounds=bounds).x
    return Sigmoid(_digits(slope / window), _digits(intercept), _digits(top * window), window)


def fit_attention_factor(found: Sequence[BestValue], window: int) -> tuple[float, float]:
    """Attention factor within the window, and the rate at which its square grows with ln(length / window) beyond.

    Raises:
        ValueError: for lengths that do not tell a growth, and for a fit that is no attention_factor.
    """
    found = [each for each in found if each.weight > 0]
    spans = [log_extension(each.length, window) for each in found]
    if len(set(spans)) < 2:
        raise ValueError(
            "it takes two lengths, one beyond the window, where one value beats another"
        )
    weights = np.sqrt([each.weight for each in found])
    rate, square = np.polyfit(spans, np.square([each.value for each in found]), 1, w=weights)
    if min(square, square + rate * max(spans)) <= 0:
        raise ValueError("the fit falls below zero; sweep higher attention_factors")
    return round(math.sqrt(square), 6), round(float(rate), 6)


def log_extension(length: int, window: int) -> float:
    """How far beyond the window a length is, by its logarithm."""
    return max(0.0, math.log(length / window))


def _longest_run(indices: np.ndarray) -> np.ndarray:
    """The longest run of neighbours among increasing indices, the first of several."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return max(runs, key=len)


def _digits(number: float) -> float:
    """Six digits, which is what a card and a table show."""
    return float(f"{number:.6g}")
