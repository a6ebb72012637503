"""Options of a run, and how they are checked."""

import pytest

from lampe_eval.errors import UserError
from lampe_eval.running.configuration import run_configuration
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.running.run_plan import plan_run
from lampe_eval.suite import Suite, parse_length


@pytest.mark.parametrize(
    ("text", "tokens"), [("256", 256), ("4k", 4096), ("4K", 4096), ("16m", 2**24)]
)
def test_lengths(text: str, tokens: int) -> None:
    assert parse_length(text) == tokens


@pytest.mark.parametrize("text", ["", "k", "4kk", "-1", "0", "4.5k", "four"])
def test_texts_that_are_not_lengths(text: str) -> None:
    with pytest.raises(ValueError, match="not a length"):
        parse_length(text)


def test_options_repeat_or_take_commas() -> None:
    suite = Suite.from_options({"model": ["a,b", "c"], "lengths": ["256,1k"], "bench": None})
    assert suite.model == ("a", "b", "c")
    assert suite.lengths == (256, 1024)
    assert suite.bench == ("niah", "ppl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": ["4q"]}, "--lengths: '4q'"),
        ({"limit": 0}, "--limit: must be at least 1, got 0"),
        ({"seed": -1}, "--seed: must be at least 0, got -1"),
        ({"lengths": ["17m"]}, "--lengths: '17m'"),
        (
            {"fail_on_error": "200%"},
            "--fail-on-error: '200%'",
        ),
        ({"max_batch_tokens": 1, "max-batch-tokens": 2}, "a key stands twice"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Suite.from_options(options)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_suite_takes_a_lone_text_for_every_list() -> None:
    suite = Suite.from_options(
        {"method": "original,lampe:head_tokens=3,tail_tokens=9", "bench": "niah", "lengths": 256}
    )
    assert (suite.method, suite.bench, suite.lengths) == (
        ("original,lampe:head_tokens=3,tail_tokens=9",),
        ("niah",),
        (256,),
    )


@pytest.mark.parametrize(
    ("device", "kind"), [("cuda:0", "cuda"), ("cuda:1", "cuda"), ("cpu", "cpu")]
)
def test_a_score_depends_on_the_kind_of_a_device_alone(device: str, kind: str) -> None:
    plan = plan_run(resolve_suite(Suite(device=device, bench="niah/single")))
    assert run_configuration(plan)["device"] == kind
