"""Averages over tasks, and their standard errors."""

import math
from typing import Any

import pandas as pd
import pytest

from lampe_eval.benches import BENCHES
from lampe_eval.results.bench_averages import bench_averages


def _rows(
    scores: dict[str, tuple[float, float]], length: int = 512, missing: int = 0
) -> pd.DataFrame:
    records: list[dict[str, Any]] = [
        {
            "task": task,
            "length": length,
            "score": value,
            "stderr": stderr,
            "n": 5,
            "details": {"short": value},
        }
        for task, (value, stderr) in scores.items()
    ]
    return pd.DataFrame(records).assign(missing=missing, errors=0, skipped=0)


def _averages(
    bench: str, rows: pd.DataFrame, protocol: str = "fair"
) -> dict[str, tuple[float, float]]:
    averages = bench_averages(BENCHES[bench], BENCHES[bench].protocol(protocol), rows)
    return {each["name"]: (each["value"], each.get("stderr", math.nan)) for each in averages}


def test_errors_of_independent_tasks_add_in_squares() -> None:
    ((value, stderr),) = _averages("ruler", _rows({"vt": (80, 3), "cwe": (60, 4)})).values()
    assert (value, stderr) == pytest.approx((70, 5 / 2))


def test_categories_have_equal_weights() -> None:
    """Give one code task the weight of two few-shot tasks."""
    (average,) = _averages(
        "longbench", _rows({"lcc": (80, 4), "trec": (60, 0), "samsum": (40, 8)}), "official"
    ).values()
    assert average == pytest.approx((65, math.hypot(4 / 2, 8 / 4)), abs=0.01)


def test_a_number_that_is_no_average_of_scores_has_no_error() -> None:
    rows = pd.concat([_rows({"vt": (90, 3), "cwe": (90, 3)}, length) for length in (512, 1024)])
    assert _averages("ruler", rows)["effective length"] == pytest.approx(
        (1024, math.nan), nan_ok=True
    )


def test_an_incomplete_task_leaves_no_average() -> None:
    assert _averages("ruler", _rows({"vt": (80, 3), "cwe": (60, 4)}, missing=1)) == {}
