"""Prediction files with anything in them end in scores or in one line, never in a traceback."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lampe_eval.commands.score import score_predictions
from lampe_eval.errors import UserError
from lampe_eval.scoring.prediction_files import score_folder
from lampe_eval.scoring.prediction_formats import FORMATS

TEXTS = st.sampled_from(
    ["", "7", "A", "True [fact: True]", "Paragraph 3", "段落3", "\ud800", "\0", "x" * 99]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**12), st.floats(), TEXTS, st.text(max_size=9)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=6,
)
KEYS = {
    "longbench": ("pred", "answers", "all_classes", "length", "_id"),
    "longbench-e": ("pred", "answers", "all_classes", "length"),
    "longbench-v2": ("response", "answer", "judge", "difficulty", "length", "_id", "error"),
    "leval": ("m_pred", "gt", "evaluation"),
    "ruler": ("pred", "outputs", "needle", "index", "input"),
    "infinitebench": ("prediction", "pred", "ground_truth", "label", "id"),
    "infinitebench-lampe": ("prediction", "ground_truth", "id"),
    "babilong": ("target", "output", "question"),
}
LIKELY: dict[str, Any] = {
    "pred": "7",
    "prediction": "7 A. 3",
    "m_pred": "A",
    "answers": ["Paragraph 3", "段落3"],
    "outputs": ["7"],
    "gt": "True [fact: True]",
    "evaluation": "exam",
    "ground_truth": ["7", "A"],
    "all_classes": ["7"],
    "length": 7,
    "response": "The correct answer is (A)",
    "answer": "A",
    "difficulty": "easy",
    "target": "none",
    "output": "None",
    "question": "Where?",
}


@st.composite
def lines(draw: st.DrawFn, bench: str) -> str:
    """Draw a line: a record with a field or two exchanged, or torn, or no record."""
    record = {key: LIKELY[key] for key in KEYS[bench] if key in LIKELY}
    for key in draw(st.lists(st.sampled_from(KEYS[bench]), max_size=2)):
        record[key] = draw(VALUES)
    text = ",".join(map(str, (0, *record.values()))) if bench == "babilong" else json.dumps(record)
    return draw(
        st.sampled_from([text, text, text, text[:-4], f" {text}", "\ufeff" + text, "[]", "x"])
    )


@pytest.mark.parametrize("bench", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_record_is_scored_or_refused(bench: str, data: st.DataObject) -> None:
    task = data.draw(st.sampled_from(sorted(FORMATS[bench].tasks or ["model"])))
    content = "\n".join(data.draw(st.lists(lines(bench), max_size=4)))
    with tempfile.TemporaryDirectory() as folder:
        suffix = FORMATS[bench].suffix
        path = Path(folder) / f"{task}{suffix}"
        if suffix == ".csv":
            content = f",{','.join(KEYS[bench])}\n{content}"
        path.write_text(content, encoding="utf-8", errors="surrogatepass")
        try:
            (result,) = score_folder(bench, Path(folder)).values()
        except UserError as error:
            refusal = str(error)
        else:
            assert result.n >= 1
            assert all(math.isnan(value) or 0 <= value <= 100 for value in result.scores.values())
            return
    assert str(path) in refusal
    assert "\n" not in refusal


def _refusal(folder: Path, bench: str | None) -> str:
    """Return the message with which a folder is refused, nothing if it is scored."""
    try:
        score_predictions(folder, bench)
    except UserError as error:
        return str(error)
    return ""


SAMPLE = {
    "doc_id": 0,
    "doc": {"outputs": ["7"], "max_length": 4096, "answers": ["7"], "length": 3},
    "filtered_resps": ["7"],
    "filter": "none",
    "metrics": ["4096"],
    "4096": 1.0,
}


@pytest.mark.parametrize("task", ["niah_single_1", "longbench_trec", "babilong_qa1"])
@pytest.mark.parametrize("bench", [None, "ruler", "longbench"])
@settings(max_examples=30, deadline=None)
@given(key=st.sampled_from(sorted(SAMPLE)), value=VALUES)
def test_any_row_of_lm_eval_is_scored_or_refused(
    task: str, bench: str | None, key: str, value: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"samples_{task}_2026-01-01T00-00-00.1.jsonl"
        path.write_text(json.dumps(SAMPLE | {key: value}), encoding="utf-8")
        assert str(path) in (_refusal(Path(folder), bench) or str(path))


@pytest.mark.parametrize("task", ["ruler_vt_4k", "LongBench_trec", "LongBench_qasper"])
@settings(max_examples=30, deadline=None)
@given(key=st.sampled_from(["prediction", "gold"]), value=VALUES)
def test_any_row_of_opencompass_is_scored_or_refused(task: str, key: str, value: Any) -> None:
    row = {"prediction": "7", "gold": ["7"]} | {key: value}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{task}.json"
        path.write_text(json.dumps({"0": row}), encoding="utf-8")
        assert str(path) in (_refusal(Path(folder), None) or str(path))


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["task", "answer", "answers", "all_classes", "difficulty", "length"]),
        st.sampled_from(["trec", "vt", "qasper", "['a']", "[", "", "7", "x", "['a' ... 'b']"]),
    )
)
def test_any_row_of_kvpress_is_scored_or_refused(row: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.csv"
        columns = {"predicted_answer": "a", **row}
        path.write_text(f"{','.join(columns)}\n{','.join(columns.values())}\n", encoding="utf-8")
        assert str(path) in (_refusal(Path(folder), None) or str(path))
