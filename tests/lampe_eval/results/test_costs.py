"""Costs relative to another method, from stored samples."""

from typing import Any, cast

import pytest

from lampe_eval.records import SampleRecord
from lampe_eval.results.costs import Costs, Ratio, environment_differences, relative_costs


def sample(name: str, **measured: Any) -> SampleRecord:
    return cast(SampleRecord, {"id": name, "prompt_sha256": "a", **measured})


def test_ratios_are_medians_over_the_samples_that_both_have() -> None:
    reference = [sample(str(n), prefill_seconds=2.0, peak_memory_bytes=100) for n in range(4)]
    rows = [
        sample(str(n), prefill_seconds=seconds, peak_memory_bytes=110)
        for n, seconds in ((0, 2.2), (1, 2.4), (2, 40.0), (9, 0.1))
    ]
    assert relative_costs([(rows, reference)]) == Costs(
        Ratio(1.2, 1.1, 20.0), None, Ratio(1.1, 1.1, 1.1), 3, {}
    )


def test_the_first_token_belongs_to_the_prompt() -> None:
    reference = [sample("0", decode_seconds=1.0, answer_tokens=11)]
    rows = [sample("0", decode_seconds=1.0, answer_tokens=6)]
    assert relative_costs([(rows, reference)]).token == Ratio(2.0, 2.0, 2.0)
    rows = [sample("0", decode_seconds=0.0, answer_tokens=1)]
    assert relative_costs([(rows, reference)]).token is None


def test_batches_of_another_size_are_not_compared() -> None:
    reference = [sample("0", prefill_seconds=1.0, batch_size=4)]
    costs = relative_costs([([sample("0", prefill_seconds=1.0)], reference)])
    assert costs == Costs(prompt=None, token=None, memory=None, n=0, conditions={})


def test_other_prompts_of_one_id_are_not_compared() -> None:
    reference = [sample(name, prefill_seconds=1.0) for name in "01"]
    rows = [sample("0", prefill_seconds=3.0), sample("1", prefill_seconds=9.0, prompt_sha256="b")]
    costs = relative_costs([(rows, reference)])
    assert (costs.n, costs.prompt) == (1, Ratio(3.0, 3.0, 3.0))


@pytest.mark.parametrize(
    ("n", "expected"),
    # binomial order statistics: the third of twelve and the third last cover the median with 96 %
    [(5, (1, 5)), (6, (1, 6)), (12, (3, 10)), (50, (18, 33))],
)
def test_the_interval_of_a_median(n: int, expected: tuple[int, int]) -> None:
    reference = [sample(str(place), prefill_seconds=1.0) for place in range(n)]
    rows = [sample(str(place), prefill_seconds=place + 1.0) for place in range(n)]
    prompt = relative_costs([(rows, reference)]).prompt
    assert prompt is not None
    assert (prompt.low, prompt.high) == expected


def test_how_both_ran_is_stated_where_it_differs() -> None:
    reference = [sample("0", backend="flash on cuda", low_memory=True)]
    rows = [sample("0", backend="dense on cpu", low_memory=True)]
    conditions = relative_costs([(rows, reference)]).conditions
    assert conditions == {"backend": ("dense on cpu", "flash on cuda")}


def test_sessions_differ_in_what_not_all_of_them_have() -> None:
    sessions = [{"gpu": "A", "cores": 8}, {"gpu": "A", "cores": 8}, {"gpu": "A", "torch": "2"}]
    assert environment_differences(sessions) == {"cores": "8, None", "torch": "None, 2"}
    assert environment_differences(sessions[:2]) == environment_differences([]) == {}
