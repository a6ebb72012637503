"""Scale and direction of a benchmark's scores: two things, each with a single source."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lampe_eval.benches import BENCHES
from lampe_eval.export import every_eval_ever, lm_eval
from lampe_eval.export.exported_run import exported_results
from lampe_eval.report.difference_table import difference_tables
from lampe_eval.report.page.page_rankings import rankings
from lampe_eval.report.page.page_tables import scores as page_scores
from lampe_eval.report.pictures import scores_by_length
from lampe_eval.report.table_model import result_tables
from lampe_eval.results.gathered_runs import GatheredRuns, gather_runs
from lampe_eval.results.method_differences import BEYOND
from lampe_eval.scoring.estimates import Estimate
from tests.lampe_eval import stored_runs

RIGHT, WRONG = [True] * 12, [False] * 12
LOSSES = [2.9, 3.0, 3.1, 3.05]


def gathered(folder: Path, bench: str) -> GatheredRuns:
    """Return a run in which lampe has the higher score beyond the window."""
    if bench == "niah":
        answers = {"original": {512: WRONG}, "lampe": {512: RIGHT}}
        stored_runs.run(folder, answers)
    else:
        more = [loss + 1 for loss in LOSSES]
        stored_runs.losses(folder, {"original": {512: LOSSES}, "lampe": {512: more}})
    return gather_runs([folder])


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize(
    ("bench", "unit", "metric", "difference", "bounds"),
    [
        ("niah", "points", "percent", 100.0, 100.0),
        ("ppl", "%", "perplexity", 171.8, float("inf")),
    ],
)
def test_units_follow_the_scale_and_the_best_the_direction(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bench: str,
    unit: str,
    metric: str,
    difference: float,
    bounds: float,
    higher_is_better: bool,
) -> None:
    monkeypatch.setattr(type(BENCHES[bench]), "higher_is_better", higher_is_better)
    runs = gathered(tmp_path, bench)
    (pair,) = runs.pairs[runs.pairs["scope"] == BEYOND].to_dict("records")
    assert (pair["unit"], round(pair["difference"], 1)) == (unit, difference)
    assert pair["p_value"] < 0.05
    (table,) = result_tables(runs)
    best = [label for label, values in table.lines if values[-1].best]
    assert best == ["lampe" if higher_is_better else "original"]
    (differences,) = difference_tables(runs)
    assert f"in {'points' if bench == 'niah' else '% of perplexity'}," in differences.notes[0]
    (ranking,) = rankings(runs, {})
    direction = "higher" if higher_is_better else "lower"
    assert ranking["unit"] == f"{metric}, {direction} is better"
    assert ranking["lowerIsBetter"] is not higher_is_better
    shown = {column["key"] for column in page_scores(runs.scores)["columns"]}
    assert ("share" in shown) == (bench == "niah")
    figure = scores_by_length.draw(runs.labelled(runs.scores))
    is_0_to_100 = figure.axes[0].get_ylim() == (-4, 104)
    assert is_0_to_100 == (bench == "niah")
    _check_exports(runs, metric, bounds, higher_is_better=higher_is_better)


def _check_exports(
    runs: GatheredRuns, metric: str, bounds: float, *, higher_is_better: bool
) -> None:
    (exported,) = (each for each in exported_results(runs) if each.method == "lampe")
    (record,) = map(json.loads, every_eval_ever.files(exported).values())
    (result,) = record["evaluation_results"]
    config = result["metric_config"]
    assert config["metric_unit"] == metric
    assert config["max_score"] == pytest.approx(min(bounds, config["max_score"]))
    assert config["lower_is_better"] is not higher_is_better
    texts = lm_eval.files(exported)
    summary = json.loads(next(text for path, text in texts.items() if "/results_" in path))
    (numbers,) = summary["results"].values()
    value = next(number for key, number in numbers.items() if "stderr" not in key)
    scale = 100 if metric == "percent" else 1
    assert value == pytest.approx(exported.cells[0].value / scale)


@pytest.mark.parametrize(("higher_is_better", "expected"), [(True, "better"), (False, "worse")])
def test_a_decision_follows_the_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, higher_is_better: bool, expected: str
) -> None:
    monkeypatch.setattr(type(BENCHES["niah"]), "higher_is_better", higher_is_better)
    answers = {"original": {512: WRONG}, "lampe": {512: RIGHT}}
    lengths = {"pocket": {"niah": [512]}}
    stopping = {"reference": "original", "margin": 5.0}
    stored_runs.run(tmp_path, answers, lengths=lengths, stopping=stopping)
    (decision,) = gather_runs([tmp_path]).decisions.to_dict("records")
    assert (decision["verdict"], decision["difference"]) == (expected, 100)


@pytest.mark.parametrize(
    ("scores", "scale", "reason"),
    [
        ([150.0, 160.0, 155.0], "percent", "outside of 0 to 100"),
        ([-5.0, -6.0, -7.0], "percent", "outside of 0 to 100"),
        ([-5.0, -6.0, -7.0], "log", "not above 0"),
        ([5.0, 5.0, 5.0], "log", "alike"),
    ],
)
def test_why_a_score_has_no_interval(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scores: Sequence[float],
    scale: Any,
    reason: str,
) -> None:
    def estimate(_: Any, rows: Sequence[Mapping[str, Any]], __: Any) -> Estimate:
        return Estimate(Estimate.mean(scores[: len(rows)]).parts, scale=scale)

    monkeypatch.setattr(BENCHES["niah"], "estimate", estimate)
    stored_runs.run(tmp_path, {"original": {512: [True] * 3}, "lampe": {512: [True] * 3}})
    runs = gather_runs([tmp_path])
    (table,) = result_tables(runs)
    assert [note for note in table.notes if "no interval" in note and reason in note]
    # nothing is claimed of a difference between scores that are not on their scale
    assert runs.pairs.empty == (reason != "alike")
    scores_by_length.draw(runs.labelled(runs.scores))
