"""Checks made on every patch: rounding passes them, other attention does not."""

from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaForCausalLM

import lampe
from lampe.patching.patch_checks import TOKENS
from tests.lampe.tiny import llama, random_ids

HALF = torch.bfloat16
TOLERANCE = torch.finfo(HALF).eps ** 0.5


@pytest.fixture
def router() -> LlamaForCausalLM:
    """Half-precision model whose first layer decides by sign, as a router does by size."""
    model = llama().to(HALF)
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    model.model.layers[0].mlp.register_forward_hook(
        lambda module, inputs, output: 5 * output.sign()
    )
    return model


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_a_decision_that_rounding_flips_is_not_taken_for_other_attention(
    router: LlamaForCausalLM,
) -> None:
    ids = random_ids(TOKENS)
    before = router(ids).logits.float()
    with lampe.patch(router, "original"):
        assert float((router(ids).logits - before).norm() / before.norm()) > TOLERANCE


def test_wrong_attention_is_found_behind_flipped_decisions(router: LlamaForCausalLM) -> None:
    seen: list[int] = []
    attention = router.model.layers[1].self_attn

    def grow(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        seen.append(len(seen))
        return output * (1 + 20 * TOLERANCE * len(seen))

    attention.o_proj.register_forward_hook(grow)
    with pytest.raises(lampe.UnsupportedModel, match="patched logits differ"):
        lampe.patch(router, "original")
    assert router.config._attn_implementation != "lampe"
