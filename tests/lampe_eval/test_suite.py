"""Options of a run."""

import pytest

from lampe_eval.errors import UserError
from lampe_eval.plan import prepare
from lampe_eval.suite import Suite, parse_length


@pytest.mark.parametrize(("text", "tokens"), [("256", 256), ("4k", 4096), ("4K", 4096), ("1m", 2**20)])
def test_lengths(text: str, tokens: int) -> None:
    assert parse_length(text) == tokens


@pytest.mark.parametrize("text", ["", "k", "4kk", "-1", "0", "4.5k", "four"])
def test_what_is_no_length(text: str) -> None:
    with pytest.raises(ValueError, match="not a length"):
        parse_length(text)


def test_options_repeat_or_take_commas() -> None:
    suite = Suite.of({"model": ["a,b", "c"], "lengths": ["256,1k"], "bench": None})
    assert suite.model == ("a", "b", "c")
    assert suite.lengths == (256, 1024)
    assert suite.bench == ("niah", "ppl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": ["4q"]}, "--lengths: '4q' is not a length in tokens"),
        ({"limit": 0}, "--limit: Input should be greater than or equal to 1"),
        ({"seed": -1}, "--seed: Input should be greater"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Suite.of(options)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_suite_takes_a_lone_text_for_every_list() -> None:
    suite = Suite.of({"method": "original,lampe:head=3,tail=9", "bench": "niah", "lengths": 256})
    assert (suite.method, suite.bench, suite.lengths) == (("original,lampe:head=3,tail=9",), ("niah",), (256,))


@pytest.mark.parametrize(("device", "kind"), [("cuda:0", "cuda"), ("cuda:1", "cuda"), ("cpu", "cpu")])
def test_a_score_depends_on_the_kind_of_a_device_alone(device: str, kind: str) -> None:
    assert prepare(Suite(device=device, bench="niah/single")).config["device"] == kind
