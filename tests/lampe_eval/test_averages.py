"""Averages over tasks and lengths, with their standard errors and intervals."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from lampe_eval.benches import BENCHES
from lampe_eval.results.bench_averages import bench_averages
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.scoring.intervals import Proportion, average, percent_interval

TEN = Estimate.mean([100.0] * 5 + [0.0] * 5)
"""Five right and five wrong answers."""


def _rows(
    scores: dict[str, tuple[float, float]], length: int = 512, missing: int = 0
) -> pd.DataFrame:
    records: list[dict[str, Any]] = [
        {
            "task": task,
            "length": length,
            "score": value,
            "stderr": stderr,
            "proportion": Proportion(value / 100, 10),
            "n": 10,
            "details": {"0-4k": TEN.value},
            "detail_estimates": {"0-4k": TEN},
        }
        for task, (value, stderr) in scores.items()
    ]
    return pd.DataFrame(records).assign(missing=missing, errors=0, skipped=0)


def _averages(bench: str, rows: pd.DataFrame, protocol: str = "fair") -> dict[str, dict[str, Any]]:
    averages = bench_averages(BENCHES[bench], BENCHES[bench].protocol(protocol), rows)
    return {each["name"]: each for each in averages}


def test_errors_of_independent_tasks_add_in_squares() -> None:
    (mean,) = _averages("ruler", _rows({"vt": (80, 3), "cwe": (60, 4)})).values()
    assert (mean["value"], mean["stderr"]) == pytest.approx((70, 5 / 2))


def test_the_interval_of_an_average_is_that_of_its_proportions() -> None:
    (mean,) = _averages("ruler", _rows({"vt": (80, 3), "cwe": (60, 4)})).values()
    expected = percent_interval(average([0.5, 0.5], [Proportion(0.8, 10), Proportion(0.6, 10)]))
    assert (mean["ci_low"], mean["ci_high"]) == pytest.approx(expected)
    one_task = percent_interval(Proportion(0.7, 10))
    assert mean["ci_high"] - mean["ci_low"] < one_task.high - one_task.low


def test_equal_tasks_are_one_larger_sample() -> None:
    parts = [Proportion(0.9, 10)] * 13
    mean = average([1 / 13] * 13, parts)
    assert (mean.value, mean.samples) == pytest.approx((0.9, 130))
    perfect = average([0.5, 0.5], [Proportion(1, 10), Proportion(1, 30)])
    assert (perfect.value, perfect.samples) == pytest.approx((1, 30))


@pytest.mark.parametrize(
    ("second", "narrower"),
    [
        (range(10, 20), True),  # no document in common
        ((), True),  # documents are not known
        (range(10), False),
    ],
)
def test_documents_that_tasks_share_widen_an_average(
    second: Sequence[int], *, narrower: bool
) -> None:
    first = replace(TEN, documents=range(10)).proportion
    mean = average([0.5, 0.5], [first, replace(TEN, documents=second).proportion])
    alone = average([1], [first])
    if narrower:
        assert mean.samples == pytest.approx(2 * alone.samples)
    else:
        # the answers about each document are the same in both tasks
        assert mean.samples == pytest.approx(alone.samples, rel=0.15)


def test_tasks_of_one_document_count_as_independent() -> None:
    one = replace(Estimate.mean([100.0]), documents=[7]).proportion
    assert average([0.5, 0.5], [one, one]).samples == pytest.approx(2 * one.samples)


def test_a_perfect_average_is_as_certain_as_one_with_an_error() -> None:
    perfect = Estimate.mean([100.0] * 10)
    flawed = Estimate.mean([100.0] * 9 + [0.0])
    parts = [replace(each, documents=range(10)).proportion for each in (perfect, flawed)]
    means = [average([1, 1, 1], [parts[0], parts[0], last]) for last in parts]
    lows = [mean.interval().low for mean in means]
    assert lows[0] > lows[1]


def test_categories_have_equal_weights() -> None:
    """Give one code task the weight of two few-shot tasks."""
    (mean,) = _averages(
        "longbench", _rows({"lcc": (80, 4), "trec": (60, 0), "samsum": (40, 8)}), "official"
    ).values()
    expected = (65, math.hypot(4 / 2, 8 / 4))
    assert (mean["value"], mean["stderr"]) == pytest.approx(expected, abs=0.01)


def test_averages_of_details_have_the_intervals_of_these() -> None:
    band = _averages("longbench-e", _rows({"lcc": (80, 4), "trec": (60, 0)}))["0-4k, 2 tasks"]
    expected = percent_interval(average([0.5, 0.5], [TEN.proportion, TEN.proportion]))
    assert (band["ci_low"], band["ci_high"]) == pytest.approx(expected)
    assert math.isnan(band["stderr"])


def test_lengths_ask_the_same_questions() -> None:
    """Expect the average over equal lengths to be as uncertain as each of them."""
    rows = pd.concat([_rows({"vt": (90, 3), "cwe": (90, 3)}, length) for length in (512, 1024)])
    averages = _averages("ruler", rows)
    at_length, over_lengths = (
        averages["mean of 2 tasks"],
        averages["mean, longer lengths weigh more"],
    )
    for end in ("ci_low", "ci_high"):
        assert over_lengths[end] == pytest.approx(at_length[end])


def test_a_number_that_is_no_average_of_scores_has_no_interval() -> None:
    rows = pd.concat([_rows({"vt": (90, 3), "cwe": (90, 3)}, length) for length in (512, 1024)])
    number = _averages("ruler", rows)["effective length"]
    assert number["value"] == 1024
    assert math.isnan(number["ci_low"])
    assert "stderr" not in number


def test_an_incomplete_task_leaves_no_average() -> None:
    assert _averages("ruler", _rows({"vt": (80, 3), "cwe": (60, 4)}, missing=1)) == {}
