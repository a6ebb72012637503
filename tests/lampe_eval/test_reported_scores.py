"""Scores of other programs' files: each has its 95 % interval, in the terminal and in files."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lampe_eval.commands.score import average_interval, score, score_predictions
from lampe_eval.scoring.prediction_files import TaskResult, score_folder
from tests.lampe_eval.test_scoring_files import PRED, write

CHOICE = {"evaluation": "exam", "m_pred": "A", "gt": "A"}
V2 = {"difficulty": "easy", "length": "short", "response": "The correct answer is (A)"}
ROUGE = {"evaluation": "rouge", "m_pred": "a red house", "gt": "a red car"}
OWN_FILES: list[tuple[str, str, dict[str, Any]]] = [
    ("longbench", "qasper.jsonl", PRED),
    ("longbench-e", "qasper_e.jsonl", PRED | {"length": 10}),
    ("longbench-v2", "model.jsonl", V2 | {"answer": "A"}),
    ("longbench-v2", "model.jsonl", {"difficulty": "hard", "length": "long", "judge": True}),
    ("leval", "tpo.pred.jsonl", CHOICE),
    ("leval", "sci_fi.pred.jsonl", CHOICE | {"gt": "True [fact: True]", "m_pred": "True"}),
    ("leval", "news_summ.pred.jsonl", ROUGE),
    ("ruler", "vt.jsonl", {"pred": "7", "outputs": ["7", "8"]}),
    ("infinitebench", "preds_passkey.jsonl", {"prediction": "1", "ground_truth": ["1"]}),
    ("infinitebench-lampe", "preds_passkey.jsonl", {"prediction": "1", "ground_truth": ["1"]}),
]


def _assert_intervals(result: TaskResult, without: tuple[str, ...] = ()) -> None:
    """Check that each number but those named lies in an interval that is no point."""
    assert dict(result.scores) == {name: item.value for name, item in result.reported.items()}
    for name, item in result.reported.items():
        low, high = item.interval
        if name in without or math.isnan(item.value):
            assert math.isnan(low), name
        else:
            # A number is rounded to one decimal or more.
            assert low - 0.05 <= item.value <= high + 0.05, name
            assert low < high, name


@pytest.mark.parametrize(("bench", "name", "row"), OWN_FILES)
def test_numbers_of_a_benchmarks_own_files(
    bench: str, name: str, row: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path / name, *[row] * 3)
    (result,) = score_folder(bench, tmp_path).values()
    _assert_intervals(result)


def _lm_eval(folder: Path, *rows: dict[str, Any]) -> TaskResult:
    about = {"doc": {}, "filtered_resps": ["x"]}
    lines = [
        {**about, "doc_id": index, "metrics": list(row), **row} for index, row in enumerate(rows)
    ]
    write(folder / "samples_task_2026-01-01T00-00-00.000001.jsonl", *lines)
    return score_predictions(folder, None)["task"]


@pytest.mark.parametrize(
    ("rows", "without"),
    [
        ([{"acc": 1.0}, {"acc": 0.0}], ()),
        ([{"f1": 0.25}], ()),
        ([{"word_perplexity": [-9.0, 4]}, {"word_perplexity": [-8.0, 5]}], ()),
        ([{"word_perplexity": [-9.0, 4]}], ("word_perplexity",)),
        ([{"word_perplexity": [-9e9, 1]}] * 2, ("word_perplexity",)),
        # no share: BLEU from 0 to 100, or a difference
        ([{"bleu": 30.0}, {"bleu": 0.5}], ("bleu",)),
        ([{"gain": -0.5}, {"gain": 0.9}], ("gain",)),
    ],
)
def test_scores_that_lm_eval_stored(
    rows: list[dict[str, Any]], without: tuple[str, ...], tmp_path: Path
) -> None:
    _assert_intervals(_lm_eval(tmp_path, *rows), without)


def _helmet(folder: Path, averages: dict[str, float], *rows: dict[str, Any]) -> TaskResult:
    data = [{"output": "x", "answer": ["y"], **row} for row in rows]
    content = json.dumps({"data": data, "averaged_metrics": averages})
    (folder / "nq.json").write_text(content, encoding="utf-8")
    return score_predictions(folder, None)["nq"]


def test_averages_of_helmet_have_the_intervals_of_their_rows(tmp_path: Path) -> None:
    averages = {"f1": 50.0, "input_len": 101, "other": 70.0, "unknown": 1.0}
    rows = [{"f1": 1.0, "input_len": 100, "other": 0.5}, {"f1": 0, "input_len": 102, "other": 0.6}]
    without = ("input_len", "other", "unknown")
    _assert_intervals(_helmet(tmp_path, averages, *rows), without)


def test_the_average_over_tasks_has_an_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in ("qasper", "hotpotqa"):
        write(tmp_path / f"{task}.jsonl", *[PRED] * 5)
    score(None, tmp_path, "longbench", tmp_path / "scores")
    assert capsys.readouterr().out.count("[") >= 3
    content = json.loads((tmp_path / "scores.json").read_text())
    average, task = content["average"], content["tasks"][0]
    assert average["ci_low"] <= average["score"] <= average["ci_high"]
    assert average["ci_high"] - average["ci_low"] < task["ci_high"] - task["ci_low"]
    assert task["intervals"]["score"] == [task["ci_low"], task["ci_high"]]
    assert "ci_low,ci_high" in (tmp_path / "scores.csv").read_text().splitlines()[0]


def test_an_average_of_perplexities_has_none(tmp_path: Path) -> None:
    result = _lm_eval(tmp_path, {"perplexity": [-9.0, 4]}, {"perplexity": [-8.0, 5]})
    assert math.isnan(average_interval({"a": result, "b": result}).low)
