"""Intervals: their coverage, their ends, what they are computed over, and how they are printed."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import coverage
from lampe_eval.benches import bench_tasks
from lampe_eval.records import SampleRecord
from lampe_eval.report.table_model import difference_text, interval_text, result_tables
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.scoring.estimates import ONE_DOCUMENT, Estimate
from lampe_eval.store import Cell
from tests.lampe_eval import stored_runs, synthetic_runs

SIMULATIONS = 300
TWO_ERRORS = 100 * 2 * math.sqrt(0.95 * 0.05 / SIMULATIONS)
"""Percent by which a simulated coverage of 95 % may be off."""


@pytest.mark.parametrize("n", [10, 50, 200])
def test_right_or_wrong_answers_are_covered_at_every_share(n: int) -> None:
    """Compute the coverage of each share from 0.02 to 0.98 exactly, in steps of 0.001."""
    lowest, highest = coverage.LIMITS
    covered = coverage.right_or_wrong(n).after
    assert lowest <= min(covered)
    assert max(covered) <= highest


@pytest.mark.parametrize(
    ("draw", "lowest"),
    [
        (coverage.f1_like(10), 93),
        (coverage.f1_like(50), 93),
        (coverage.beta(10, 4), 93),
        (coverage.beta(50, 20), 93),
        (coverage.clustered(15, 18, 0.2), 93),
        (coverage.clustered(30, 4, 0.2), 93),
        (coverage.tasks_alike(3, 10), 90),
        (coverage.tasks_alike(13, 10), 90),
        (coverage.tasks_apart(3, 10), 90),
        (coverage.tasks_apart(13, 10), 90),
        (coverage.tasks_of_shared_documents(3, 10, 0.5), 93),
        (coverage.perplexity(5), 93),
    ],
)
def test_other_scores_are_covered(draw: coverage.Draw, lowest: float) -> None:
    shares = (0.05, 0.5, 0.9)
    rng = np.random.default_rng(1)
    found = coverage.simulated("", "", draw, rng, SIMULATIONS, shares)
    assert min(found.after) > lowest - TWO_ERRORS


def _scores(rng: np.random.Generator, n: int) -> list[list[float]]:
    return [
        [0.0] * n,
        [100.0] * n,
        [37.5] * n,
        [100.0] * (n - 1) + [0.0],
        (100 * rng.beta(0.2, 3, n)).tolist(),
        (100 * rng.random(n)).tolist(),
    ]


@pytest.mark.parametrize("n", [1, 2, 10, 5000])
@pytest.mark.parametrize("documents", [0, 2, 7])
def test_an_interval_lies_around_its_score_within_the_scale(n: int, documents: int) -> None:
    groups = [number % documents for number in range(n)] if documents else []
    for scores in _scores(np.random.default_rng(n), n):
        estimate = Estimate(np.array(scores)[:, None], groups=groups)
        low, high = estimate.interval()
        assert 0 <= low <= estimate.value + 1e-9
        assert estimate.value - 1e-9 <= high <= 100
        assert low < high
        wider = estimate.interval(0.99)
        assert wider.low <= low < high <= wider.high


def test_more_samples_and_less_spread_narrow_an_interval() -> None:
    def width(scores: Sequence[float], groups: Sequence[int] = ()) -> float:
        low, high = Estimate(np.array(scores, dtype=float)[:, None], groups=groups).interval()
        return high - low

    answers = [100, 0] * 20
    assert width(answers * 2) < width(answers)
    assert width([60, 40] * 20) < width(answers)
    # all answers about a document are alike
    assert width(answers * 4, [number % 40 for number in range(160)]) == pytest.approx(
        width(answers), rel=0.05
    )


def test_a_perplexity_is_at_home_on_the_logarithmic_scale() -> None:
    """Compare with Student's t of four windows: 3.182 standard errors of the mean loss."""
    losses = np.array([[2.0], [2.2], [1.9], [2.1]])
    estimate = Estimate(losses, lambda means: np.exp(means[..., 0]), (), "window", "log")
    low, high = estimate.interval()
    half = 3.18245 * np.std(losses, ddof=1) / 2
    assert (low, high) == pytest.approx((np.exp(2.05 - half), np.exp(2.05 + half)), rel=1e-4)


@pytest.mark.parametrize("losses", [[2.0], [math.inf, 2.0], [2.0, 2.0, 2.0]])
def test_a_single_window_and_infinite_losses_have_no_interval(losses: list[float]) -> None:
    parts = np.array(losses)[:, None]
    estimate = Estimate(parts, lambda means: np.exp(means[..., 0]), (), "window", "log")
    assert all(math.isnan(end) for end in estimate.interval())


@pytest.mark.parametrize(
    ("documents", "unit", "units"),
    [
        (["a", "a", "b", "b"], "document", 2),
        (["a", "b", "c", "d"], "sample", 4),
        (["a", "a", "a", "a"], ONE_DOCUMENT, 4),
        (["a", "a", "b", None], "sample", 4),  # one is not known
        ([None] * 4, "sample", 4),
    ],
)
def test_samples_that_share_documents_are_counted_by_document(
    documents: list[str | None], unit: str, units: int
) -> None:
    rows: list[SampleRecord] = []
    for number, document in enumerate(documents):
        row: SampleRecord = {
            "id": f"{number}", "length": 9, "prompt_sha256": "", "prompt_tokens": 9
        }  # fmt: skip
        rows.append(row if document is None else {**row, "document_sha256": document})
    estimate = Estimate.mean([100, 100, 0, 0]).by_document(rows)
    assert (estimate.unit, estimate.independent_units) == (unit, units)
    assert estimate.value == 50


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (59.6, 98.2, "[60, 98]"),
        (0, 100, "[0, 100]"),
        (89.96, 90.44, "[89.96, 90.44]"),
        (2.961, 3.144, "[2.96, 3.14]"),
        (88.2, 91.4, "[88.2, 91.4]"),
        (12.0, 3.2e9, "[12, 3.2e+09]"),
        (12.0, math.inf, "[12, inf]"),
        (math.nan, math.nan, ""),
    ],
)
def test_an_interval_is_printed_to_two_digits_of_its_width(
    low: float, high: float, text: str
) -> None:
    assert interval_text(low, high) == text


def _all_cells(bench: str) -> list[Cell]:
    cells: list[Cell] = []
    for length in (4096, 8192):
        for task in bench_tasks(bench):
            cells.append(Cell("llama2-7b-chat", "original", bench, task.name, length))
    return cells


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((65, 23.83, 72.82), ("+65.0", "[+23.8, +72.8]")),
        ((0, -1e-4, 1e-4), ("+0.0", "[-0.00010, +0.00010]")),
        ((-0.01, -0.04, 0.02), ("+0.0", "[-0.040, +0.020]")),
        ((5, -3, math.inf), ("+5.0", "[-3.0, +inf]")),
        ((3, math.nan, math.nan), ("+3.0", "")),
        ((math.inf, math.nan, math.nan), ("", "")),
    ],
)
def test_the_ends_of_a_differences_interval_differ_in_print(
    numbers: tuple[float, float, float], expected: tuple[str, str]
) -> None:
    assert difference_text(*numbers) == expected


@pytest.mark.parametrize(
    "bench", ["niah", "ruler", "leval", "infinitebench", "longbench", "longbench-e", "longbench-v2"]
)
def test_every_printed_score_has_an_interval_with_a_width(bench: str, tmp_path: Path) -> None:
    synthetic_runs.store(tmp_path, _all_cells(bench), "fair")
    gathered = gather_runs([tmp_path])
    assert (gathered.scores["n"] == synthetic_runs.SAMPLES).all()
    assert (gathered.scores["ci_low"] < gathered.scores["ci_high"]).all()
    scores = gathered.details[gathered.details["name"] != "effective length"]
    scores = scores[scores["value"].notna()]
    assert (scores["ci_low"] < scores["ci_high"]).all()
    for table in result_tables(gathered):
        for label, values in table.lines:
            if label == "attention_factor" or label.startswith("effective length"):
                continue
            for value in values:
                if value.text not in ("-", "none", "by length") and "factor" not in value.text:
                    _check_printed(f"{value}")


def _check_printed(text: str) -> None:
    score, low, high = re.fullmatch(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", text).groups()
    assert float(low) <= float(score) + 0.5
    assert float(score) - 0.5 <= float(high)
    assert low != high


def test_a_perplexity_of_windows_has_an_interval_and_of_one_window_a_note(tmp_path: Path) -> None:
    stored_runs.losses(
        tmp_path, {"lampe": {256: [1.0, 1.2], 512: [1.0]}, "yarn": {256: [2.0, 2.1], 512: [2.0]}}
    )
    (table,) = result_tables(gather_runs([tmp_path]))
    for _, values in table.lines:
        assert [bool(value.interval) for value in values] == [False, True, False]
    assert "no interval from a single window" in table.notes
