"""Costs relative to another method, from stored samples."""

from typing import Any, cast

from lampe_eval.records import SampleRecord
from lampe_eval.results.costs import Costs, relative_costs


def sample(name: str, **measured: Any) -> SampleRecord:
    return cast(SampleRecord, {"id": name, **measured})


def test_ratios_are_medians_over_the_samples_that_both_have() -> None:
    reference = [sample(str(n), prefill_seconds=2.0, peak_memory_bytes=100) for n in range(4)]
    rows = [
        sample(str(n), prefill_seconds=seconds, peak_memory_bytes=110)
        for n, seconds in ((0, 2.2), (1, 2.4), (2, 40.0), (9, 0.1))
    ]
    assert relative_costs([(rows, reference)]) == Costs(prompt=1.2, token=None, memory=1.1, n=3)


def test_the_first_token_belongs_to_the_prompt() -> None:
    reference = [sample("0", decode_seconds=1.0, answer_tokens=11)]
    rows = [sample("0", decode_seconds=1.0, answer_tokens=6)]
    assert relative_costs([(rows, reference)]).token == 2.0
    rows = [sample("0", decode_seconds=0.0, answer_tokens=1)]
    assert relative_costs([(rows, reference)]).token is None


def test_batches_of_another_size_are_not_compared() -> None:
    reference = [sample("0", prefill_seconds=1.0, batch_size=4)]
    costs = relative_costs([([sample("0", prefill_seconds=1.0)], reference)])
    assert costs == Costs(prompt=None, token=None, memory=None, n=0)
