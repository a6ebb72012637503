"""Methods on the built-in model: the same tokens in vLLM as of a patched model alone."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vllm is not installed in this Python: make test-vllm")

import torch
from vllm import LLM, SamplingParams
from vllm.v1.core.sched.scheduler import Scheduler

import lampe
from lampe_eval.pocket import WEIGHTS
from lampe_vllm.served_method import ServedMethod
from tests.vllm.answers import Answer, expected_answers, load, random_prompts
from tests.vllm.engines import Engines, serve

LENGTHS = (60, 255, 257, 300, 700, 1100)
TOKENS = 12
LOGPROB = 2e-4
"""Difference of log-probabilities: rounding of float32 in another order."""
PROMPTS = random_prompts(LENGTHS, 745)

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "original": ("original", {}),
    "lampe": ("lampe", {}),
    "separable": ("lampe", {"variant": "separable"}),
    "selfextend": ("selfextend", {}),
    "dca": ("dca", {}),
    "chunkllama": ("chunkllama", {}),
    "yarn": ("yarn", {}),
    "string": ("string", {}),
    "rerope": ("rerope", {}),
    "pi": ("pi", {}),
    "ntk": ("ntk", {}),
    "dynamic-ntk": ("dynamic-ntk", {}),
    "rotated-ntk": ("dynamic-ntk", {"cache": "rotated"}),
    "lampe+yarn": ("lampe+yarn", {}),
    "dpe": ("dpe", {"group_sizes": "2/4/2/8"}),
    "gali": ("gali", {}),
}


@dataclass(frozen=True)
class Scenario:
    """Way in which requests come to the engine.

    Attributes:
        options: of vLLM.
        arriving: whether requests come while others run.
        preempting: whether there is too little memory for all of them.
    """

    options: dict[str, Any]
    arriving: bool = False
    preempting: bool = False


SCENARIOS = {
    "batch": Scenario({"max_num_batched_tokens": 8192}),
    # Blocks for the prompts and hardly for their answers: the last request gives its blocks up, and
    # is computed again, prompt and answer together.
    "preempted": Scenario(
        {"block_size": 32, "num_gpu_blocks_override": 88, "max_model_len": 1200}, preempting=True
    ),
    "arriving": Scenario({"max_num_batched_tokens": 512}, arriving=True),
    "guessing": Scenario(
        {
            "speculative_config": {
                "method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3,
                "prompt_lookup_min": 1,
            }
        }
    ),
    "chunked": Scenario({"max_num_batched_tokens": 100, "max_num_seqs": 16}),
}  # fmt: skip


@cache
def expected(name: str) -> list[Answer]:
    method, settings = METHODS[name]
    return expected_answers(load(WEIGHTS), method, settings, PROMPTS, TOKENS)


@pytest.fixture(scope="module", params=SCENARIOS)
def scenario(request: pytest.FixtureRequest, engines: Engines) -> tuple[LLM, Scenario]:
    chosen = SCENARIOS[request.param]
    return engines.start(WEIGHTS, ServedMethod("original"), **chosen.options), chosen


@pytest.mark.parametrize("name", METHODS)
def test_same_answers(
    name: str, scenario: tuple[LLM, Scenario], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, chosen = scenario
    preempted = []
    preempt = Scheduler._preempt_request

    def record(scheduler: Any, request: Any, *arguments: Any, **options: Any) -> Any:
        preempted.append(request)
        return preempt(scheduler, request, *arguments, **options)

    monkeypatch.setattr(Scheduler, "_preempt_request", record)
    serve(*METHODS[name])
    parameters = SamplingParams(
        temperature=0, max_tokens=TOKENS, min_tokens=TOKENS, ignore_eos=True, logprobs=0
    )
    outputs = {}
    for index, prompt in enumerate(PROMPTS):
        engine.llm_engine.add_request(str(index), {"prompt_token_ids": prompt}, parameters)
        if chosen.arriving:
            for output in engine.llm_engine.step():
                outputs[int(output.request_id)] = output
    while engine.llm_engine.has_unfinished_requests():
        for output in engine.llm_engine.step():
            outputs[int(output.request_id)] = output
    assert bool(preempted) == chosen.preempting
    for index, (tokens, logprobs) in enumerate(expected(name)):
        answer = outputs[index].outputs[0]
        assert list(answer.token_ids) == tokens, LENGTHS[index]
        found = [next(iter(token.values())).logprob for token in answer.logprobs]
        assert found == pytest.approx(logprobs, abs=LOGPROB), LENGTHS[index]


def test_prompt_logprobs(engines: Engines) -> None:
    """Score a prompt in chunks as one forward call does."""
    engine = engines.start(WEIGHTS, ServedMethod("original"), **SCENARIOS["chunked"].options)
    serve("lampe", {})
    parameters = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    model = load(WEIGHTS)
    for prompt in PROMPTS[2:5]:
        (output,) = engine.generate([{"prompt_token_ids": prompt}], parameters, use_tqdm=False)
        found = [
            token[id].logprob
            for token, id in zip(output.prompt_logprobs[1:], prompt[1:], strict=True)
        ]
        with torch.no_grad(), lampe.patch(model, "lampe"):
            logits = model(torch.tensor([prompt])).logits[0, :-1].log_softmax(-1)
        wanted = logits.gather(1, torch.tensor(prompt[1:])[:, None])[:, 0].tolist()
        assert found == pytest.approx(wanted, abs=LOGPROB)


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"dtype": "float16"}, 0.02),
        ({"dtype": "bfloat16"}, 0.2),
        ({"enforce_eager": False}, LOGPROB),
    ],
    ids=str,
)
def test_data_types_and_a_compiled_model(
    options: dict[str, Any], difference: float, engines: Engines
) -> None:
    """Score the tokens of its own answers as the model does in float32."""
    engine = engines.start(WEIGHTS, ServedMethod("original"), **options)
    serve("lampe", {})
    parameters = SamplingParams(
        temperature=0, max_tokens=TOKENS, min_tokens=TOKENS, ignore_eos=True, logprobs=0
    )
    outputs = engine.generate(
        [{"prompt_token_ids": prompt} for prompt in PROMPTS], parameters, use_tqdm=False
    )
    model = load(WEIGHTS)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        (answer,) = output.outputs
        ids = torch.tensor([[*prompt, *answer.token_ids]])
        with torch.no_grad(), lampe.patch(model, "lampe") as handle, handle.prompt(len(prompt)):
            scores = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        wanted = scores.gather(1, ids[0, len(prompt) :, None])[:, 0].tolist()
        found = [next(iter(token.values())).logprob for token in answer.logprobs]
        assert found == pytest.approx(wanted, abs=difference)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dca", {}),
        ("selfextend", {"scheduler_cls": "lampe_vllm.salted_scheduler.SaltedScheduler"}),
    ],
)
def test_shared_beginnings(method: str, options: dict[str, Any], engines: Engines) -> None:
    """Answer prompts whose beginning another one had as if they were alone."""
    engine = engines.start(WEIGHTS, ServedMethod(method), enable_prefix_caching=True, **options)
    first = PROMPTS[-1]
    prompts = [first, [*first[:1000], *PROMPTS[4][:100]], [*first[:1000], *PROMPTS[4][:90]]]
    parameters = SamplingParams(temperature=0, max_tokens=8, min_tokens=8, ignore_eos=True)
    outputs = []
    for prompt in prompts:
        outputs += engine.generate([{"prompt_token_ids": prompt}], parameters, use_tqdm=False)
    assert outputs[1].num_cached_tokens >= 896
    wanted = expected_answers(load(WEIGHTS), method, {}, prompts, 8)
    assert [list(output.outputs[0].token_ids) for output in outputs] == [t for t, _ in wanted]


def test_stock_engine_is_unchanged(engines: Engines) -> None:
    """Answer as the model does, within its window, where the plug-in is not asked for."""
    engine = engines.start(WEIGHTS, None, max_model_len=256)
    parameters = SamplingParams(temperature=0, max_tokens=8, min_tokens=8, ignore_eos=True)
    prompts = [prompt[:200] for prompt in PROMPTS[:2]]
    outputs = engine.generate(
        [{"prompt_token_ids": p} for p in prompts], parameters, use_tqdm=False
    )
    wanted = expected_answers(load(WEIGHTS), "original", {}, prompts, 8)
    assert [list(output.outputs[0].token_ids) for output in outputs] == [t for t, _ in wanted]
