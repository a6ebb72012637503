"""Text metrics of several benchmarks: worked examples, and comparison with the package rouge."""

import math
import random

import pytest
from rouge import Rouge

from lampe_eval.scoring.text_metrics import (
    bands,
    google_rouge,
    normalize,
    normalize_zh,
    percent,
    rouge_l,
    strip_punctuation,
    token_f1,
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The U.S.A. is a  Nation!", "usa is nation"),
        ("An apple-pie, a day", "applepie day"),
        ("Café 42%", "café 42"),
        ("theatre", "theatre"),
        ("the", ""),
    ],
)
def test_normalize(text: str, normal: str) -> None:
    assert normalize(text) == normal


def test_strip_punctuation_keeps_case_and_capital_articles() -> None:
    assert strip_punctuation("The  a. B.") == "The B"


def test_normalize_zh_keeps_only_the_marks_that_upstream_forgot() -> None:
    assert normalize_zh("《红楼梦》，ABC！ 是 书。") == "《红楼梦abc是书"
    assert normalize_zh("（一）．…") == "一．"


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("The quick brown fox", "quick fox", 0.8),
        ("Paris, France.", "Paris", 2 / 3),
        ("blue blue red", "blue red red", 2 / 3),
        ("Answer: 3 apples", "3 apples", 0.8),
        ("the a an", "the", 0),
        ("", "Paris", 0),
    ],
)
def test_token_f1(prediction: str, reference: str, score: float) -> None:
    assert token_f1(prediction, reference) == pytest.approx(score)


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("the cat sat on the mat", "the cat lay on the mat", 0.7999999950000002),
        (
            "Rain fell all night. The river rose.",
            "The river rose. Rain fell all night.",
            0.999999995,
        ),
        ("the the the", "the", 0.999999995),
        ("", "reference text", 0),
        ("...", "reference text", 0),
        ("cat", "Cat", 0),
    ],
)
def test_rouge_l(prediction: str, reference: str, score: float) -> None:
    assert rouge_l(prediction, reference) == score


def test_rouge_l_is_the_package_to_the_last_bit() -> None:
    package, draw = Rouge(metrics=["rouge-l"]), random.Random(0)

    def text() -> str:
        pieces = ["a ", "b ", "c ", "d  ", "e\n", "a b ", ". ", "."][: draw.choice([4, 7, 8])]
        return "".join(draw.choices(pieces, k=draw.randrange(1, 30)))

    compared = 0
    while compared < 2000:
        prediction, reference = text(), text()
        if prediction.strip(".") and reference.strip("."):
            [scores] = package.get_scores([prediction], [reference])
            assert rouge_l(prediction, reference) == scores["rouge-l"]["f"], (prediction, reference)
            compared += 1


def test_rouge_l_of_sentences_longer_than_the_stack() -> None:
    words = " ".join(map(str, range(2000)))
    assert rouge_l(words, words) == pytest.approx(1)


def test_google_rouge_takes_the_best_reference() -> None:
    scores = google_rouge(["rouge1", "rougeLsum"], "abc def", ["xyz", "abc def ghi"])
    assert scores == {"rouge1": pytest.approx(0.8), "rougeLsum": pytest.approx(0.8)}


def test_percent() -> None:
    assert percent([1, 0, 0]) == 33.33
    assert math.isnan(percent([]))


def test_bands_begin_at_their_limits() -> None:
    assert bands([1, 2, 3, 4], [3999, 4000, 7999, 8000], 4000, 8000) == {
        "0-4k": [1],
        "4-8k": [2, 3],
        "8k+": [4],
    }
