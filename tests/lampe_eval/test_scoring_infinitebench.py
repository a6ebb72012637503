"""InfiniteBench's two scorers, against worked examples."""

from typing import Any

import pytest

from lampe_eval.scoring import infinitebench_metrics

DEBUG = ["foo_bar", "B"]
CHOICE = ["Bob ran", "B"]


@pytest.mark.parametrize(
    ("task", "prediction", "label", "official", "lampe"),
    [
        ("passkey", "The key is 71432", "71432", 1, 1),
        ("passkey", "7 1432", ["71432"], 0, 0),
        ("number_string", "071432", ["71432"], 0, 0),
        ("kv_retrieval", '"ab12-cd34"', "ab12-cd34", 1, 1),
        ("kv_retrieval", "value:ab12-cd34,", ["ab12-cd34"], 0, 1),
        ("kv_retrieval", "ab12-cd3", ["ab12-cd34"], 0, 0),
        ("code_run", "The value is -7", -7, 1, 1),
        ("code_run", "42.", [42], 1, 1),
        ("code_run", "The answer is 42 exactly", [42], 0, 0),
        ("code_run", "", [1], 0, 0),
        ("code_debug", "B", DEBUG, 0, 1),
        ("code_debug", " B. foo_bar", DEBUG, 1, 1),
        ("code_debug", "B: foo_bar", DEBUG, 1, 1),
        ("code_debug", "foo_bar", DEBUG, 0, 1),
        ("code_debug", "C or B", DEBUG, 0, 1),
        ("code_debug", "B\nor C", DEBUG, 0, 1),
        ("code_debug", "The correct option is: foo_bar", DEBUG, 1, 1),
        ("code_debug", "It is: A. The answer is: `foo_bar`", DEBUG, 1, 1),
        ("code_debug", "The answer is: A. Its name is: foo_bar", DEBUG, 0, 0),
        ("code_debug", "I think A", DEBUG, 0, 0),
        ("math_find", "the number is 12", [12], 1, 1),
        ("math_find", "12", [12.0], 1, 1),
        ("math_find", "3.5", 3.5, 1, 1),
        ("math_find", "3.0", [3], 0, 0),
        ("math_find", "-12", [-12], 0, 0),
        ("math_find", "none", [3], 0, 0),
        ("math_calc", "[1, 4, 8]", [1, 4, 8], 1, 1),
        ("math_calc", "1 4 9", [[1, 4, 8]], 2 / 3, 2 / 3),
        ("math_calc", "1 5 8", [1, 4, 8], 1 / 3, 1 / 3),
        ("math_calc", "", [1, 2], 0, 0),
        ("longdialogue_qa_eng", "george", ["GEORGE", "GEO"], 1, 1),
        ("longdialogue_qa_eng", "geo", ["GEORGE", "GEO"], 0, 1),
        ("longdialogue_qa_eng", "Mr. George Smith", ["GEORGE SMITH"], 0, 1),
        ("longdialogue_qa_eng", "GEORGETTE", ["GEORGE"], 0, 1),
        ("longbook_choice_eng", "The answer is: B", CHOICE, 1, 1),
        ("longbook_choice_eng", "Bob ran", CHOICE, 1, 1),
        ("longbook_choice_eng", "option B", CHOICE, 1, 1),
        ("longbook_choice_eng", "Answer is C. No, B", CHOICE, 0, 1),
        ("longbook_choice_eng", "A good guess is B", CHOICE, 0, 1),
        ("longbook_choice_eng", "it is", CHOICE, 0, 0),
        ("longbook_choice_eng", " ", CHOICE, 0, 0),
        ("longbook_qa_eng", "blue", ["red", "blue car"], 2 / 3, 2 / 3),
        ("longbook_qa_chn", "红色房子", ["红房子"], 6 / 7, 6 / 7),
        ("longbook_sum_eng", "abc def", "abc def ghi", 0.8, 0.8),
        ("longbook_sum_eng", "A cat sat.\nA dog ran.", ["x", "A dog ran.\nA cat sat."], 1, 1),
    ],
)
def test_score(task: str, prediction: str, label: Any, official: float, lampe: float) -> None:
    assert infinitebench_metrics.score(task, prediction, label, {}) == pytest.approx(official)
    assert infinitebench_metrics.score(task, prediction, label, {}, "lampe") == pytest.approx(lampe)


def test_gpt4_repeats_the_first_value() -> None:
    assert infinitebench_metrics.score("math_calc", "1 1 4", [1, 4], {"model": "gpt4"}) == 1
    assert infinitebench_metrics.score("math_calc", "1 1 4", [1, 4], {"model": "yi-6b-200k"}) == 0.5


def test_both_scorers_know_every_task() -> None:
    assert len(infinitebench_metrics.METRICS["official"]) == 12
    assert (
        infinitebench_metrics.METRICS["official"].keys()
        == infinitebench_metrics.METRICS["lampe"].keys()
    )
