"""Ranks of methods: which numbers compete, who shares a rank, and what has none."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lampe_eval.results.gathered_runs import GatheredRuns, gather_runs
from lampe_eval.results.leaderboard_ranks import ranked_numbers
from lampe_eval.store import Cell
from tests.lampe_eval import stored_runs, synthetic_runs

LENGTHS = (4096, 8192)
METHODS = ("original", "lampe", "yarn")


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save time: synthetic samples need not survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda _: None)


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


def test_ranks_count_the_methods_that_tests_of_all_pairs_show_to_be_better(tmp_path: Path) -> None:
    """Expect the same methods in the first rank as in bold."""
    scores = {"a": 30, "b": 28, "c": 15, "d": 13, "e": 0}
    answers = {
        f"ntk:factor={factor}": {512: [index < right for index in range(30)]}
        for factor, right in enumerate(scores.values())
    }
    stored_runs.run(tmp_path, answers)
    found = _at(gather_runs([tmp_path]))
    assert [(rank, tied) for _, rank, tied in found.values()] == [
        (1, True), (1, True), (3, True), (3, True), (5, False),
    ]  # fmt: skip


def test_averages_over_lengths_are_ranked_and_other_numbers_are_not(tmp_path: Path) -> None:
    numbers = ranked_numbers(_ruler(tmp_path))
    is_average = numbers["column"] != "effective length"
    assert "mean, longer lengths weigh more" in set(numbers.loc[is_average, "column"])
    assert numbers.loc[is_average, "rank"].notna().all()
    assert numbers.loc[~is_average, "rank"].isna().all()


def test_a_benchmark_without_averages_of_scores_is_ranked_by_its_tasks(tmp_path: Path) -> None:
    cells = [Cell("m", method, "longbench-v2", "direct", 8192) for method in METHODS]
    gathered = gather_runs([synthetic_runs.store(tmp_path, cells, "fair").folder])
    assert all(rank is not None for _, rank, _ in _at(gathered, number="direct").values())
    others = _at(gathered, number="direct, easy")
    assert len(others) == len(METHODS)
    assert all(rank is None for _, rank, _ in others.values())


def test_runs_with_other_settings_do_not_compete(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 5)):
        stored_runs.run(tmp_path / name, {name: {512: [True, False, True]}}, seed)
    numbers = ranked_numbers(gather_runs([tmp_path / "a", tmp_path / "b"]))
    assert list(numbers["rank"]) == [1, 1]
    assert not numbers["is_tied"].any()


def test_runs_without_a_complete_cell_have_no_ranks(tmp_path: Path) -> None:
    stored_runs.run(tmp_path, {"lampe": {512: [True, None]}})
    assert ranked_numbers(gather_runs([tmp_path])).empty
