"""Patched models called from several threads at once, and layers that backward runs again."""

import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, LlamaForCausalLM

import lampe
from tests.lampe.tiny import llama, random_ids

THREADS = 4
LENGTHS = (150, 90, 201, 70)
METHODS = ("lampe", "yarn", "selfextend", "dynamic-ntk", "original")
ANSWER = 12


@pytest.fixture
def model() -> LlamaForCausalLM:
    return llama()


@pytest.fixture(autouse=True)
def ignore_position_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lampe.PositionWarning)
        yield


def _in_threads(answer: Callable[[Tensor], Tensor], prompts: list[Tensor]) -> list[Tensor]:
    """Return the answers to prompts that as many threads ask for at the same time."""
    barrier = threading.Barrier(len(prompts))

    def answer_together(prompt: Tensor) -> Tensor:
        barrier.wait()
        with torch.no_grad():
            return answer(prompt)

    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(answer_together, prompts))


def _generate(model: LlamaForCausalLM, prompt: Tensor, cache: Cache | None = None) -> Tensor:
    """Return the logits of a greedy answer, ``[ANSWER, vocabulary]``."""
    out = model.generate(  # type: ignore[operator]
        prompt, max_new_tokens=ANSWER, do_sample=False, output_logits=True,
        return_dict_in_generate=True, past_key_values=cache,
    )  # fmt: skip
    return torch.cat(out.logits)


def _step_by_step(model: LlamaForCausalLM, prompt: Tensor) -> Tensor:
    """Return the logits of the prompt's end and of fixed answer tokens, by forward calls."""
    cache = DynamicCache()
    logits = [model(prompt, past_key_values=cache, use_cache=True).logits[:, -1]]
    for token in prompt[0, :ANSWER]:
        logits.append(model(token[None, None], past_key_values=cache).logits[:, -1])
    return torch.cat(logits)


@pytest.mark.parametrize("method", METHODS)
def test_threads_that_generate_get_the_answers_of_one_thread(
    model: LlamaForCausalLM, method: str
) -> None:
    prompts = [random_ids(length) for length in LENGTHS]
    with lampe.patch(model, method):
        with torch.no_grad():
            expected = [_generate(model, prompt) for prompt in prompts]
        together = _in_threads(lambda ids: _generate(model, ids), prompts)
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_threads_with_forward_calls_of_their_own_get_the_logits_of_one_thread(
    model: LlamaForCausalLM, method: str
) -> None:
    prompts = [random_ids(length) for length in LENGTHS]
    with lampe.patch(model, method), torch.no_grad():
        expected = [_step_by_step(model, prompt) for prompt in prompts]
        together = _in_threads(lambda ids: _step_by_step(model, ids), prompts)
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=0)


def test_threads_with_growing_caches_get_the_answers_of_one_thread(
    model: LlamaForCausalLM,
) -> None:
    prompts = [random_ids(length) for length in LENGTHS]
    answer = lambda ids: _generate(model, ids, lampe.growing_cache(model))  # noqa: E731
    with lampe.patch(model, "lampe"), torch.no_grad():
        expected = [answer(prompt) for prompt in prompts]
        together = _in_threads(answer, prompts)
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=0)


def test_a_length_is_stated_for_the_calling_thread_only(model: LlamaForCausalLM) -> None:
    ids = random_ids(90)
    with lampe.patch(model, "lampe") as handle, torch.no_grad():
        expected = model(ids).logits
        with handle.prompt(300):
            assert handle.stated_length == 300
            assert not torch.equal(model(ids).logits, expected)
            (other,) = _in_threads(lambda prompt: model(prompt).logits, [ids])
    torch.testing.assert_close(other, expected)


def test_a_token_without_a_prompt_in_its_thread_is_refused(model: LlamaForCausalLM) -> None:
    """Decode in another thread, whose latest prompt may be that of another answer."""
    cache = DynamicCache()
    with lampe.patch(model, "lampe"), torch.no_grad():
        model(random_ids(90), past_key_values=cache, use_cache=True)
        with pytest.raises(lampe.UnsupportedModel, match=r"token 91 .* 0 tokens"):
            _in_threads(lambda token: model(token, past_key_values=cache).logits, [random_ids(1)])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_keeps_a_stated_length_in_backward(
    model: LlamaForCausalLM, reentrant: bool
) -> None:
    """Backward runs the layers again, after the statement has ended."""
    ids = random_ids(90)
    weight = model.model.layers[0].self_attn.k_proj.weight
    gradients = []
    with lampe.patch(model, "lampe") as handle:
        for checkpointing in (False, True):
            if checkpointing:
                model.train()
                model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            with handle.prompt(300):
                loss = model(ids, use_cache=False).logits.square().mean()
            model(random_ids(40), use_cache=False)
            model.zero_grad()
            loss.backward()
            gradients.append(weight.grad.clone())
    torch.testing.assert_close(gradients[1], gradients[0])
