"""RULER's metrics and averages, against worked examples."""

import pytest

from lampe_eval.scoring import ruler_metrics

GPT4 = {4096: 96.6, 8192: 96.3, 16384: 95.2, 32768: 93.2, 65536: 87.0, 131072: 81.2}
"""From the paper's table of thirteen-task averages."""


def test_there_are_thirteen_tasks() -> None:
    assert len(ruler_metrics.METRICS) == 13


@pytest.mark.parametrize(
    ("task", "prediction", "references", "score"),
    [
        ("niah_multivalue", "1234567", ["1234567", "7654321", "1111111", "2222222"], 0.25),
        ("vt", "The answer is KDRXW, xufus", ["KDRXW", "XUFUS", "MOXDD", "MNOIT", "LVXLX"], 0.4),
        ("cwe", "treehouse", ["tree"], 1),
        ("cwe", "", ["a"], 0),
        ("qa_1", "It was France.", ["Gaul", "france"], 1),
        ("qa_2", "Normandy", ["France"], 0),
        ("fwe", "two\twords", ["two words"], 0),
        ("fwe", "two\twords", ["two\nwords"], 1),
    ],
)
def test_metric(task: str, prediction: str, references: list[str], score: float) -> None:
    assert ruler_metrics.score(task, prediction, references, {}) == score


def test_averages_as_in_the_paper() -> None:
    assert round(ruler_metrics.weighted_average(GPT4, rising=True), 1) == 89.0
    assert round(ruler_metrics.weighted_average(GPT4, rising=False), 1) == 94.1
    assert ruler_metrics.average({"vt": 50.0, "cwe": 100.0}) == 75


def test_effective_length_as_in_the_paper() -> None:
    assert ruler_metrics.effective_length(GPT4) == 65536
    assert ruler_metrics.effective_length({4096: 85.5}) == 0
