"""Prediction files in each benchmark's own format, and errors for broken ones."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lampe_eval.errors import UserError
from lampe_eval.scoring.prediction_files import TaskResult, score_folder

PRED = {"pred": "Paris", "answers": ["Paris"], "all_classes": None, "length": 5000}


def write(path: Path, *lines: Mapping[str, Any] | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [
        line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines
    ]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


def test_longbench(tmp_path: Path) -> None:
    write(tmp_path / "hotpotqa.jsonl", PRED, "", PRED | {"pred": "Lyon"})
    write(tmp_path / "result.json", "{}")
    assert score_folder("longbench", tmp_path) == {"hotpotqa": TaskResult({"score": 50}, 2)}


def test_longbench_scores_all_with_the_last_classes(tmp_path: Path) -> None:
    row = {"pred": "Date Food", "answers": ["Date"], "length": 1}
    write(
        tmp_path / "trec.jsonl",
        row | {"all_classes": ["Date", "Food"]},
        row | {"all_classes": ["Date"]},
    )
    assert score_folder("longbench", tmp_path)["trec"].scores == {"score": 100}


def test_longbench_e(tmp_path: Path) -> None:
    write(tmp_path / "qasper.jsonl", PRED, PRED | {"pred": "Lyon", "length": 8000})
    scores = dict(score_folder("longbench-e", tmp_path)["qasper"].scores)
    assert math.isnan(scores.pop("0-4k"))
    assert scores == {"score": 50, "4-8k": 100, "8k+": 0}


def test_leval_leaves_judged_rows_out_but_counts_them_for_topics(tmp_path: Path) -> None:
    row = {"query": "?", "model_pred": "art", "gt": "Art", "evaluation": "exam"}
    write(tmp_path / "topic_retrieval_longchat.pred.jsonl", row, row | {"evaluation": "LLM"}, row)
    result = score_folder("leval", tmp_path)["topic_retrieval_longchat"]
    assert result == TaskResult({"average": 100, "first": 100, "third": 100}, 2)


def test_ruler(tmp_path: Path) -> None:
    write(tmp_path / "vt.jsonl", {"index": 0, "pred": "abc", "outputs": ["ABC", "DEF"]})
    write(
        tmp_path / "qa_1" / "model" / "method-<S=1>.jsonl",
        "step 0, ctx len 9, avg score 1.0",
        {"ctx_len": 9, "pred": "abc", "needle": ["ABC", "DEF"], "score": True},
        "avg:1.0",
    )
    assert score_folder("ruler", tmp_path) == {
        "qa_1": TaskResult({"score": 100}, 1),
        "vt": TaskResult({"score": 50}, 1),
    }


def test_infinitebench_reads_two_on_a_line_and_counts_broken_ones(tmp_path: Path) -> None:
    good, other = (
        '{"prediction": "71432", "ground_truth": ["71432"]}',
        '{"pred": "1", "label": "2"}',
    )
    write(tmp_path / "preds_passkey.jsonl", good + other, good[:20], f"{good} {other[:9]}", "7")
    assert score_folder("infinitebench", tmp_path)["passkey"] == TaskResult(
        {"score": 66.67}, 3, skipped=3
    )


def test_infinitebench_has_two_scorers(tmp_path: Path) -> None:
    write(tmp_path / "preds_kv_retrieval.jsonl", {"prediction": "ab", "ground_truth": ["ab"]})
    scores = [score_folder(bench, tmp_path) for bench in ("infinitebench", "infinitebench-lampe")]
    assert [score["kv_retrieval"].scores["score"] for score in scores] == [0, 100]


def test_infinitebench_knows_gpt4_by_its_folder(tmp_path: Path) -> None:
    write(
        tmp_path / "gpt4" / "preds_math_calc.jsonl", {"prediction": "1 1 4", "ground_truth": [1, 4]}
    )
    assert score_folder("infinitebench", tmp_path / "gpt4")["math_calc"].scores == {"score": 100}


@pytest.mark.parametrize(
    ("bench", "name", "line", "error"),
    [
        ("longbench", "qasper.jsonl", "{", r"qasper\.jsonl:2: is no JSON \(Expecting"),
        ("longbench", "qasper.jsonl", "[]", r"qasper\.jsonl:2: is no JSON object"),
        (
            "longbench",
            "qasper.jsonl",
            {"pred": "x", "all_classes": None},
            r"qasper\.jsonl:2: has no 'answers'",
        ),
        (
            "longbench",
            "qasper.jsonl",
            PRED | {"pred": None},
            r"qasper\.jsonl:2: 'pred' is not a text",
        ),
        (
            "longbench",
            "quasper.jsonl",
            PRED,
            r"quasper\.jsonl: neither file nor folder",
        ),
        (
            "leval",
            "tpo.pred.jsonl",
            {"evaluation": "exam", "gt": "A"},
            r"tpo\.pred\.jsonl:2: has no '<model>_pred'",
        ),
        ("ruler", "vt.jsonl", {"pred": "x"}, r"vt\.jsonl:2: has no 'outputs' or 'needle'"),
        (
            "infinitebench",
            "preds_passkey.jsonl",
            {"pred": ""},
            r"jsonl:2: has no 'ground_truth' or 'label'",
        ),
        (
            "longbench-e",
            "qasper.jsonl",
            {"pred": "", "answers": [], "all_classes": []},
            r"jsonl:2: has no 'length'",
        ),
        ("ruler", "vt.jsonl", "step 0", r"vt\.jsonl: holds no predictions to score"),
    ],
)
def test_errors_name_file_and_line(
    tmp_path: Path, bench: str, name: str, line: Any, error: str
) -> None:
    write(tmp_path / name, "", line)
    with pytest.raises(UserError, match=error):
        score_folder(bench, tmp_path)


def test_errors_of_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'niah' .*longbench, "):
        score_folder("niah", tmp_path)
    with pytest.raises(UserError, match=r"no \.jsonl files.*ruler"):
        score_folder("ruler", tmp_path)
    for model in "ab":
        write(tmp_path / model / "qasper.jsonl", PRED)
    with pytest.raises(UserError, match=r"b/qasper\.jsonl: qasper .*a/qasper\.jsonl"):
        score_folder("longbench", tmp_path)


def test_errors_of_encoding(tmp_path: Path) -> None:
    (tmp_path / "qasper.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(UserError, match=r"qasper\.jsonl: cannot be read \('utf-8'"):
        score_folder("longbench", tmp_path)
