"""Checks made on every patch: rounding passes them, other attention does not."""

from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaForCausalLM

import lampe
from lampe.errors import LampeError
from lampe.methods import METHODS, method_of
from lampe.methods.lampe import VARIANTS
from lampe.patching import patch_checks
from lampe.patching.patch_checks import MAX_TOKENS, TOKENS, check_method, narrowed_plan
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


SETTINGS = [
    *((name, {}) for name in METHODS),
    *(("lampe", {"variant": variant}) for variant in VARIANTS),
    ("lampe+yarn", {}),
    ("lampe", {"head_tokens": 1024, "tail_tokens": 200}),
    ("selfextend", {"window_size": 2048}),
    ("dca", {"chunk_size": 7680, "cap": 8191}),
    ("string", {"variant": "reference"}),
    ("string", {"variant": "reference", "shift": 594}),
    ("string", {"variant": "reference", "shift": 43253}),
]
"""Methods, and settings of their papers and releases."""


@pytest.mark.parametrize("window", [64, 512, 8192])
@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_check_reaches_every_region_with_few_tokens(
    name: str, settings: dict[str, int | str], window: int
) -> None:
    method, geometry = method_of(name, **settings), lampe.Geometry(window=window, head_dim=16)
    try:
        checked, tokens = check_method(method, geometry)
    except LampeError:
        # A derived setting cannot follow one that fills the window, at any length.
        assert max(value for value in settings.values() if isinstance(value, int)) > window / 2
        return
    assert TOKENS <= tokens <= MAX_TOKENS
    narrowed = checked.encode(geometry, tokens)
    plan = method.encode(geometry, checked.prompt).plan  # type: ignore[attr-defined]
    assert narrowed.plan.overlapping == plan.overlapping
    assert not narrowed.plan.coverage_fault()
    if len(plan.regions) <= patch_checks.MAX_BOUNDARIES:
        assert [region.name for region in narrowed.plan] == [region.name for region in plan]
    for region in narrowed.plan:
        first, last = region.span(torch.tensor(tokens - 1))
        assert first <= last, f"the last token has keys in region {region.name!r}"


def test_positions_by_chunk_are_checked_within_few_tokens() -> None:
    """Use a plan with many regions by block distance, as none of the package's methods has."""
    regions = [lampe.Region(near, near + 1, block=512) for near in range(40)]
    plan = narrowed_plan(lampe.PositionPlan((*regions, lampe.Region(40, None, block=512))))
    assert not plan.coverage_fault()
    assert patch_checks._tokens_reaching_all(plan) <= MAX_TOKENS


@pytest.mark.parametrize("region", ["head", "middle", "tail"])
def test_a_leak_in_any_region_is_found_at_real_sizes(region: str) -> None:
    """With 1024 local tokens, the tokens of a check alone would reach the head and no more."""

    class Leaky(lampe.Region):
        def span(self, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            first, last = super().span(query)
            return first, torch.where(first <= last, query.max(), last)

    class LeakyMethod(type(method_of("lampe"))):  # type: ignore[misc]
        def plan(self, geometry: lampe.Geometry, length: int) -> lampe.PositionPlan:
            plan = super().plan(geometry, length)
            regions = [
                Leaky(**vars(each)) if each.name == region else each for each in plan.regions
            ]
            return lampe.PositionPlan(tuple(regions), overlapping=True)

    model = llama()
    with pytest.raises(lampe.UnsupportedModel, match="not causal"):
        lampe.patch(model, LeakyMethod(head_tokens=1024, tail_tokens=200), window=8192)
    lampe.patch(model, "lampe", head_tokens=1024, tail_tokens=200, window=8192).unpatch()


@pytest.mark.parametrize("settings", [{"shift": 594}, {"shift": 43253}])
def test_a_long_shift_is_proven_on_few_tokens(settings: dict[str, int]) -> None:
    seen: list[int] = []
    model = llama()
    model.model.register_forward_pre_hook(
        lambda module, inputs, options: seen.append(options["input_ids"].shape[1]),
        with_kwargs=True,
    )
    lampe.patch(model, "string", variant="reference", window=512, **settings).unpatch()
    assert max(seen) <= MAX_TOKENS


@pytest.mark.parametrize(
    ("weight", "value"),
    [
        ("model.layers.1.self_attn.q_proj.weight", torch.nan),
        ("model.layers.0.self_attn.v_proj.weight", torch.nan),
        ("model.layers.0.self_attn.o_proj.weight", torch.inf),
        ("model.embed_tokens.weight", torch.nan),
        ("lm_head.weight", torch.inf),
    ],
)
def test_weights_that_are_no_numbers_are_named(weight: str, value: float) -> None:
    model = llama()
    model.get_parameter(weight).view(-1)[::3] = value
    with pytest.raises(lampe.UnsupportedModel, match=f"not finite .*{weight}"):
        lampe.patch(model)


def test_values_that_overflow_are_said() -> None:
    model = llama()
    model.model.norm.weight *= 1e38
    model.lm_head.weight *= 1e10
    with pytest.raises(lampe.UnsupportedModel, match="float32 a value overflows"):
        lampe.patch(model)
