"""Every prediction file scores what the benchmark's own code gives it."""

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from lampe_eval.scoring import leval_metrics, longbench_metrics, ruler_metrics
from lampe_eval.scoring.prediction_files import TaskResult, score_folder
from lampe_eval.scoring.prediction_formats import FORMATS
from lampe_eval.scoring.prediction_lines import PredictionFile
from tests.parity.data import DATA, golden

LONGBENCH = golden("longbench_official_scores")
LEVAL = golden("leval_official_scores")
RULER = golden("ruler_official_scores")
INFINITEBENCH = {
    "infinitebench": golden("infinitebench_official_scorer"),
    "infinitebench-lampe": golden("infinitebench_lampe_scorer"),
}


@cache
def scores(bench: str, folder: str) -> dict[str, TaskResult]:
    return score_folder(bench, DATA / folder)


def same(ours: Mapping[str, float], theirs: Mapping[str, float | None]) -> bool:
    """Return whether numbers are equal; a null of a golden file was NaN."""
    return ours.keys() == theirs.keys() and all(
        math.isnan(ours[name]) if value is None or math.isnan(value) else ours[name] == value
        for name, value in theirs.items()
    )


@pytest.mark.parametrize("row", LONGBENCH)
def test_longbench(row: str) -> None:
    model, task = row.split("/")
    bench = "longbench-e" if "preds_e_" in model else "longbench"
    result = scores(bench, f"longbench/{model}")[task]
    expected = {"score": LONGBENCH[row]["score"], **LONGBENCH[row].get("score_e", {})}
    assert same(result.scores, expected)
    assert (result.n, result.skipped) == (LONGBENCH[row]["n"], 0)


@pytest.mark.parametrize(
    "model", ["preds_LongAlpaca-7B-16k", "preds_llama2-7b-chat-4k", "preds_e_llama_2"]
)
def test_longbench_as_its_authors_published_it(model: str) -> None:
    published = json.loads((DATA / "longbench" / model / "result.json").read_text(encoding="utf-8"))
    if model == "preds_e_llama_2":
        # Its number was written when only a third of the predictions existed.
        published.pop("multi_news")
        ours = scores("longbench-e", f"longbench/{model}")
        for task, by_length in published.items():
            banded = {name: v for name, v in ours[task].scores.items() if name != "score"}
            assert same(banded, by_length)
    else:
        ours = scores("longbench", f"longbench/{model}")
        assert {task: result.scores["score"] for task, result in ours.items()} == {
            t: published[t] for t in ours
        }


def test_longbench_average_as_longlora_published_it() -> None:
    results = scores("longbench", "longbench/preds_LongAlpaca-7B-16k")
    english = {task: result.scores["score"] for task, result in results.items()}
    assert round(longbench_metrics.category_mean(english), 1) == 36.8


@pytest.mark.parametrize("row", LEVAL)
def test_leval(row: str) -> None:
    folder, _, name = row.rpartition("/")
    result = scores("leval", f"leval/{folder}")[name.removesuffix(".pred.jsonl")]
    expected = dict(LEVAL[row])
    n = expected.pop("n")
    if isinstance(expected.get("exact_match"), list):
        topics = expected.pop("exact_match")
        n *= len(topics)
        expected = {
            "average": sum(topics) / 3,
            **dict(zip(leval_metrics.TOPICS, topics, strict=True)),
        }
    assert same(result.scores, expected)
    assert (result.n, result.skipped) == (n, 0)


@pytest.mark.parametrize("row", RULER)
def test_ruler(row: str) -> None:
    folder, task, *_ = row.split("/")
    result = scores("ruler", f"ruler/{folder}")[task]
    assert (result.scores["score"], result.n, result.skipped) == (
        RULER[row]["score"],
        RULER[row]["n"],
        0,
    )


@pytest.mark.parametrize("row", RULER)
def test_ruler_row_by_row_as_string_scored_it(row: str) -> None:
    path, task = DATA / "ruler" / row, row.split("/")[1]
    with path.open(encoding="utf-8") as lines:
        theirs = [json.loads(line)["score"] for line in lines if line.startswith("{")]
    answers = FORMATS["ruler"].read(PredictionFile(path), task)
    assert [ruler_metrics.score(task, *answer) for answer in answers] == theirs


INFINITEBENCH_ROWS: list[tuple[str, str]] = []
for bench_name, expected_rows in INFINITEBENCH.items():
    INFINITEBENCH_ROWS += [(bench_name, row) for row in expected_rows]


@pytest.mark.parametrize(("bench", "row"), INFINITEBENCH_ROWS)
def test_infinitebench(bench: str, row: str) -> None:
    model, task = row.split("/")
    result = scores(bench, f"infinitebench/results/{model}")[task]
    ours: list[Any] = [result.scores["score"], result.n, result.skipped]
    assert ours == INFINITEBENCH[bench][row]
