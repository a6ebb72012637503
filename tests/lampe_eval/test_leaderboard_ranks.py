"""Ranks of methods: which numbers compete, who shares a rank, and what has none."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lampe_eval.results.gathered_runs import GatheredRuns, gather_runs
from lampe_eval.results.leaderboard_ranks import ranked_numbers
from lampe_eval.results.ranking import ranks
from lampe_eval.store import Cell
from tests.lampe_eval import stored_runs, synthetic_runs

NONE = (math.nan, math.nan)
LENGTHS = (4096, 8192)
METHODS = ("original", "lampe", "yarn")


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save time: synthetic samples need not survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        pytest.param([(80, 90), (10, 20)], [1, 2], id="apart"),
        pytest.param([(80, 90), (85, 95)], [1, 1], id="overlap"),
        pytest.param([(80, 90), (90, 95)], [1, 1], id="touch"),
        pytest.param([(80, 90), (70, 85), (60, 79)], [1, 1, 2], id="a chain shares in part"),
        pytest.param([(90, 95), (87, 89), (70, 92)], [1, 2, 1], id="a wide one is not worse"),
        pytest.param([(50, 50), (50, 50), (0, 0)], [1, 1, 3], id="equal"),
        pytest.param([(80, 90), NONE, (10, 20)], [1, None, 2], id="none has no rank"),
        pytest.param([NONE], [None], id="alone without an interval"),
        pytest.param([], [], id="nobody"),
    ],
)
def test_a_rank_counts_whole_intervals_that_are_better(
    intervals: list[tuple[float, float]], expected: list[int | None]
) -> None:
    frame = pd.DataFrame(intervals, columns=["ci_low", "ci_high"])
    upward = ranks(frame, higher_is_better=True)
    mirrored = pd.DataFrame({"ci_low": -frame["ci_high"], "ci_high": -frame["ci_low"]})
    downward = ranks(mirrored, higher_is_better=False)
    for found in (upward, downward):
        assert [None if pd.isna(rank) else rank for rank in found] == expected


def _at(gathered: GatheredRuns, **values: Any) -> dict[str, tuple[float, Any, bool]]:
    """Return value, rank and tie by method, of the numbers with these values."""
    numbers = ranked_numbers(gathered)
    for column, value in values.items():
        numbers = numbers[numbers[column] == value]
    found = {}
    for row in numbers.to_dict("records"):
        rank = None if pd.isna(row["rank"]) else row["rank"]
        found[row["method"]] = (row["value"], rank, row["is_tied"])
    return found


def test_tasks_of_a_benchmark_without_averages_are_ranked(tmp_path: Path) -> None:
    stored_runs.run(
        tmp_path / "a",
        {
            "original": {512: [False] * 10},
            "yarn": {512: [True] * 9 + [False]},
            "lampe": {512: [True] * 8 + [False] * 2},
        },
    )
    found = _at(gather_runs([tmp_path / "a"]), number="grid", column="512")
    assert found == {
        "original": (0, 3, False),
        "yarn": (pytest.approx(90), 1, True),
        "lampe": (pytest.approx(80), 1, True),
    }


def test_a_lower_perplexity_ranks_first(tmp_path: Path) -> None:
    means = {"original": {512: [3.0, 3.1, 3.0]}, "lampe": {512: [1.0, 1.1, 1.0]}}
    stored_runs.losses(tmp_path, means)
    found = _at(gather_runs([tmp_path]))
    assert {method: rank for method, (_, rank, _) in found.items()} == {"original": 2, "lampe": 1}


def test_incomplete_cells_are_not_ranked(tmp_path: Path) -> None:
    answers = {"lampe": {512: [True, True]}, "yarn": {512: [True, None]}}
    stored_runs.run(tmp_path, answers)
    assert set(_at(gather_runs([tmp_path]))) == {"lampe"}


def _ruler(tmp_path: Path) -> GatheredRuns:
    cells = [
        Cell("llama3-8b-instruct", method, "ruler", task, length)
        for method in METHODS
        for task in ("vt", "fwe")
        for length in LENGTHS
    ]
    return gather_runs([synthetic_runs.store(tmp_path, cells, "official").folder])


def test_averages_are_ranked_at_lengths_and_over_them(tmp_path: Path) -> None:
    gathered = _ruler(tmp_path)
    numbers = ranked_numbers(gathered)
    assert set(numbers["number"]) == {"mean of 2 tasks"}
    columns = list(dict.fromkeys(numbers["column"]))
    assert columns[:2] == [str(length) for length in LENGTHS]
    assert "effective length" in columns[2:]
    assert set(numbers.groupby("column").size()) == {len(METHODS)}
    over_lengths = numbers[numbers["column"] == "effective length"]
    assert over_lengths["value"].notna().all()


def test_numbers_over_lengths_are_ranked_where_they_have_intervals(tmp_path: Path) -> None:
    gathered = _ruler(tmp_path)
    details = gathered.details
    over_lengths = details["length"].isna() & details["task"].isna()
    details.loc[over_lengths, "ci_low"] = 10.0
    details.loc[over_lengths, "ci_high"] = 20.0
    found = _at(dataclasses.replace(gathered, details=details), column="effective length")
    assert {(rank, tied) for _, rank, tied in found.values()} == {(1, True)}


def test_runs_with_other_settings_do_not_compete(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 5)):
        stored_runs.run(tmp_path / name, {name: {512: [True, False, True]}}, seed)
    numbers = ranked_numbers(gather_runs([tmp_path / "a", tmp_path / "b"]))
    assert list(numbers["rank"]) == [1, 1]
    assert not numbers["is_tied"].any()


def test_runs_without_a_complete_cell_have_no_ranks(tmp_path: Path) -> None:
    stored_runs.run(tmp_path, {"lampe": {512: [True, None]}})
    assert ranked_numbers(gather_runs([tmp_path])).empty
