"""Options of a run, and how they are checked."""

import re
from pathlib import Path

import pytest

from lampe_eval.benches import BENCHES
from lampe_eval.errors import UserError
from lampe_eval.prompts.protocol import bench_protocols
from lampe_eval.running.configuration import run_configuration, run_folder
from lampe_eval.running.prepared_run import prepare_run
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.suite import Suite, parse_length
from tests.lampe_eval.stored_runs import configuration


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
    prepared = prepare_run(resolve_suite(Suite(device=device, bench="niah/single")))
    assert run_configuration(prepared)["device"] == kind


@pytest.mark.parametrize(
    ("protocol", "limit"),
    [("fair", "measured"), ("fair:chat=none", "measured"), ("official", None)],
)
def test_samples_share_a_batch_on_a_gpu_where_the_protocol_lets_them(
    protocol: str, limit: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    prepared = prepare_run(resolve_suite(Suite(bench="niah/grid", protocol=protocol)))
    assert prepared.max_batch_tokens == limit


@pytest.mark.parametrize("bench", BENCHES)
def test_protocols_of_published_numbers_run_one_sample_at_a_time(bench: str) -> None:
    for name, protocol in bench_protocols(BENCHES[bench].protocols_folder).items():
        assert protocol.batches == (name == "fair"), name


def test_whether_samples_may_share_a_batch_is_recorded_by_its_effect_alone() -> None:
    prepared = prepare_run(resolve_suite(Suite(bench="niah/grid", max_batch_tokens=7)))
    recorded = run_configuration(prepared)
    assert recorded["max_batch_tokens"] == 7
    assert "batches" not in recorded["protocols"]["niah"]


def test_the_default_folder_is_named_after_the_configuration() -> None:
    first = configuration(models={"org/model": {}, "pocket": {}})
    folder = run_folder(first, None)
    assert re.fullmatch(r"results/org--model\+pocket-[0-9a-f]{8}", folder.as_posix())
    assert run_folder({**first, "seed": 1}, None) != folder
    assert run_folder(first, Path("mine")) == Path("mine")
