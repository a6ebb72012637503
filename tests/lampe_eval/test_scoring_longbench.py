"""LongBench's metrics and reductions, against worked examples."""

import itertools
import math
from typing import Any

import pytest

from lampe_eval.scoring import longbench_metrics

CLASSES = ["Date", "Food", "Individual", "number", "number of something"]


def test_every_task_has_a_metric_and_one_category() -> None:
    tasks = list(itertools.chain.from_iterable(longbench_metrics.CATEGORIES.values()))
    assert len(tasks) == 21
    assert sorted(tasks) == sorted(longbench_metrics.METRICS)


@pytest.mark.parametrize(
    ("task", "prediction", "reference", "score"),
    [
        ("multifieldqa_zh", "厦门大学", "厦门大学。", 1),
        ("multifieldqa_zh", "在北京大学举办", "北京大学", 0.5),
        ("multifieldqa_zh", "不知道", "上海", 0),
        ("vcsum", "会议讨论了明年的预算", "会议讨论了预算安排", 0.7272727223140496),
        ("trec", "Date or Individual", "Individual", 0.5),
        ("trec", "individual", "Individual", 0),
        ("trec", "Food Date Individual", "Date", 1 / 3),
        ("trec", "number of something", "number of something", 1),
        ("trec", "number of something", "number", 0.5),
        ("trec", "number", "number of something", 0),
        ("passage_retrieval_en", "Paragraph 12 or Paragraph 3", "Paragraph 12", 0.5),
        ("passage_retrieval_en", "Paragraph 12, 12", "Paragraph 12", 1),
        ("passage_retrieval_en", "Paragraph 012", "Paragraph 12", 0),
        ("passage_retrieval_en", "Paragraph twelve", "Paragraph 12", 0),
        ("passage_retrieval_zh", "答案是27或3", "段落27", 0.5),
        ("passage_count", "There are 17 unique out of 20", "17", 0.5),
        ("passage_count", "seventeen", "17", 0),
        ("lcc", "\n\n# comment\n    return x+1\nmore", "    return x + 1", 0.93),
        ("lcc", "self.assertEqual(a, b)", "self.assertEqual(b, a)", 0.91),
        ("lcc", "```python\nfoo(bar)\n```", "foo(baz)", 0.88),
        ("lcc", "// only a comment", "int a;", 0),
        ("repobench-p", "ab" * 150, "ab" * 150, 1),
    ],
)
def test_metric(task: str, prediction: str, reference: str, score: float) -> None:
    assert longbench_metrics.score(
        task, prediction, [reference], {"all_classes": CLASSES}
    ) == pytest.approx(score, abs=1e-12)


def test_classification_skips_a_class_after_each_it_deletes() -> None:
    assert longbench_metrics.classification("abc", "abc", ["a", "ab", "abc"]) == 0.5


@pytest.mark.parametrize(
    ("task", "prediction", "references", "score"),
    [
        ("trec", "\nDate\nQuestion: next", ["Date"], 1),
        ("triviaqa", "Paris\nQuestion: who", ["Lyon", "Paris"], 1),
        ("triviaqa", " \nParis", ["Paris"], 0),
        ("hotpotqa", "\nParis\nextra words", ["Paris"], 0.5),
    ],
)
def test_few_shot_tasks_count_the_first_line(
    task: str, prediction: str, references: list[str], score: float
) -> None:
    assert longbench_metrics.score(task, prediction, references, {"all_classes": CLASSES}) == score


def test_bands_of_longbench_e() -> None:
    assert longbench_metrics.by_length([1, 0, 1, 1], [3999, 4000, 7999, 8000]) == {
        "0-4k": 100,
        "4-8k": 50,
        "8k+": 100,
    }
    assert math.isnan(longbench_metrics.by_length([1], [1])["8k+"])


def test_averages() -> None:
    results = {"qasper": 10.0, "hotpotqa": 20.0, "musique": 30.0, "lcc": 60.0, "vcsum": 4.0}
    assert longbench_metrics.flat_mean(results) == 24.8
    assert longbench_metrics.category_mean(results) == pytest.approx((10 + 25 + 60) / 3)
    assert longbench_metrics.category_mean(results, chinese=True) == pytest.approx((4 + 60) / 2)
    assert math.isnan(longbench_metrics.category_mean({"vcsum": 4.0}))


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("The correct answer is (B).", "B"),
        ("**The correct answer is C**", "C"),
        ("The correct answer is (A), or: The correct answer is D", "A"),
        ("The correct answer is D. No: The correct answer is (B)", "B"),
        ("the correct answer is (B)", None),
        ("B", None),
    ],
)
def test_choice_of_v2(prediction: str, letter: str | None) -> None:
    assert longbench_metrics.chosen_letter(prediction) == letter


def test_credit_of_v2() -> None:
    right = "The correct answer is (B)"
    assert [longbench_metrics.choice_score(text, "B") for text in (right, "C", "")] == [1, 0, 0]
    assert [
        longbench_metrics.choice_score(text, "B", compensated=True) for text in (right, "")
    ] == [
        1,
        0.25,
    ]
    assert longbench_metrics.choice_score(right, "C", compensated=True) == 0


def test_report_of_v2() -> None:
    rows: list[tuple[Any, ...]] = [
        (1, "easy", "short"),
        (0, "hard", "short"),
        (0.25, "hard", "long"),
    ]
    report = longbench_metrics.accuracies([longbench_metrics.JudgedAnswer(*row) for row in rows])
    assert math.isnan(report.pop("medium"))
    assert report == {"overall": 41.7, "easy": 100, "hard": 12.5, "short": 50, "long": 25}
