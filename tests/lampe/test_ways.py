"""Every way people run a model: each answers as the plain one does, prompt by prompt with a dynamic cache."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

import lampe
from tests.lampe.tiny import llama, random_ids

METHODS = ("lampe", "selfextend", "dca", "yarn")


@pytest.fixture
def model() -> LlamaForCausalLM:
    return llama()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", lampe.PositionWarning)
        yield


def _answer(model: LlamaForCausalLM, ids: Tensor, **options: Any) -> Tensor:
    options = {"max_new_tokens": 12, "do_sample": False, **options}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)  # type: ignore[operator]
    assert isinstance(out, Tensor)
    return out[:, ids.shape[1] :]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "way",
    [
        {"cache_implementation": "static"},
        {"do_sample": True, "top_k": 1},
        {"num_beams": 1, "num_return_sequences": 1},
    ],
    ids=str,
)
def test_ways_that_are_greedy_answer_alike(model: LlamaForCausalLM, method: str, way: dict[str, Any]) -> None:
    ids = random_ids(150)
    with lampe.patch(model, method):
        assert torch.equal(_answer(model, ids, **way), _answer(model, ids))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("beams", [1, 3])
def test_without_a_cache_the_stated_prompt_answers_alike(model: LlamaForCausalLM, method: str, beams: int) -> None:
    """Without a cache every call is over all tokens, which begins a prompt unless its length is stated."""
    ids, options = random_ids(150), {"num_beams": beams, "num_return_sequences": beams}
    with lampe.patch(model, method) as handle:
        cached = _answer(model, ids, **options)
        with handle.prompt(150):
            assert torch.equal(_answer(model, ids, use_cache=False, **options), cached)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_beams_answers_as_each_prompt_alone(model: LlamaForCausalLM, method: str) -> None:
    ids = random_ids(150, rows=2)
    with lampe.patch(model, method):
        together = _answer(model, ids, num_beams=2)
        for row in range(2):
            assert torch.equal(together[row], _answer(model, ids[row : row + 1], num_beams=2)[0])


def test_samples_are_those_of_the_seed(model: LlamaForCausalLM) -> None:
    ids = random_ids(150)
    with lampe.patch(model, "lampe") as handle, handle.prompt(150):
        drawn = []
        for cache in (True, False):
            torch.manual_seed(5)
            drawn.append(_answer(model, ids, do_sample=True, temperature=0.7, use_cache=cache))
    assert torch.equal(*drawn)


@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_model_answers_as_the_plain_one(model: LlamaForCausalLM, method: str) -> None:
    ids = random_ids(150)
    with lampe.patch(model, method):
        plain = model(ids).logits
        compiled = torch.compile(model.forward, backend="eager")(ids).logits
        torch.testing.assert_close(compiled, plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_stays_near_single(model: LlamaForCausalLM, method: str, dtype: torch.dtype) -> None:
    """As near as the unpatched model in that precision is to itself in single."""
    ids, half = random_ids(150), copy.deepcopy(model).to(dtype)
    for mine, whole in zip(half.modules(), model.modules(), strict=True):  # frequencies stay float32 on loading
        for name, buffer in whole.named_buffers(recurse=False):
            mine.register_buffer(name, buffer.clone(), persistent=False)
    unpatched = (half(ids).logits.float() - model(ids).logits).norm()
    with lampe.patch(half, method), lampe.patch(model, method):
        patched = (half(ids).logits.float() - model(ids).logits).norm()
    assert patched < 3 * unpatched


def test_several_turns_answer_as_one_prompt(model: LlamaForCausalLM) -> None:
    """Each turn is a prompt of all that was said; keys in the cache are unrotated, so the plan may change with it."""
    first, second = random_ids(100), random_ids(60)
    with lampe.patch(model, "selfextend", window_size=16, group_size=8):
        out = model(first, use_cache=True)
        cache = out.past_key_values
        together = torch.cat([first, second], dim=1)
        with_cache = _logits_at_the_end(model, second, cache)
        torch.testing.assert_close(with_cache, model(together).logits[0, -1], atol=2e-4, rtol=0)


def _logits_at_the_end(model: LlamaForCausalLM, ids: Tensor, cache: Any) -> Tensor:
    out = model(ids, past_key_values=cache, use_cache=True).logits[0, -1]
    assert isinstance(out, Tensor)
    return out


def test_prompt_lookup_answers_as_the_model_alone(model: LlamaForCausalLM) -> None:
    """Several new tokens at a time look like a new prompt, so the prompt's length has to be stated."""
    ids = random_ids(150)
    with lampe.patch(model, "lampe") as handle:
        alone = _answer(model, ids)
        with handle.prompt(150):
            assert torch.equal(_answer(model, ids, prompt_lookup_num_tokens=3), alone)
