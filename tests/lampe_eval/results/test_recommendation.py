"""Recommendation of a method: who is left at each step."""

from typing import Any

import pytest

from lampe_eval.results.costs import Costs, Ratio
from lampe_eval.results.effective_length import EffectiveLength, ScoreAtLength
from lampe_eval.results.recommendation import (
    BenchSummary,
    MethodSummary,
    ShortPromptTax,
    recommend,
)

UP = {"niah": True}


def summary(
    name: str, score: float, *, worse: bool = False, tax: float = 0, prompt: float | None = 1.0
) -> MethodSummary:
    """Return a method with one benchmark; a tax that is not zero is shown."""
    bench = BenchSummary(
        ScoreAtLength(score, score - 5, score + 5),
        worse,
        EffectiveLength(1024, 1024, 1024, 4096),
        ShortPromptTax(tax, tax - 1, tax + 1, tax != 0),
    )
    ratio = Ratio(prompt, 0.9 * prompt, 1.1 * prompt) if prompt else None
    return MethodSummary(name, {"niah": bench}, Costs(ratio, None, Ratio(1.0, 1.0, 1.0), 10, {}))


@pytest.mark.parametrize(
    ("summaries", "options", "expected"),
    [
        ([summary("a", 90), summary("b", 20, worse=True)], {}, "a"),
        # the cheaper of two that are not told apart, though its score is lower
        ([summary("a", 90, prompt=1.3), summary("b", 85)], {}, "b"),
        # clocks do not tell 3 % apart, so the score decides
        ([summary("a", 90, prompt=1.03), summary("b", 85)], {}, "a"),
        ([summary("a", 90, tax=-4), summary("b", 85, prompt=1.4)], {}, "b"),
        # all lose on short prompts
        ([summary("a", 90, tax=-4), summary("b", 20, worse=True)], {}, "a"),
        ([summary("a", 90, prompt=1.4), summary("b", 85)], {"max_slowdown": 1.2}, "b"),
        ([summary("a", 90, prompt=1.4)], {"max_slowdown": 1.2}, None),
        # the only one that is fast enough, though a slower one is shown to be better
        ([summary("a", 90, prompt=1.4), summary("b", 2, worse=True)], {"max_slowdown": 1.2}, "b"),
        ([summary("a", 90, worse=True), summary("b", 95, worse=True)], {}, "b"),
        ([summary("a", 90, prompt=None)], {"max_slowdown": 1.2}, "a"),
        # nothing to choose between
        ([summary("a", 0), summary("b", 0, prompt=1.4)], {}, None),
        ([summary("a", 90, prompt=None), summary("b", 85, prompt=None)], {}, "a"),
    ],
)
def test_the_recommended_method(
    summaries: list[MethodSummary], options: dict[str, Any], expected: str | None
) -> None:
    found = recommend(summaries, UP, **options)
    assert found.method == expected
    assert found.reason
    assert expected not in found.not_told_apart


@pytest.mark.parametrize(
    ("summaries", "max_slowdown", "named"),
    [
        ([summary("a", 90)], None, "no other method"),
        ([summary("a", 90, prompt=1.4), summary("b", 2, worse=True)], 1.2, "1.2 times"),
        (
            [summary("a", 90, prompt=1.3), summary("b", 85, prompt=1.2)],
            None,
            "not shown to be slower",
        ),
    ],
)
def test_the_reason_says_what_was_left(
    summaries: list[MethodSummary], max_slowdown: float | None, named: str
) -> None:
    assert named in recommend(summaries, UP, max_slowdown=max_slowdown).reason


@pytest.mark.parametrize(
    ("tax", "among"), [(0, "of those it reads"), (-4, "of the others it reads")]
)
def test_the_reason_names_the_methods_among_which_costs_decide(tax: float, among: str) -> None:
    found = recommend(
        [summary("a", 90, prompt=1.3), summary("b", 85), summary("c", 85, tax=tax, prompt=1.4)], UP
    )
    assert found.method == "b"
    assert among in found.reason


def test_a_lower_perplexity_is_better() -> None:
    found = recommend([summary("a", 25.0), summary("b", 24.0)], {"niah": False})
    assert found.method == "b"


def test_the_front_has_every_method_that_no_other_one_matches() -> None:
    methods = [
        summary("best", 90, prompt=1.5),
        summary("cheap", 40),
        summary("beaten", 40, prompt=1.2),
        summary("twin", 90, prompt=1.5),
    ]
    assert recommend(methods, UP).front == ["best", "cheap", "twin"]
