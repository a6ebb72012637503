"""Tables of the page for several runs."""

from pathlib import Path
from typing import Any

from lampe_eval.report.page import page_tables
from lampe_eval.results.gathered_runs import gather_runs
from tests.lampe_eval import stored_runs


def _column(table: dict[str, Any], key: str) -> list[Any]:
    """Return the values of a column, none where the table has no such column."""
    keys = [column["key"] for column in table["columns"]]
    return [row[keys.index(key)] for row in table["rows"]] if key in keys else []


def test_settings_in_which_runs_differ_are_a_column(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 5)):
        stored_runs.run(tmp_path / name, {"lampe": {512: [True]}}, seed)
    both, alone = gather_runs([tmp_path / "a", tmp_path / "b"]), gather_runs([tmp_path / "a"])
    for table in (page_tables.scores, lambda scores: page_tables.standings(scores, {})):
        assert _column(table(both.scores), "settings") == ["seed 0", "seed 5"]
        assert _column(table(alone.scores), "settings") == []


def test_standings_are_by_rank(tmp_path: Path) -> None:
    """Task by task, short lengths first, the best first, incomplete cells last."""
    answers_by_method = {
        "original": [False, False],
        "yarn": [True, None],
        "lampe": [True, True],
        "dca": [True, False],
    }
    stored_runs.run(
        tmp_path / "a",
        {method: {512: answers, 256: answers} for method, answers in answers_by_method.items()},
    )
    stored_runs.losses(
        tmp_path / "b", {"original": {512: [3, 3]}, "lampe": {512: [1, 2]}, "dca": {512: [2, 2]}}
    )
    table = page_tables.standings(
        gather_runs([tmp_path / "a", tmp_path / "b"]).scores, {"b": "b.html"}
    )
    rows = list(zip(*(_column(table, key) for key in ("task", "length", "method")), strict=True))
    by_score = ("lampe", "dca", "original", "yarn")
    assert rows == [
        *[("niah/grid", 256, method) for method in by_score],
        *[("niah/grid", 512, method) for method in by_score],
        *[("ppl/exact", 512, method) for method in ("lampe", "dca", "original")],
    ]
    assert _column(table, "run")[-1] == ["b", "b.html"]


def test_a_difference_counts_unpaired_samples(tmp_path: Path) -> None:
    stored_runs.run(
        tmp_path / "short", {"lampe": {512: [True, None, True]}, "yarn": {512: [False, True]}}
    )
    stored_runs.run(
        tmp_path / "whole", {"lampe": {512: [True, True]}, "yarn": {512: [False, True]}}
    )
    short, whole = (
        page_tables.differences(gather_runs([tmp_path / name]).pairs) for name in ("short", "whole")
    )
    assert _column(short, "marks") == [[[2, "unpaired"]]]
    assert _column(whole, "marks") == []
