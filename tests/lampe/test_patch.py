"""Patches of a live model: exact with original positions, restored fully, right for any calls."""

import copy
import gc
import warnings
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AttentionInterface,
    CLIPVisionConfig,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    StaticCache,
)
from transformers.models.llama import modeling_llama

import lampe
from lampe.methods import METHODS, method_of
from tests.lampe.tiny import WINDOW, random_ids

pytestmark = pytest.mark.usefixtures("no_gradients_or_warnings")


def _generate(model: LlamaForCausalLM, ids: Tensor, **options: object) -> Tensor:
    generate: Any = model.generate
    out = generate(ids, max_new_tokens=12, do_sample=False, **options)
    assert isinstance(out, Tensor)
    return out


def test_original_equals_unpatched_and_unpatching_restores_every_bit(
    model: LlamaForCausalLM,
) -> None:
    ids = random_ids(60)
    logits, tokens = model(ids).logits, _generate(model, ids)
    with lampe.patch(model, "original"):
        torch.testing.assert_close(model(ids).logits, logits, atol=1e-5, rtol=0)
        assert torch.equal(_generate(model, ids), tokens)
    assert torch.equal(model(ids).logits, logits)
    assert torch.equal(_generate(model, ids), tokens)


@pytest.mark.parametrize("name", METHODS)
def test_cached_decoding_equals_one_forward_of_the_frozen_plan(
    model: LlamaForCausalLM, name: str
) -> None:
    ids, prompt = random_ids(230), 210
    with lampe.patch(model, name) as handle:
        with handle.prompt(prompt):
            whole = model(ids).logits
        out = model(ids[:, :prompt], use_cache=True)
        steps = [out.logits[:, -1]]
        for at in range(prompt, 230):
            out = model(ids[:, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
            steps.append(out.logits[:, -1])
    torch.testing.assert_close(torch.stack(steps, 1), whole[:, prompt - 1 :], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_a_prompt_with_reserved_tokens_has_one_plan_with_its_answer(
    model: LlamaForCausalLM, name: str
) -> None:
    """Prefill, decoding, and decoding after the statement equal one forward call of all tokens."""
    ids, prompt = random_ids(230), 210
    with lampe.patch(model, name) as handle:
        whole = model(ids).logits
        steps = []
        with handle.prompt(prompt, reserved_tokens=20):
            out = model(ids[:, :prompt], use_cache=True)
            for at in range(prompt, 220):
                steps.append(out.logits[:, -1])
                token = ids[:, at : at + 1]
                out = model(token, past_key_values=out.past_key_values, use_cache=True)
        for at in range(220, 230):
            steps.append(out.logits[:, -1])
            token = ids[:, at : at + 1]
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
    torch.testing.assert_close(torch.stack(steps, 1), whole[:, prompt - 1 : -1], atol=1e-4, rtol=0)


def test_rows_with_reserved_tokens_answer_as_each_alone(model: LlamaForCausalLM) -> None:
    ids, mask = random_ids(200, 2), torch.ones(2, 200, dtype=torch.long)
    mask[1, :70] = 0
    with lampe.patch(model, "yarn") as handle:
        with handle.prompt(200, reserved_tokens=12):
            together = _generate(model, ids, attention_mask=mask)[:, 200:]
        with handle.prompt(130, reserved_tokens=12):
            alone = _generate(model, ids[1:, 70:])[:, 130:]
    assert torch.equal(together[1:], alone)


def test_reserved_tokens_are_counted_from_zero_on(model: LlamaForCausalLM) -> None:
    with (
        lampe.patch(model) as handle,
        pytest.raises(lampe.BadSetting, match="-1"),
        handle.prompt(9, reserved_tokens=-1),
    ):
        pass


@pytest.mark.parametrize("name", ["lampe", "dca", "selfextend", "yarn", "cope", "self", "adagrope"])
def test_a_prompt_in_chunks_equals_the_prompt_at_once(model: LlamaForCausalLM, name: str) -> None:
    ids = random_ids(200)
    with lampe.patch(model, name) as handle:
        whole = model(ids).logits
        cache, parts = DynamicCache(), []
        with handle.prompt(200):
            for begin in range(0, 200, 37):
                parts.append(
                    model(ids[:, begin : begin + 37], past_key_values=cache, use_cache=True).logits
                )
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=0)


def test_an_answer_after_a_prompt_in_chunks_keeps_the_stated_plan(model: LlamaForCausalLM) -> None:
    """Read a prompt whose last chunk is a single token, which looks like a token of an answer."""
    ids = random_ids(187)
    with lampe.patch(model, "lampe") as handle:
        out = model(ids[:, :186], use_cache=True)
        expected = model(ids[:, 186:], past_key_values=out.past_key_values, use_cache=True).logits
        cache = DynamicCache()
        with handle.prompt(186):
            for begin in range(0, 186, 37):
                model(ids[:, begin : min(begin + 37, 186)], past_key_values=cache, use_cache=True)
        ours = model(ids[:, 186:], past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_a_token_continues_the_prompt_of_its_cache_or_is_refused_until_its_length_is_stated(
    model: LlamaForCausalLM,
) -> None:
    first, second, token = random_ids(90), random_ids(150), random_ids(1)
    with lampe.patch(model, "lampe"):
        cache = model(first, use_cache=True).past_key_values
        answer = lambda: model(token, past_key_values=copy.deepcopy(cache)).logits  # noqa: E731
        expected = answer()
        model(second)
        torch.testing.assert_close(answer(), expected)
    with lampe.patch(model, "lampe") as handle:
        for _ in range(2):
            with pytest.raises(lampe.UnsupportedModel, match=r"token 91 .* 0 tokens"):
                answer()
        with handle.prompt(90):
            torch.testing.assert_close(answer(), expected)


def test_a_token_within_the_prompt_of_its_cropped_cache_is_refused(
    model: LlamaForCausalLM,
) -> None:
    with lampe.patch(model, "lampe"):
        cache = model(random_ids(90), use_cache=True).past_key_values
        cache.crop(-30)
        with pytest.raises(lampe.UnsupportedModel, match=r"token 61 .* 90 tokens"):
            model(random_ids(1), past_key_values=cache)


@pytest.mark.parametrize("length", [0, -3])
def test_a_prompt_without_tokens_cannot_be_stated(model: LlamaForCausalLM, length: int) -> None:
    error = pytest.raises(lampe.BadSetting, match=rf"one token, not {length}\b")
    with lampe.patch(model) as handle, error, handle.prompt(length):
        pass
    assert handle.stated_length is None


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("lengths", [(200, 90, 30), (90,)])
def test_padded_rows_equal_each_row_alone(
    model: LlamaForCausalLM, side: str, lengths: tuple[int, ...]
) -> None:
    rows = [random_ids(length) for length in lengths]
    batch, mask = (torch.zeros(len(lengths), 200, dtype=torch.long) for _ in range(2))
    columns = [slice(200 - n, 200) if side == "left" else slice(0, n) for n in lengths]
    for row, (ids, span) in enumerate(zip(rows, columns, strict=True)):
        batch[row, span], mask[row, span] = ids[0], 1
    with lampe.patch(model, "lampe"):
        together = model(batch, attention_mask=mask).logits
        for row, (ids, span) in enumerate(zip(rows, columns, strict=True)):
            torch.testing.assert_close(together[row, span], model(ids).logits[0], atol=1e-4, rtol=0)


def test_generating_a_left_padded_batch_equals_each_prompt_alone(model: LlamaForCausalLM) -> None:
    rows = [random_ids(150), random_ids(70)]
    batch = torch.cat([rows[0], torch.cat([torch.zeros(1, 80, dtype=torch.long), rows[1]], 1)])
    mask = torch.ones_like(batch)
    mask[1, :80] = 0
    with lampe.patch(model, "lampe"):
        together = _generate(model, batch, attention_mask=mask)[:, 150:]
        for row, ids in enumerate(rows):
            assert torch.equal(together[row], _generate(model, ids)[0, ids.shape[1] :])


def test_a_static_cache_answers_as_a_dynamic_one(model: LlamaForCausalLM) -> None:
    ids = random_ids(150)
    with lampe.patch(model, "lampe"):
        dynamic = _generate(model, ids)
        static = StaticCache(config=model.config, max_cache_len=200)
        assert torch.equal(_generate(model, ids, past_key_values=static), dynamic)


def test_a_method_moves_long_prompts_only(model: LlamaForCausalLM) -> None:
    short, long = random_ids(5), random_ids(200)
    before_short, before_long = model(short).logits, model(long).logits
    with lampe.patch(model, "lampe", attention_factor="none"):
        torch.testing.assert_close(model(short).logits, before_short, atol=1e-5, rtol=0)
        assert float((model(long).logits - before_long).abs().max()) > 0.1


def test_the_cache_holds_unrotated_keys(model: LlamaForCausalLM) -> None:
    """First-layer keys depend on the token alone, so a token that comes twice has one key."""
    ids = random_ids(20).repeat(1, 2)
    with lampe.patch(model, "lampe"):
        cache = model(ids, use_cache=True).past_key_values
    keys = cache.layers[0].keys
    torch.testing.assert_close(keys[:, :, :20], keys[:, :, 20:])


def test_patches_nest_and_come_off_in_order(model: LlamaForCausalLM) -> None:
    ids = random_ids(200)
    plain = model(ids).logits
    with lampe.patch(model, "pi", factor=4) as outer:
        pi = model(ids).logits
        with lampe.patch(model, "lampe", stack=True):
            assert not torch.equal(model(ids).logits, pi)
            with pytest.raises(lampe.UnsupportedModel, match="not the outermost"):
                outer.unpatch()
        assert torch.equal(model(ids).logits, pi)
    assert torch.equal(model(ids).logits, plain)
    with pytest.raises(lampe.UnsupportedModel, match="is not patched"):
        lampe.unpatch(model)


def test_a_second_patch_is_refused_unless_it_is_to_be_stacked(model: LlamaForCausalLM) -> None:
    ids = random_ids(200)
    with lampe.patch(model, "pi", factor=4):
        pi = model(ids).logits
        for method in ("lampe", "pi"):
            with pytest.raises(lampe.UnsupportedModel, match=f"{method}: .* pi .* stack=True"):
                lampe.patch(model, method)
        assert torch.equal(model(ids).logits, pi)


def test_saving_a_patched_model_warns_that_the_checkpoint_is_not_patched(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    ids = random_ids(200)
    before = model(ids).logits
    with lampe.patch(model, "pi", factor=4), lampe.patch(model, "lampe", stack=True):
        with pytest.warns(lampe.CheckpointWarning, match="without lampe's patch") as caught:
            model.save_pretrained(tmp_path)
        assert len(caught) == 1
    assert "save_pretrained" not in vars(model)
    model.save_pretrained(tmp_path / "unpatched")
    loaded = LlamaForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(ids).logits, before)


def test_pushing_a_patched_model_names_the_export(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = "transformers.utils.hub"
    repository = SimpleNamespace(repo_id="me/model", save=lambda path: None)
    api = SimpleNamespace(create_repo=lambda *names, **options: repository)
    monkeypatch.setattr(f"{hub}.hf_api", lambda: api)
    monkeypatch.setattr(f"{hub}.create_and_tag_model_card", lambda *names, **options: repository)
    monkeypatch.setattr(LlamaForCausalLM, "_upload_modified_files", lambda *names, **options: None)
    with lampe.patch(model, "lampe"), pytest.warns(lampe.CheckpointWarning, match=r"lampe\.export"):
        model.push_to_hub("me/model")


def test_another_attention_under_a_patch_is_refused(model: LlamaForCausalLM) -> None:
    """Rotary modules of a patched model do not rotate, so tokens would have no positions."""
    ids = random_ids(200)
    before = model(ids).logits
    with lampe.patch(model, "lampe"), lampe.patch(model, "dca", stack=True):
        patched = model(ids).logits
        for change in (model, model.model):
            change.set_attn_implementation("sdpa")
            for call in (model, model.model):
                with pytest.raises(lampe.UnsupportedModel, match="'sdpa'"):
                    call(ids)
            change.set_attn_implementation("lampe")
        assert torch.equal(model(ids).logits, patched)
    assert torch.equal(model(ids).logits, before)


def test_continuous_batching_of_a_patched_model_is_refused(model: LlamaForCausalLM) -> None:
    with lampe.patch(model, "lampe"):
        for start in (lambda: model.generate_batch([[3, 4]]), model.init_continuous_batching):
            with pytest.raises(lampe.UnsupportedModel, match="continuous batching"):
                start()
    assert "init_continuous_batching" not in vars(model)


def test_two_models_in_one_process_keep_their_own_method(model: LlamaForCausalLM) -> None:
    other, ids = LlamaForCausalLM(copy.deepcopy(model.config)).eval(), random_ids(200)
    with lampe.patch(model, "lampe"):
        alone = model(ids).logits
        with lampe.patch(other, "dca"):
            assert torch.equal(model(ids).logits, alone)
    assert torch.isfinite(other(ids).logits).all()


def test_the_window_is_warned_of_once_and_named(model: LlamaForCausalLM) -> None:
    with lampe.patch(model, "original"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(random_ids(WINDOW))
        assert not caught
        model(random_ids(100))
        model(random_ids(100))
    (only,) = caught
    assert only.category is lampe.PositionWarning
    assert "relative position 99, beyond the window of 64" in str(only.message)


@pytest.mark.parametrize(
    ("method", "settings", "warning"),
    [
        (
            "lampe",
            {"mapping_length": 63},
            "100 tokens and 2 of its answer reaches relative position 64, beyond",
        ),
        (
            "lampe",
            {"mapping_length": 63, "variant": "paper"},
            "100 tokens and 2 of its answer reaches",
        ),
        ("lampe+pi", {"mapping_length": 63}, None),
        ("lampe", {"mapping_length": 50, "variant": "sw-map"}, None),
        ("rerope", {}, None),
    ],
)
def test_an_answer_that_leaves_the_window_is_warned_of_once(
    model: LlamaForCausalLM, method: str, settings: dict[str, int | str], warning: str | None
) -> None:
    """Expect a warning only where an answer's positions leave the window of 64 tokens.

    PI slows the rope, and sw-map makes a plan for each token of an answer: neither leaves it.
    """
    patched = lampe.patch(model, method, **settings)  # type: ignore[arg-type]
    with patched, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", lampe.PositionWarning)
        cache = model(random_ids(100), use_cache=True).past_key_values
        model(random_ids(1), past_key_values=cache)
        assert not caught
        for _ in range(20):
            model(random_ids(1), past_key_values=cache)
    messages = [str(each.message) for each in caught if each.category is lampe.PositionWarning]
    assert len(messages) == (warning is not None)
    assert warning is None or warning in messages[0]


def test_a_patch_does_not_keep_its_model_alive(model: LlamaForCausalLM) -> None:
    other = LlamaForCausalLM(copy.deepcopy(model.config)).eval()
    handle, gone = lampe.patch(other), weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None
    with pytest.raises(lampe.UnsupportedModel, match="is gone"):
        handle.unpatch()


def _sliding(window: int, size: int) -> MistralForCausalLM:
    config = MistralConfig(
        vocab_size=128, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1, sliding_window=size, max_position_embeddings=window,
    )  # fmt: skip
    return MistralForCausalLM(config).eval()


def test_a_model_whose_sliding_windows_are_all_small_is_left_as_it_is_with_a_warning() -> None:
    model, ids = _sliding(window=64, size=16), random_ids(150)
    before = model(ids).logits
    with pytest.warns(
        lampe.PositionWarning,
        match=r"lampe .*sliding window",
    ):
        handle = lampe.patch(model)
    with handle:
        torch.testing.assert_close(model(ids).logits, before, atol=1e-5, rtol=0)


def test_a_method_changes_a_layer_whose_sliding_window_is_larger_than_the_models_within_it() -> (
    None
):
    """And goes on doing so where the cache has forgotten the first tokens."""
    model, ids = _sliding(window=24, size=64), random_ids(150)
    before = model(ids).logits
    with lampe.patch(model, "lampe", attention="dense"):
        oracle = model(ids).logits
    with lampe.patch(model, "lampe") as handle, handle.prompt(150):
        torch.testing.assert_close(model(ids).logits, oracle, atol=1e-4, rtol=0)
        assert float((oracle - before).abs().max()) > 1e-3
        cache = DynamicCache(config=model.config)
        parts = [
            model(part, past_key_values=cache, use_cache=True).logits
            for part in ids.split(37, dim=1)
        ]
        torch.testing.assert_close(torch.cat(parts, 1), oracle, atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_of_a_model_with_sliding_windows_equal_each_row_alone(side: str) -> None:
    model, rows = _sliding(window=64, size=16), [random_ids(100), random_ids(60)]
    batch, mask = (torch.zeros(2, 100, dtype=torch.long) for _ in range(2))
    columns = [slice(0, 100), slice(40, 100) if side == "left" else slice(0, 60)]
    for row, (ids, span) in enumerate(zip(rows, columns, strict=True)):
        batch[row, span], mask[row, span] = ids[0], 1
    with lampe.patch(model, "original"):
        together = model(batch, attention_mask=mask).logits
        for row, (ids, span) in enumerate(zip(rows, columns, strict=True)):
            torch.testing.assert_close(together[row, span], model(ids).logits[0], atol=1e-4, rtol=0)


def test_settings_go_with_a_name(model: LlamaForCausalLM) -> None:
    with pytest.raises(lampe.BadSetting, match="head_tokens"):
        lampe.patch(model, method_of("lampe"), head_tokens=3)


def test_packed_sequences_are_refused(model: LlamaForCausalLM) -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
    with lampe.patch(model), pytest.raises(lampe.UnsupportedModel, match="packed sequences"):
        model(random_ids(6), position_ids=positions, use_cache=False)


def test_a_plan_that_misses_pairs_is_refused(model: LlamaForCausalLM) -> None:
    class Gap(type(method_of("original"))):  # type: ignore[misc]
        def plan(self, geometry: lampe.Geometry, length: int) -> lampe.PositionPlan:
            return lampe.PositionPlan((lampe.Region(0, 3), lampe.Region(5, None, name="far")))

    with pytest.raises(lampe.BadSetting, match="distances from 3 on"):
        lampe.patch(model, Gap())


def test_every_backend_name_works(model: LlamaForCausalLM) -> None:
    ids = random_ids(150)
    with lampe.patch(model, "lampe", attention="dense"):
        oracle = model(ids).logits
    with lampe.patch(model, "lampe", attention="blockwise"):
        torch.testing.assert_close(model(ids).logits, oracle, atol=1e-4, rtol=0)


def test_models_without_rotary_positions_are_refused_with_a_reason(model: LlamaForCausalLM) -> None:
    learned = GPT2LMHeadModel(
        GPT2Config(n_embd=32, n_head=2, n_layer=1, vocab_size=64, bos_token_id=0, eos_token_id=0)
    )
    with pytest.raises(
        lampe.UnsupportedModel,
        match=r"'gpt2' .*positions of another kind",
    ):
        lampe.patch(learned)
    with pytest.raises(
        lampe.UnsupportedModel,
        match=r"'mpt' .*ALiBi",
    ):
        lampe.geometry_of(MptConfig())
    with pytest.raises(lampe.UnsupportedModel, match=r"'gptj' .*rotates in code"):
        lampe.geometry_of(GPTJConfig())
    with pytest.raises(lampe.UnknownName, match="attention backend"):
        lampe.patch(model, attention="blockwize")
    with lampe.patch(model), pytest.raises(lampe.UnsupportedModel, match="4D mask"):
        model(random_ids(8), attention_mask=torch.ones(1, 1, 8, 8))
    with lampe.patch(model), pytest.raises(lampe.UnsupportedModel, match="holes"):
        model(random_ids(4), attention_mask=torch.tensor([[1, 0, 1, 1]]))


@pytest.mark.parametrize("thing", [None, "org/name", torch.nn.Linear(1, 1)])
def test_an_object_that_is_no_model_is_refused(thing: object) -> None:
    for act in (lampe.patch, lampe.unpatch, lampe.explain):
        with pytest.raises(lampe.UnsupportedModel, match=f"a {type(thing).__name__} is no model"):
            act(thing)


def test_a_model_that_shares_its_configuration_with_a_patched_one_is_refused(
    model: LlamaForCausalLM,
) -> None:
    other = LlamaForCausalLM(model.config)
    with (
        lampe.patch(model),
        pytest.raises(lampe.UnsupportedModel, match="shares its configuration"),
    ):
        other(random_ids(5))


def test_a_copy_of_a_patched_model_says_what_it_is(model: LlamaForCausalLM) -> None:
    with lampe.patch(model):
        twin = copy.deepcopy(model)
    for attempt in (lambda: twin(random_ids(5)), lambda: lampe.patch(twin)):
        with pytest.raises(lampe.UnsupportedModel, match="a copy of a patched one"):
            attempt()


def test_a_patch_comes_off_once(model: LlamaForCausalLM) -> None:
    handle = lampe.patch(model)
    handle.unpatch()
    with pytest.raises(lampe.UnsupportedModel, match="off already"):
        handle.unpatch()


def _llava(attention: dict[str, str]) -> LlavaForConditionalGeneration:
    """Return a small Llava whose image is four tokens, each the last of the vocabulary."""
    text = {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 96,
        "max_position_embeddings": WINDOW,
    }
    vision = {"hidden_size": 32, "intermediate_size": 32, "image_size": 28, "patch_size": 14}
    config = LlavaConfig(
        text_config=LlamaConfig(
            **text, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.15
        ),
        vision_config=CLIPVisionConfig(**vision, num_hidden_layers=2, num_attention_heads=2),
        image_token_index=127,
    )
    return LlavaForConditionalGeneration._from_config(config, attn_implementation=attention).eval()


def test_a_vision_tower_keeps_its_own_attention_and_every_part_gets_its_own_back() -> None:
    model, ids = (
        _llava({"": "sdpa", "text_config": "sdpa", "vision_config": "eager"}),
        random_ids(100).clamp(max=126),
    )
    ids[0, 5:9] = 127
    image = torch.randn(1, 3, 28, 28)
    configs = (model.config, model.config.text_config, model.config.vision_config)
    before, logits = (
        [each._attn_implementation for each in configs],
        model(ids, pixel_values=image).logits,
    )
    with lampe.patch(model, "original") as handle:
        assert model.config.vision_config._attn_implementation == "eager"
        assert len(handle.layers.by_module) == 2
        torch.testing.assert_close(model(ids, pixel_values=image).logits, logits, atol=1e-5, rtol=0)
    assert [each._attn_implementation for each in configs] == before == ["sdpa", "sdpa", "eager"]


def test_a_refused_patch_leaves_the_model_as_it_was(model: LlamaForCausalLM) -> None:
    ids = random_ids(50)
    before = model(ids).logits
    with pytest.raises(lampe.BadSetting):
        lampe.patch(model, "lampe", head_tokens=-1, mapping_length=5)
    assert torch.equal(model(ids).logits, before)


def test_the_check_finds_attention_that_changes_between_calls(model: LlamaForCausalLM) -> None:
    """Only the logits show what a layer does outside of its attention function."""
    model.model.layers[0].self_attn.o_proj.register_forward_hook(
        lambda module, inputs, output: output * (1 + count())
    )
    calls: list[int] = []

    def count() -> int:
        calls.append(len(calls))
        return len(calls)

    with pytest.raises(lampe.UnsupportedModel, match="patched logits differ"):
        lampe.patch(model)


def test_the_probe_finds_a_rope_that_the_configuration_does_not_describe(
    model: LlamaForCausalLM,
) -> None:
    model.model.rotary_emb.inv_freq.mul_(0.9)
    with pytest.raises(lampe.UnsupportedModel, match="configuration describes"):
        lampe.patch(model)


def test_the_probe_finds_a_norm_after_the_rotation(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = modeling_llama.apply_rotary_pos_emb
    weight = torch.rand(16) + 0.5

    def rotate_and_scale(*inputs: Any, **options: Any) -> tuple[Tensor, ...]:
        return tuple(rotated * weight for rotated in apply(*inputs, **options))

    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", rotate_and_scale)
    with pytest.raises(lampe.UnsupportedModel, match=r"norm .* after the rotation"):
        lampe.patch(model)


def test_the_probe_finds_positions_that_reach_more_than_attention(model: LlamaForCausalLM) -> None:
    """Here a layer's output depends on the cos that it receives."""
    model.model.layers[1].register_forward_hook(
        lambda module, inputs, options, output: output + options["position_embeddings"][1].mean(),
        with_kwargs=True,
    )
    with pytest.raises(lampe.UnsupportedModel, match=r"more .* queries and keys"):
        lampe.patch(model)


def test_the_check_finds_a_leak_from_the_future(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leaky(lampe.Region):
        def span(self, query: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros_like(query), torch.full_like(query, int(query.max()))

    class Peeking(type(method_of("original"))):  # type: ignore[misc]
        def plan(self, geometry: lampe.Geometry, length: int) -> lampe.PositionPlan:
            return lampe.PositionPlan((Leaky(0, None),))

    with pytest.raises(lampe.UnsupportedModel, match="not causal"):
        lampe.patch(model, Peeking())


def test_attention_that_the_probe_did_not_see_is_refused(model: LlamaForCausalLM) -> None:
    """Attention of a text's tokens over an image is an example."""
    query = torch.randn(1, 4, 5, 16)
    with (
        lampe.patch(model),
        pytest.raises(lampe.UnsupportedModel, match="attends to more"),
    ):
        AttentionInterface()["lampe"](model.lm_head, query, query, query, None)
