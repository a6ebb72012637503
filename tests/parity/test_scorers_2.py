"""Every worked example of the later benchmarks' scorers scores what their own code gives it."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from lampe_eval.scoring import (
    graphwalks_metrics,
    helmet_metrics,
    longbench_pro_metrics,
    mrcr_metrics,
    oolong_metrics,
)
from tests.parity.data import DATA

FOLDER = DATA / "parity2"
if not FOLDER.is_dir():
    pytest.skip(f"no worked examples under {FOLDER}", allow_module_level=True)

Case = Mapping[str, Any]
Scores = Mapping[str, float]


def _graphwalks(case: Case) -> Scores:
    names = {
        "lm_eval": "lm_eval_f1",
        "lm_eval_flexible": "lm_eval_flexible_f1",
        "openbench": "openbench_f1",
        "nemo_gym": "nemo_gym_f1",
    }
    texts = (case["prediction"], case["references"])
    return {name: graphwalks_metrics.score(scorer, *texts) for scorer, name in names.items()}


def _mrcr(case: Case) -> Scores:
    texts = (case["answer"], case["random_string_to_prepend"])
    return {
        "openai_grade": mrcr_metrics.score(case["prediction"], *texts),
        "nemo_gym": mrcr_metrics.score(case["prediction"].strip(), *texts),
    }


def _longbench_pro(case: Case) -> Scores:
    return {
        metric: longbench_pro_metrics.score(metric, case["prediction"], case["references"])
        for metric in longbench_pro_metrics.METRICS
    }


def _oolong(case: Case) -> Scores:
    texts = (case["prediction"], case["answer"])
    if case["kind"] == "synth":
        return {"score": oolong_metrics.synth_score(*texts, case["answer_type"])}
    return {"score": oolong_metrics.real_score(*texts)}


def _helmet(kind: str) -> Callable[[Case], Scores]:
    def score(case: Case) -> Scores:
        line = helmet_metrics.answer_line(case["prediction"], helmet_metrics.CUES[kind])
        assert line == case["parsed"]
        return helmet_metrics.scores(kind, case["prediction"], case["references"])

    return score


def _ranking(case: Case) -> Scores:
    assert helmet_metrics.ranked_ids(case["prediction"]) == case["parsed"]
    return {
        f"NDCG@{ranks}": helmet_metrics.ranking_score(case["prediction"], case["qrel"], ranks)
        for ranks in (1, 5, 10)
    }


SCORERS: Mapping[str, Callable[[Case], Scores]] = {
    "graphwalks_scorer": _graphwalks,
    "mrcr_scorer": _mrcr,
    "longbench_pro_scorer": _longbench_pro,
    "oolong_scorer": _oolong,
    "helmet_qa": _helmet("qa"),
    "helmet_json_kv": _helmet("json_kv"),
    "helmet_icl": _helmet("icl"),
    "helmet_choice": _helmet("choice"),
    "helmet_rerank": _ranking,
}
CASES: list[tuple[str, Case]] = []
for name in SCORERS:
    cases = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["cases"]
    CASES += [(name, case) for case in cases]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_scores(name: str, case: Case) -> None:
    scores = SCORERS[name](case)
    assert scores == {metric: case["scores"][metric] for metric in scores}
