"""What the page's tables show of several runs."""

from pathlib import Path
from typing import Any

from lampe_eval.report.gather import gather
from lampe_eval.report.page import frames
from tests.lampe_eval import stored


def _column(table: dict[str, Any], key: str) -> list[Any]:
    """The values of a column, none where the table has no such."""
    keys = [column["key"] for column in table["columns"]]
    return [row[keys.index(key)] for row in table["rows"]] if key in keys else []


def test_settings_in_which_runs_differ_are_a_column(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 5)):
        stored.run(tmp_path / name, {"lampe": {512: [True]}}, seed)
    both, alone = gather([tmp_path / "a", tmp_path / "b"]), gather([tmp_path / "a"])
    assert _column(frames.scores(both.scores, {}), "settings") == ["seed 0", "seed 5"]
    assert _column(frames.scores(alone.scores, {}), "settings") == []


def test_a_difference_counts_the_samples_that_two_methods_do_not_share(tmp_path: Path) -> None:
    stored.run(tmp_path / "short", {"lampe": {512: [True, None, True]}, "yarn": {512: [False, True]}})
    stored.run(tmp_path / "whole", {"lampe": {512: [True, True]}, "yarn": {512: [False, True]}})
    short, whole = (frames.differences(gather([tmp_path / name]).pairs) for name in ("short", "whole"))
    assert _column(short, "marks") == [[[2, "not shared"]]]
    assert _column(whole, "marks") == []
