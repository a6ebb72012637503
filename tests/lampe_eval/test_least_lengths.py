"""Lengths that are too short: the one that the refusal names is enough for all samples."""

import re

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.benches.bench import SampleRequest
from lampe_eval.errors import UserError

SAMPLES = 12


@pytest.mark.parametrize(
    "name",
    [
        *("ruler/niah_multikey_3", "ruler/vt", "ruler/fwe", "niah/single"),
        *("babilong/before", "latent/one_hop_distractor"),
        *("graphwalks/parents", "graphwalks/steps_3", "helmet/json_kv"),
    ],
)
@pytest.mark.parametrize("length", [16, 32])
def test_the_least_length_named_is_enough_for_every_sample(
    pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase], name: str, length: int
) -> None:
    (task,) = find_tasks((name,))
    bench = BENCHES[task.bench]

    def request(length: int, limit: int = SAMPLES) -> SampleRequest:
        return SampleRequest(pocket[1], length, limit, bench.protocol("fair"))

    with pytest.raises(UserError, match=rf"{length}: .*--lengths") as refused:
        list(bench.samples(task, request(length)))
    numbers = re.findall(r"at least (\d+) tokens", str(refused.value))
    assert len(numbers) == 1
    least = int(numbers[0])
    samples = list(bench.samples(task, request(least)))
    assert len(samples) == SAMPLES
    bench.check_length(task, request(8 * least))
    # Each sample alone needs no more than all together, and one of them needs as much.
    assert bench.least_length(task, request(length, 1)) <= least
    with pytest.raises(UserError, match=rf"{least - 1}: .* {least} "):
        bench.check_length(task, request(least - 1))
