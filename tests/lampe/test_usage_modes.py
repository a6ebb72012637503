"""Usage modes of a model: each answers as plain generation, prompt by prompt, does."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM

import lampe
from tests.lampe.tiny import llama, random_ids

pytestmark = pytest.mark.usefixtures("no_gradients_or_warnings")

METHODS = ("lampe", "selfextend", "dca", "yarn")


def _answer(model: LlamaForCausalLM, ids: Tensor, **options: Any) -> Tensor:
    options = {"max_new_tokens": 12, "do_sample": False, **options}
    options.setdefault("attention_mask", torch.ones_like(ids))
    out = model.generate(ids, **options)  # type: ignore[operator]
    assert isinstance(out, Tensor)
    return out[:, ids.shape[1] :]


@pytest.mark.matrix
@pytest.mark.parametrize("method", [*METHODS, "gali"])
@pytest.mark.parametrize(
    "mode",
    [
        {"cache_implementation": "static"},
        {"do_sample": True, "top_k": 1},
        {"num_beams": 1, "num_return_sequences": 1},
        {"prefill_chunk_size": 37},
        {"prefill_chunk_size": 37, "cache_implementation": "static"},
        {"prompt_lookup_num_tokens": 3},
        {"use_cache": False},
    ],
    ids=str,
)
def test_greedy_modes_answer_alike(
    model: LlamaForCausalLM, method: str, mode: dict[str, Any]
) -> None:
    ids = random_ids(150)
    with lampe.patch(model, method):
        assert torch.equal(_answer(model, ids, **mode), _answer(model, ids))


@pytest.mark.parametrize("mode", [{"prefill_chunk_size": 37}, {"use_cache": False}], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_beam_modes_answer_alike(
    model: LlamaForCausalLM, method: str, mode: dict[str, Any]
) -> None:
    ids, beams = random_ids(150), {"num_beams": 3, "num_return_sequences": 3}
    with lampe.patch(model, method):
        assert torch.equal(_answer(model, ids, **beams, **mode), _answer(model, ids, **beams))


@pytest.mark.parametrize("method", [*METHODS, "gali"])
def test_a_padded_batch_in_chunks_answers_as_each_prompt_alone(
    model: LlamaForCausalLM, method: str
) -> None:
    """Read chunks of which the first hold no token of the shorter prompt."""
    rows = [random_ids(150), random_ids(50)]
    batch, mask = (torch.zeros(2, 150, dtype=torch.long) for _ in range(2))
    for row, ids in enumerate(rows):
        batch[row, 150 - ids.shape[1] :], mask[row, 150 - ids.shape[1] :] = ids[0], 1
    with lampe.patch(model, method):
        together = _answer(model, batch, attention_mask=mask, prefill_chunk_size=37)
        for row, ids in enumerate(rows):
            assert torch.equal(together[row], _answer(model, ids)[0])


def test_a_batch_in_chunks_that_is_padded_on_the_right_is_refused(model: LlamaForCausalLM) -> None:
    ids, mask = random_ids(150, rows=2), torch.ones(2, 150, dtype=torch.long)
    mask[1, 50:] = 0
    with lampe.patch(model), pytest.raises(lampe.UnsupportedModel, match="on the left"):
        _answer(model, ids, attention_mask=mask, prefill_chunk_size=37)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_beams_answers_as_each_prompt_alone(
    model: LlamaForCausalLM, method: str
) -> None:
    ids = random_ids(150, rows=2)
    with lampe.patch(model, method):
        together = _answer(model, ids, num_beams=2)
        for row in range(2):
            assert torch.equal(together[row], _answer(model, ids[row : row + 1], num_beams=2)[0])


def test_samples_are_those_of_the_seed(model: LlamaForCausalLM) -> None:
    ids = random_ids(150)
    with lampe.patch(model, "lampe"):
        samples = []
        for cache in (True, False):
            torch.manual_seed(5)
            samples.append(_answer(model, ids, do_sample=True, temperature=0.7, use_cache=cache))
    assert torch.equal(*samples)


@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_model_answers_as_the_plain_one(model: LlamaForCausalLM, method: str) -> None:
    ids = random_ids(150)
    with lampe.patch(model, method):
        plain = model(ids).logits
        compiled = torch.compile(model.forward, backend="eager")(ids).logits
        torch.testing.assert_close(compiled, plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_stays_near_single(
    model: LlamaForCausalLM, method: str, dtype: torch.dtype
) -> None:
    """Compare the error of half precision with that of the unpatched model."""
    ids, half = random_ids(150), copy.deepcopy(model).to(dtype)
    # A checkpoint loaded in half precision has its frequencies in float32: restore them.
    for half_module, single_module in zip(half.modules(), model.modules(), strict=True):
        for name, buffer in single_module.named_buffers(recurse=False):
            half_module.register_buffer(name, buffer.clone(), persistent=False)
    unpatched = (half(ids).logits.float() - model(ids).logits).norm()
    with lampe.patch(half, method), lampe.patch(model, method):
        patched = (half(ids).logits.float() - model(ids).logits).norm()
    assert patched < 3 * unpatched


@pytest.mark.matrix
@pytest.mark.parametrize("method", lampe.METHODS)
@pytest.mark.parametrize("masked", [True, False])
def test_several_chat_turns_answer_as_one_prompt(method: str, masked: bool) -> None:
    """Give the whole chat as the prompt of each turn.

    The model has one layer: its cached keys depend on tokens alone, not on the plan of an
    earlier turn.
    """
    model, cache, chat = llama(layers=1), DynamicCache(), random_ids(100)
    with lampe.patch(model, method):
        chat = torch.cat([chat, _answer(model, chat, past_key_values=cache)], dim=1)
        chat = torch.cat([chat, random_ids(60)], dim=1)
        mask = torch.ones_like(chat) if masked else None
        assert torch.equal(
            _answer(model, chat, past_key_values=cache, attention_mask=mask, prefill_chunk_size=25),
            _answer(model, chat),
        )


def test_a_chat_turn_continues_from_the_cache_of_earlier_turns(model: LlamaForCausalLM) -> None:
    """Deeper layers saw earlier turns under those turns' plans, which fixed settings make equal."""
    settings = {"window_size": 16, "group_size": 8}
    first, second = random_ids(100), random_ids(60)
    together = torch.cat([first, second], dim=1)
    with lampe.patch(model, "selfextend", **settings):
        assert torch.equal(
            _answer(model, together, past_key_values=_read(model, first)), _answer(model, together)
        )
    with lampe.patch(model, "lampe") as handle:
        with handle.prompt(160):
            cache = _read(model, first)
        assert torch.equal(
            _answer(model, together, past_key_values=cache), _answer(model, together)
        )


def _read(model: LlamaForCausalLM, ids: Tensor) -> Any:
    """Return the cache after a prompt."""
    return model(ids, use_cache=True).past_key_values


def test_a_length_stated_around_generate_holds(model: LlamaForCausalLM) -> None:
    ids = random_ids(150)
    with lampe.patch(model, "lampe") as handle:
        with handle.prompt(300):
            stated, whole = _answer(model, ids), model(ids).logits
        assert handle.stated_length is None
        assert not torch.equal(whole, model(ids).logits)
        assert not torch.equal(stated, _answer(model, ids))


def test_generate_is_the_models_own_again_after_the_patch(model: LlamaForCausalLM) -> None:
    with lampe.patch(model, "pi"), lampe.patch(model, "lampe", stack=True):
        assert "generate" in vars(model)
        assert vars(copy.deepcopy(model))["generate"].__self__ is not model
    assert "generate" not in vars(model)


def test_models_and_patches_in_one_process_answer_as_each_alone(model: LlamaForCausalLM) -> None:
    """Alternate prompts, read in chunks, of two models of which one is patched twice."""
    other, ids = llama(), random_ids(150)
    with lampe.patch(model, "pi"):
        outer = _answer(model, ids)
        with lampe.patch(model, "lampe", stack=True):
            inner = _answer(model, ids)
            with lampe.patch(other, "selfextend"):
                others = _answer(other, ids)
                assert torch.equal(_answer(model, ids, prefill_chunk_size=37), inner)
                assert torch.equal(_answer(other, ids, prefill_chunk_size=37), others)
        assert torch.equal(_answer(model, ids, prefill_chunk_size=37), outer)
    assert len({tuple(answer[0].tolist()) for answer in (inner, outer, others)}) == 3


@pytest.fixture
def saved(model: LlamaForCausalLM, tmp_path: Path) -> Path:
    """Return a folder with the model, for loading with accelerate."""
    pytest.importorskip("accelerate", reason="device_map needs accelerate")
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("method", METHODS)
def test_a_model_on_devices_chosen_for_it_answers_as_the_plain_one(
    model: LlamaForCausalLM, saved: Path, method: str
) -> None:
    ids = random_ids(150)
    placed = LlamaForCausalLM.from_pretrained(saved, device_map="auto")
    with lampe.patch(model, method), lampe.patch(placed, method):
        expected = _answer(model, ids)
        assert torch.equal(_answer(placed, ids.to(placed.device)).cpu(), expected)


def test_a_layer_on_disk_answers_as_one_in_memory(
    model: LlamaForCausalLM, saved: Path, tmp_path: Path
) -> None:
    """Accelerate loads its weights in hooks of its own, registered before or after the patch's."""
    ids, places = (
        random_ids(150),
        dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.norm"), "cpu"),
    )
    places |= {"model.rotary_emb": "cpu", "lm_head": "cpu", "model.layers.1": "disk"}
    placed = LlamaForCausalLM.from_pretrained(
        saved, device_map=places, offload_folder=tmp_path / "offloaded"
    )
    before = placed(ids).logits
    with lampe.patch(model, "lampe"), lampe.patch(placed, "lampe"):
        assert torch.equal(_answer(placed, ids, prefill_chunk_size=37), _answer(model, ids))
    assert torch.equal(placed(ids).logits, before)
