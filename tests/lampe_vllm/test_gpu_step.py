"""Steps of chunks, answers, guessed tokens and requests that are computed again, in one batch."""

import dataclasses
from itertools import accumulate

import pytest
import torch

import lampe
from lampe.attention import BackendDispatcher
from lampe.attention.logit_options import PLAIN_LOGITS
from lampe.methods import method_of
from lampe_vllm.batch_tokens import RequestTokens
from lampe_vllm.gpu.decode import DecodeTables
from lampe_vllm.gpu.step import divide_step
from lampe_vllm.prompt_encodings import PromptEncodings
from tests.lampe.attention.error_bound import error_bound
from tests.lampe_vllm.paged_batches import DEVICE, SCALE, oracle, paged_batch

pytestmark = pytest.mark.usefixtures("interpreted_kernels")

PADDING = 3
# Tokens of the prompt, first token of the step, and token after its last one.
SPANS = {
    "first chunk": (45, 0, 19),
    "later chunk": (45, 20, 45),
    "answer": (40, 43, 44),
    "guessed tokens": (33, 33, 36),
    "computed again": (40, 28, 43),
}


@pytest.mark.parametrize(
    "method",
    [
        method_of("selfextend"),
        method_of("dpe", group_sizes="2/5/1/3"),
        method_of("gali"),
        method_of("lampe", variant="reference", head_tokens=4, tail_tokens=3, mapping_length=12),
    ],
    ids=[
        "one plan",
        "bands of rotated pairs",
        "plans of bands of queries and per token",
        "a plan per token",
    ],
)
def test_every_token_of_a_step_equals_the_oracle(method: lampe.Method) -> None:
    encodings = PromptEncodings(method, lampe.Geometry(window=24, head_dim=32))
    prompts = encodings.prompts(None, [prompt for prompt, _, _ in SPANS.values()])
    counts = [stop - start for _, start, stop in SPANS.values()]
    begins = accumulate(counts, initial=0)
    requests = [
        RequestTokens(row, begin, count, start, prompt)
        for row, (begin, count, (prompt, start, _)) in enumerate(
            zip(begins, counts, SPANS.values(), strict=False)
        )
    ]
    batch = paged_batch(
        [
            (each.encoding, start, stop)
            for each, (_, start, stop) in zip(prompts, SPANS.values(), strict=True)
        ],
        heads=(2, 1),
        dim=32,
    )
    step = divide_step(
        list(zip(requests, prompts, strict=True)), batch.block_table, DecodeTables(DEVICE)
    )
    query = torch.cat((batch.query, batch.query.new_full((PADDING, 2, 32), torch.nan)))
    output = torch.full_like(query, torch.nan)
    step.attend(
        query,
        batch.cache,
        output,
        scale=SCALE,
        logits=PLAIN_LOGITS,
        dispatcher=BackendDispatcher("blockwise"),
    )
    assert output[-PADDING:].isnan().all()
    for request, prompt, inputs in zip(requests, prompts, batch.inputs, strict=True):
        for offset in range(request.count):
            token = request.start + offset
            alone = dataclasses.replace(
                inputs,
                query=inputs.query[:, :, offset : offset + 1],
                key=inputs.key[:, :, : token + 1],
                value=inputs.value[:, :, : token + 1],
                encoding=prompt.at(token + 1),
                start=token,
            )
            error = (output[request.begin + offset].double() - oracle(alone)[0]).abs().max()
            assert float(error) <= error_bound(inputs)
