"""Prediction files as people have them: broken lines, parts, variants, repeats, other harnesses."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lampe_eval.commands.score import score_predictions
from lampe_eval.errors import UserError
from lampe_eval.scoring.harness_files import split_array
from lampe_eval.scoring.prediction_files import score_folder
from tests.lampe_eval.test_scoring_files import PRED, write
from tests.parity.data import DATA

RULER = {"pred": "7", "outputs": ["7"], "index": 0}
CHOICE = {"evaluation": "exam", "m_pred": "A", "gt": "A"}
INFINITE = {"prediction": "1", "ground_truth": ["1"]}
DEEP = "[" * 100_000

BROKEN = [
    ("longbench", "trec", PRED | {"all_classes": ["Paris"]}, PRED, "'all_classes'"),
    ("longbench", "trec", PRED | {"all_classes": ["Paris"]}, PRED | {"all_classes": 3}, "classes"),
    ("longbench", "qasper", PRED, PRED | {"answers": 5}, "'answers' is not a list"),
    ("longbench", "qasper", PRED, PRED | {"answers": [None]}, "'answers' is not a list"),
    ("longbench", "qasper", PRED, PRED | {"answers": [True]}, "'answers' is not a list"),
    ("longbench", "qasper", PRED, PRED | {"pred": 3}, "'pred' is not a text"),
    ("longbench", "qasper", PRED, '{"pred": ' + DEEP, "nested too deeply"),
    ("longbench", "qasper", PRED, '{"pred": "x", "answers": [' + "9" * 6000 + "]}", "is no JSON"),
    (
        "longbench",
        "passage_retrieval_en",
        PRED | {"answers": ["Paragraph 3"]},
        PRED | {"answers": ["three"]},
        "names no paragraph",
    ),
    ("longbench-e", "qasper", PRED, PRED | {"length": "long"}, "'length'"),
    ("longbench-e", "qasper", PRED, PRED | {"length": True}, "'length'"),
    ("leval", "tpo", CHOICE, CHOICE | {"gt": ""}, "'gt' is empty"),
    ("leval", "tpo", CHOICE, CHOICE | {"gt": ["A"]}, "'gt' is not a text"),
    ("leval", "sci_fi", CHOICE | {"gt": "True [fact: True]"}, CHOICE | {"gt": "True"}, "'gt'"),
    ("ruler", "vt", RULER, RULER | {"outputs": []}, "is empty"),
    ("ruler", "vt", RULER, RULER | {"outputs": {"a": 1}}, "is not a list"),
    ("infinitebench", "passkey", INFINITE, INFINITE | {"ground_truth": []}, "a list of values"),
    ("infinitebench", "passkey", INFINITE, INFINITE | {"ground_truth": None}, "a list of values"),
    (
        "infinitebench",
        "code_debug",
        INFINITE | {"ground_truth": ["f", "A"]},
        INFINITE | {"ground_truth": ["f"]},
        "pair of name and letter",
    ),
    (
        "infinitebench",
        "longbook_choice_eng",
        INFINITE | {"ground_truth": ["f", "A"]},
        INFINITE | {"ground_truth": "A"},
        "pair",
    ),
    ("infinitebench", "math_calc", INFINITE | {"ground_truth": [1]}, INFINITE, "list of numbers"),
    (
        "infinitebench",
        "longbook_qa_eng",
        INFINITE,
        INFINITE | {"ground_truth": [3]},
        "list of texts",
    ),
]


def _file(folder: Path, bench: str, task: str) -> Path:
    prefix = "preds_" if bench == "infinitebench" else ""
    return folder / f"{prefix}{task}.jsonl"


@pytest.mark.parametrize(("bench", "task", "good", "broken", "message"), BROKEN)
def test_a_broken_line_is_left_out_counted_and_named(
    tmp_path: Path, bench: str, task: str, good: Any, broken: Any, message: str
) -> None:
    path = _file(tmp_path, bench, task)
    write(path, broken, good)
    result = score_folder(bench, tmp_path)[task]
    assert (result.n, result.skipped) == (1, 1)
    assert any(f"{path}:1: " in note and message in note for note in result.notes)
    write(path, broken)
    with pytest.raises(UserError, match=f":1: .*{message}"):
        score_folder(bench, tmp_path)


@pytest.mark.parametrize("task", ["math_calc", "math_find", "code_run", "number_string"])
def test_endless_digits_score_nothing(tmp_path: Path, task: str) -> None:
    row = {"prediction": "9" * 5000, "ground_truth": [1]}
    write(_file(tmp_path, "infinitebench", task), row)
    assert score_folder("infinitebench", tmp_path)[task].scores["score"] == 0


@pytest.mark.parametrize("task", ["passage_count", "qasper"])
def test_integer_answers_compare_as_text(tmp_path: Path, task: str) -> None:
    write(tmp_path / f"{task}.jsonl", PRED | {"pred": "5", "answers": [5]})
    assert score_folder("longbench", tmp_path)[task].scores == {"score": 100}


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("indent", ["", "  ", "\t"])
def test_marks_and_white_space_before_a_line_lose_none(
    tmp_path: Path, bom: str, indent: str
) -> None:
    lines = (json.dumps(RULER), json.dumps(RULER | {"pred": "8", "index": 1}))
    content = bom + "\n".join(f"{indent}{line}" for line in lines)
    (tmp_path / "vt.jsonl").write_text(content, encoding="utf-8")
    result = score_folder("ruler", tmp_path)["vt"]
    assert (result.scores["score"], result.n, result.skipped) == (50, 2, 0)


def test_lines_that_are_no_predictions_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "vt.jsonl", "step 0", RULER, "avg:1.0")
    (note,) = score_folder("ruler", tmp_path)["vt"].notes
    assert "2 lines" in note


def test_repeated_and_missing_samples_keep_upstreams_number_and_are_said(tmp_path: Path) -> None:
    rows = [RULER | {"index": i, "pred": "7" if i else "8"} for i in (0, 1, 3)]
    write(tmp_path / "vt.jsonl", *rows, rows[0])
    result = score_folder("ruler", tmp_path)["vt"]
    assert (result.scores["score"], result.n, result.repeated, result.missing) == (50, 4, 1, 1)
    assert any("1 of 4" in note for note in result.notes)
    assert any("1 samples" in note for note in result.notes)


def test_longbench_knows_the_size_of_its_data(tmp_path: Path) -> None:
    rows = [PRED | {"length": length} for length in range(120)]
    write(tmp_path / "hotpotqa.jsonl", *rows, *rows[:80])
    result = score_folder("longbench", tmp_path)["hotpotqa"]
    assert (result.n, result.repeated, result.missing) == (200, 80, 80)
    write(tmp_path / "hotpotqa.jsonl", *rows, *[PRED | {"length": 900 + i} for i in range(80)])
    assert not score_folder("longbench", tmp_path)["hotpotqa"].notes


@pytest.mark.parametrize(
    ("bench", "name", "row"),
    [
        ("longbench", "qasper.jsonl", PRED | {"pred": "P", "answers": "Paris"}),
        ("ruler", "vt.jsonl", RULER | {"pred": "7", "outputs": "78"}),
    ],
)
def test_a_text_in_place_of_references_is_said(
    tmp_path: Path, bench: str, name: str, row: Mapping[str, Any]
) -> None:
    write(tmp_path / name, row)
    (result,) = score_folder(bench, tmp_path).values()
    assert result.scores["score"] == {"longbench": 100, "ruler": 50}[bench]
    assert any("each character" in note for note in result.notes)


def test_empty_predictions_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "vt.jsonl", RULER | {"pred": " "}, RULER | {"index": 1})
    result = score_folder("ruler", tmp_path)["vt"]
    assert (result.n, result.nulls) == (2, 1)


LAYOUTS: list[tuple[str, dict[str, Any], dict[str, int], str]] = [
    (
        "infinitebench",
        {"preds_passkey.jsonl": INFINITE, "preds_code_debug_step_by_step.jsonl": INFINITE},
        {"passkey": 1},
        "step_by_step",
    ),
    (
        "longbench",
        {"qasper-512.jsonl": PRED, "qasper-1024.jsonl": PRED, "trec/notes.jsonl": {"a": 1}},
        {"qasper (512)": 1, "qasper (1024)": 1},
        "notes",
    ),
    (
        "longbench",
        {"qasper.jsonl": PRED, ".ipynb_checkpoints/qasper-checkpoint.jsonl": PRED},
        {"qasper": 1},
        "",
    ),
    ("ruler", {"vt-0.jsonl": RULER, "vt-1.jsonl": RULER | {"index": 1}}, {"vt": 2}, ""),
    ("ruler", {"vt.jsonl": RULER, "vt-0.jsonl": RULER}, {"vt": 1}, "vt-0"),
    (
        "ruler",
        {"qa_1/a/x.jsonl": RULER, "qa_1/b/x.jsonl": RULER, "vt/a/x.jsonl": RULER},
        {"qa_1 (a/x)": 1, "qa_1 (b/x)": 1, "vt": 1},
        "",
    ),
    (
        "ruler",
        {
            "m/4096/data/vt/validation.jsonl": {"input": "x", "outputs": ["7"]},
            "m/4096/pred/vt.jsonl": RULER,
            "m/8192/pred/vt.jsonl": RULER,
        },
        {"4096/vt": 1, "8192/vt": 1},
        "validation",
    ),
    ("longbench-e", {"qasper_e.jsonl": PRED}, {"qasper": 1}, ""),
]


@pytest.mark.parametrize(("bench", "files", "counts", "left_out"), LAYOUTS)
def test_what_can_be_scored_is_and_the_rest_is_named(
    tmp_path: Path, bench: str, files: dict[str, Any], counts: dict[str, int], left_out: str
) -> None:
    for name, row in files.items():
        write(tmp_path / name, row)
    scores = score_folder(bench, tmp_path)
    assert {task: result.n for task, result in scores.items()} == counts
    assert any(left_out in line for line in scores.left_out) is bool(left_out)


FORMATS = DATA / "parity2" / "formats"
needs_formats = pytest.mark.skipif(not FORMATS.is_dir(), reason=f"no files under {DATA}")


def _expected(name: str) -> Any:
    content = json.loads((FORMATS / "expected.json").read_text(encoding="utf-8"))
    return content["scores"][name]


@needs_formats
def test_lm_eval_scores_what_it_stored() -> None:
    scores = score_predictions(FORMATS / "lm_eval", None)
    for path in (FORMATS / "lm_eval").glob("*.jsonl"):
        expected = _expected(f"lm_eval/{path.name}")
        (result,) = [scores[task] for task in scores if path.name.startswith(f"samples_{task}_20")]
        assert result.scores.keys() == expected.keys()
        for name, values in expected.items():
            rows = [value for value in values if value not in (None, -1)]
            assert result.scores[name] == pytest.approx(100 * sum(rows) / len(rows))


@needs_formats
def test_helmet_scores_what_it_averaged() -> None:
    scores = score_predictions(FORMATS / "helmet", None)
    assert list(scores) == ["json_kv 8192", "kilt_nq 8192", "msmarco_rerank_psg 8192"]
    for task, path in zip(scores, sorted((FORMATS / "helmet").glob("*_42.json")), strict=True):
        assert dict(scores[task].scores) == _expected(f"helmet/{path.name}")


@needs_formats
def test_kvpress_scores_as_kvpress_does() -> None:
    scores = score_predictions(FORMATS / "kvpress", None)
    for task, numbers in _expected("kvpress/predictions.csv").items():
        assert dict(scores[task].scores) == numbers
    assert scores["hotpotqa"].scores["score"] == _expected("kvpress/predictions_longbench.csv")
    assert scores["trec"].scores["score"] == _expected("kvpress/predictions_trec.csv")
    fractions = _expected("kvpress/predictions_v2.csv")
    percents = {name: 100 * value for name, value in fractions.items()}
    assert dict(scores["longbench-v2"].scores) == percents
    assert any("predictions_long.csv" in line and "..." in line for line in scores.left_out)


@needs_formats
def test_opencompass_scores_as_opencompass_does() -> None:
    scores = score_predictions(FORMATS / "opencompass", None)
    for name in ("LongBench_hotpotqa", "ruler_niah_single_2_4k_0"):
        task = name.removesuffix("_0")
        assert dict(scores[task].scores) == _expected(f"opencompass/{name}.json")
    assert any("tmp_" in line for line in scores.left_out)


@needs_formats
@pytest.mark.parametrize(
    ("bench", "tasks"),
    [
        ("ruler", {"niah_single_2 4096": 50, "niah_single_2 8192": 100, "qa_1": 0, "vt": 40}),
        ("longbench", {"longbench_hotpotqa": 45, "trec": 100, "LongBench_hotpotqa": 75}),
        ("longbench-v2", {"longbench-v2": 100}),
    ],
)
def test_a_benchmark_scores_files_of_other_harnesses(bench: str, tasks: dict[str, float]) -> None:
    scores = score_predictions(FORMATS, bench)
    for task, value in tasks.items():
        assert next(iter(scores[task].scores.values())) == value


FOUR_HARNESSES = DATA / "parity2" / "ruler_four_harnesses.json"


@pytest.mark.skipif(not FOUR_HARNESSES.is_file(), reason=f"no files under {DATA}")
@pytest.mark.parametrize(("task", "score"), [("vt", "kvpress_all"), ("qa_1", "kvpress_part")])
def test_kvpress_scores_ruler_unlike_ruler(tmp_path: Path, task: str, score: str) -> None:
    for case in json.loads(FOUR_HARNESSES.read_text(encoding="utf-8"))["cases"]:
        array = "[" + " ".join(repr(text) for text in case["references"]) + "]"
        with (tmp_path / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["answer", "task", "predicted_answer"])
            writer.writerow([array, task, case["prediction"]])
        scores = score_predictions(tmp_path, None)[task].scores
        assert scores["string_match"] == pytest.approx(100 * case["scores"][score], abs=0.01)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("['a' 'b']", ["a", "b"]),
        ("[\"it's\" 'x \"y\"'\n 'z']", ["it's", 'x "y"', "z"]),
        ("['...']", ["..."]),
        (r"['a\nb' 'c\'d']", ["a\nb", "c'd"]),
        ("['a', 'b']", ["a", "b"]),
        ("[]", []),
        ("B", ["B"]),
    ],
)
def test_arrays_of_numpy(text: str, items: list[str]) -> None:
    assert split_array(text) == items


def test_an_array_with_a_gap_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\.\.\."):
        split_array("['a' 'b' ... 'y' 'z']")


def _sample(doc_id: int, **changes: Any) -> dict[str, Any]:
    doc = {"outputs": ["7"], "max_length": 4096}
    row = {"doc_id": doc_id, "doc": doc, "filtered_resps": ["7"], "filter": "none"}
    return row | {"metrics": ["4096"], "4096": 1.0} | changes


def test_a_run_of_lm_eval_that_was_appended_is_said(tmp_path: Path) -> None:
    rows = [_sample(0), _sample(1, **{"4096": 0.0}), _sample(0), _sample(0, filter="first")]
    write(tmp_path / "samples_niah_single_1_2026-01-01T00-00-00.000001.jsonl", *rows)
    result = score_predictions(tmp_path, None)["niah_single_1"]
    assert (result.n, result.repeated) == (3, 1)
    assert result.scores["4096"] == pytest.approx(66.6667)


@pytest.mark.parametrize(
    "change",
    [{"doc": 3}, {"filtered_resps": []}, {"filtered_resps": [None]}, {"doc_id": None}],
)
def test_broken_rows_of_lm_eval(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "samples_niah_single_1_2026-01-01T00-00-00.000001.jsonl"
    write(path, _sample(0), _sample(1) | change)
    assert score_predictions(tmp_path, None)["niah_single_1"].skipped == 1


@pytest.mark.parametrize(
    "row",
    [
        3,
        {"prediction": None, "gold": ["a"]},
        {"prediction": "a"},
        {"prediction": "a", "gold": [[]]},
    ],
)
def test_broken_rows_of_opencompass(tmp_path: Path, row: Any) -> None:
    rows = {"0": {"prediction": "7", "gold": ["7"]}, "1": row}
    (tmp_path / "ruler_vt_4k.json").write_text(json.dumps(rows), encoding="utf-8")
    result = score_predictions(tmp_path, None)["ruler_vt_4k"]
    assert (result.n, result.skipped) == (1, 1)


def test_parts_of_opencompass_end_at_a_gap(tmp_path: Path) -> None:
    rows = json.dumps({"0": {"prediction": "7", "gold": "7"}})
    for number in (0, 1, 3):
        (tmp_path / f"ruler_vt_4k_{number}.json").write_text(rows, encoding="utf-8")
    scores = score_predictions(tmp_path, None)
    assert scores["ruler_vt_4k"].n == 2
    assert any("ruler_vt_4k_3.json" in line for line in scores.left_out)


@pytest.mark.parametrize("bench", [None, "ruler", "kvpress", "niah"])
def test_a_folder_without_predictions_says_what_is_known(tmp_path: Path, bench: str | None) -> None:
    with pytest.raises(UserError, match=r"longbench|ruler"):
        score_predictions(tmp_path, bench)
