"""Effective lengths: worked examples, and how often their intervals contain the true one."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from lampe_eval.results.effective_length import (
    SHARE,
    EffectiveLength,
    ScoreAtLength,
    absolute_effective_length,
    base_lengths,
    relative_effective_length,
)
from lampe_eval.scoring.estimates import Scale


def exact(*scores: float) -> dict[int, ScoreAtLength]:
    """Return scores without error at 256, 512, 1024 and so on."""
    return {256 * 2**n: ScoreAtLength(score, score, score) for n, score in enumerate(scores)}


def effective(
    scores: dict[int, ScoreAtLength],
    window: int = 256,
    scale: Scale = "percent",
    *,
    higher_is_better: bool = True,
) -> EffectiveLength:
    found = relative_effective_length(
        scores,
        bases=base_lengths(scores, window),
        scale=scale,
        higher_is_better=higher_is_better,
    )
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("scores", "window", "expected"),
    [
        # NoLiMa's README: Llama-3.1-8B keeps its base of 76.7 up to 1K, of which 65.7 is 85.7 %
        (exact(76.7, 76.0, 65.7, 54.4, 44.1), 2048, 1024),
        (exact(100, 100, 84, 10), 256, 512),
        (exact(0, 0, 0), 256, 0),
        # the base is the best score up to a quarter of the window, not that of longer prompts
        (exact(60, 67, 70, 100), 2048, 2048),
        (exact(60, 80, 67, 100), 256, 2048),
        # shorter prompts than those of the base do not count
        (exact(60, 80, 70, 100), 2048, 2048),
    ],
)
def test_the_longest_length_at_which_a_score_is_kept(
    scores: dict[int, ScoreAtLength], window: int, expected: int
) -> None:
    found = effective(scores, window)
    assert found == EffectiveLength(expected, expected, expected, max(scores))


@pytest.mark.parametrize(
    ("scores", "length", "again"),
    [
        (exact(100, 80, 90, 10), 256, 1024),
        (exact(100, 90, 80, 90, 10, 86), 512, 8192),
        (exact(100, 90, 80, 10), 512, 0),
    ],
)
def test_a_score_that_recovers_is_stated_and_does_not_count(
    scores: dict[int, ScoreAtLength], length: int, again: int
) -> None:
    found = effective(scores)
    assert (found.length, found.again) == (length, again)
    found = absolute_effective_length(scores, 85)
    assert (found.length, found.again) == (length, again)


@pytest.mark.parametrize("known", [{}, exact(100), {1024: ScoreAtLength(9, 9, 9)} | exact(1, 1)])
def test_without_a_base_and_another_length_there_is_none(known: dict[int, ScoreAtLength]) -> None:
    bases = [128] if 1024 in known else [256]
    args = {"bases": bases, "scale": "percent", "higher_is_better": True}
    assert relative_effective_length(known, **args) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scores", "scale", "higher_is_better"),
    [
        # a share of errors is kept as the share without them is: 90 of 100, then 77 and 76
        (exact(10, 23, 24), "percent", False),
        # of what grows without an end, 85 % of the base: 100, then 86 and 84
        (exact(100, 86, 84), "log", True),
        (exact(3.0, 3.52, 3.53), "log", False),
    ],
)
def test_scale_and_direction_are_two_things(
    scores: dict[int, ScoreAtLength], scale: Scale, higher_is_better: bool
) -> None:
    found = effective(scores, scale=scale, higher_is_better=higher_is_better)
    assert (found.length, found.low, found.high) == (512, 512, 512)


def test_a_perplexity_is_kept_up_to_its_base_over_the_share() -> None:
    scores = exact(20.0, 20 / SHARE - 0.01, 20 / SHARE + 0.01, math.inf)
    found = effective(scores, scale="log", higher_is_better=False)
    assert (found.length, found.longest) == (512, 2048)


def test_a_threshold_is_reached_or_not() -> None:
    scores = {4096: ScoreAtLength(90, 86, 94), 8192: ScoreAtLength(86, 80, 90)}
    scores[16384] = ScoreAtLength(80, 70, 87)
    assert absolute_effective_length(scores, 85.6) == EffectiveLength(8192, 4096, 16384, 16384)


def test_without_an_interval_nothing_is_shown() -> None:
    scores = {n: ScoreAtLength(s, math.nan, math.nan) for n, s in ((256, 3.0), (512, 9.0))}
    found = effective(scores, scale="log", higher_is_better=False)
    assert found == EffectiveLength(256, 256, 512, 512)


@pytest.mark.parametrize("samples", [10, 50])
@pytest.mark.parametrize(
    ("shares", "true_length"),
    [((0.98, 0.98, 0.9, 0.5), 1024), ((0.8, 0.75, 0.4, 0.1), 512), ((0.9, 0.2, 0.1, 0.0), 256)],
)
def test_the_interval_contains_the_true_effective_length(
    samples: int, shares: tuple[float, ...], true_length: int
) -> None:
    rng = np.random.default_rng(0)
    intervals = [_wilson(right, samples) for right in range(samples + 1)]
    contained = 0
    rounds = 1_000
    for right in rng.binomial(samples, shares, size=(rounds, len(shares))):
        scores = {256 * 2**n: intervals[k] for n, k in enumerate(right)}
        found = effective(scores)
        assert found.low <= found.length <= found.high
        contained += found.low <= true_length <= found.high
    assert contained / rounds >= 0.93


def _wilson(right: int, samples: int) -> ScoreAtLength:
    low, high = binomtest(right, samples).proportion_ci(method="wilson")
    return ScoreAtLength(right / samples, low, high)
