"""Answers of methods that read a prompt and its answer by different positions."""

from typing import Any

import pytest
import torch
from torch import Tensor

import lampe
from tests.lampe.tiny import llama, random_ids

PROMPT, ANSWER = 150, 12


def _logits(model: torch.nn.Module, ids: Tensor, shift: str) -> tuple[Tensor, Tensor]:
    """Return the logits of a prompt and those of each token of a cached answer."""
    method = lampe.method_of("selfextend", group_size=6, window_size=10, shift=shift)
    answers: list[Tensor] = []
    with lampe.patch(model, method), torch.no_grad():
        output = model(ids[:, :PROMPT], use_cache=True)
        prompt = output.logits[0]
        for index in range(PROMPT, PROMPT + ANSWER):
            token = ids[:, index : index + 1]
            output = model(token, past_key_values=output.past_key_values, use_cache=True)
            answers.append(output.logits[0, -1])
    return prompt, torch.stack(answers)


def test_selfextend_s_flash_path_is_fractional_in_prompts_and_integer_in_answers() -> None:
    """Check that answers are neither those of the fraction nor those of the whole shift.

    They differ from the second too, because deeper layers cache what the prompt's layers made of
    their own positions.
    """
    torch.manual_seed(0)
    model, ids = llama(), random_ids(PROMPT + ANSWER)
    flash, fractional, integer = (
        _logits(model, ids, shift) for shift in ("fractional-prefill", "fractional", "integer")
    )
    torch.testing.assert_close(flash[0], fractional[0])
    assert (flash[0] - integer[0]).abs().max() > 1
    assert (flash[1] - fractional[1]).abs().max() > 1
    assert (flash[1] - integer[1]).abs().max() > 0.1


def test_a_single_layer_s_answer_has_the_integer_shift() -> None:
    torch.manual_seed(0)
    model, ids = llama(layers=1), random_ids(PROMPT + ANSWER)
    flash, integer = (_logits(model, ids, shift) for shift in ("fractional-prefill", "integer"))
    torch.testing.assert_close(flash[1], integer[1])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gali", {"local_window": 4}),
        ("gali", {"local_window": 4, "interpolate": False}),
        ("selfextend", {"group_size": 6, "window_size": 10, "shift": "fractional-prefill"}),
        ("lampe", {"variant": "sw-map", "head_tokens": 8, "mapping_length": 40}),
    ],
    ids=str,
)
def test_each_token_of_an_answer_has_its_plan_however_many_a_call_has(
    name: str, settings: dict[str, Any]
) -> None:
    """Read the end of a prompt together with its answer, and an answer in one call and by token."""
    model, ids = llama(), random_ids(PROMPT + ANSWER)
    with lampe.patch(model, name, **settings) as handle, torch.no_grad(), handle.prompt(PROMPT):
        one_by_one = _chunked(model, ids, [PROMPT, *range(PROMPT + 1, PROMPT + ANSWER)])
        together = _chunked(model, ids, [PROMPT])
        across = _chunked(model, ids, [40, PROMPT - 20, PROMPT + 5])
    torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=0)
    torch.testing.assert_close(across, one_by_one, atol=1e-4, rtol=0)


def _chunked(model: torch.nn.Module, ids: Tensor, cuts: list[int]) -> Tensor:
    """Return the logits of all tokens, which are read in parts that end at the cuts."""
    cache, parts = lampe.growing_cache(model), []
    for start, stop in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
        output = model(ids[:, start:stop], past_key_values=cache, use_cache=True)
        parts.append(output.logits[0])
    return torch.cat(parts)
