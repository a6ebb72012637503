"""Rotated keys between the steps of an answer: few are rotated again, and none is ever stale."""

import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, LlamaForCausalLM, StaticCache

import lampe
from lampe.attention.rotated_keys import DecodeStep, DecodeSteps, KeyRotations, RotatedKeys
from lampe.caches.rotated_key_cache import RotatedKeyCache
from lampe.methods import METHODS
from tests.lampe.tiny import llama, random_ids

pytestmark = pytest.mark.usefixtures("no_gradients_or_warnings")

PROMPT = 150


def _step(model: LlamaForCausalLM, token: Tensor, cache: Cache) -> Tensor:
    logits: Tensor = model(token, past_key_values=cache, use_cache=True).logits[:, -1]
    return logits


def _dynamic(model: LlamaForCausalLM) -> Cache:
    return DynamicCache()


def _static(model: LlamaForCausalLM) -> Cache:
    return StaticCache(config=model.config, max_cache_len=200)


def _growing(model: LlamaForCausalLM) -> Cache:
    return lampe.growing_cache(model)


NewCache = Callable[[LlamaForCausalLM], Cache]
Change = Callable[[Cache], Any]
CHANGES: dict[str, tuple[NewCache, Change]] = {
    "nothing": (_dynamic, lambda cache: None),
    "nothing, static": (_static, lambda cache: None),
    "nothing, growing": (_growing, lambda cache: None),
    "beams reordered": (_dynamic, lambda cache: cache.reorder_cache(torch.tensor([1, 0]))),
    "beams reordered, static": (_static, lambda cache: cache.reorder_cache(torch.tensor([1, 1]))),
    "beams reordered, growing": (_growing, lambda cache: cache.reorder_cache(torch.tensor([1, 0]))),
    "cropped": (_dynamic, lambda cache: cache.crop(-4)),
    "cropped, growing": (_growing, lambda cache: cache.crop(-4)),
    "written": (
        _dynamic,
        lambda cache: [layer.keys[:, :, 20:40].mul_(-1) for layer in cache.layers],
    ),
    "written, static": (
        _static,
        lambda cache: [layer.keys[:, :, 3].zero_() for layer in cache.layers],
    ),
    "written, growing": (
        _growing,
        lambda cache: [layer.keys[:, :, 20:40].mul_(-1) for layer in cache.layers],
    ),
    "swapped, growing": (
        _growing,
        lambda cache: [setattr(layer, "keys", layer.keys.flip(2)) for layer in cache.layers],
    ),
    "swapped": (
        _dynamic,
        lambda cache: [setattr(layer, "keys", layer.keys.flip(2)) for layer in cache.layers],
    ),
}


def _answer(model: LlamaForCausalLM, method: str, change: str) -> list[Tensor]:
    """Return the logits of an answer of two rows whose cache is changed half-way."""
    new_cache, change_cache = CHANGES[change]
    torch.manual_seed(1)
    ids, tokens = random_ids(PROMPT, rows=2), random_ids(20, rows=2)
    cache = new_cache(model)
    with lampe.patch(model, method, check=False):
        logits = [_step(model, ids, cache)]
        for at in range(20):
            if at == 10:
                change_cache(cache)
            logits.append(_step(model, tokens[:, at : at + 1], cache))
    return logits


@pytest.mark.matrix
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", ["nothing", "nothing, static", "nothing, growing"])
def test_every_method_answers_as_without_rotated_keys(
    model: LlamaForCausalLM, method: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = _answer(model, method, change)
    monkeypatch.setattr(RotatedKeyCache, "rows_of", lambda *inputs: None)
    torch.testing.assert_close(ours, _answer(model, method, change), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["lampe", "yarn"])
@pytest.mark.parametrize("change", CHANGES)
def test_no_key_is_stale_whatever_is_done_to_the_cache(
    model: LlamaForCausalLM, method: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = _answer(model, method, change)
    monkeypatch.setattr(RotatedKeyCache, "rows_of", lambda *inputs: None)
    rounding = 2e-5 if "growing" in change else 1e-5
    torch.testing.assert_close(ours, _answer(model, method, change), atol=rounding, rtol=0)


def test_a_cache_that_is_reset_gets_new_rotated_keys(model: LlamaForCausalLM) -> None:
    cache, ids, token = _static(model), random_ids(PROMPT), random_ids(1)
    with lampe.patch(model, "lampe"):
        for prompt in (random_ids(PROMPT), ids):
            cache.reset()
            _step(model, prompt, cache)
            ours = _step(model, token, cache)
        fresh = _dynamic(model)
        _step(model, ids, fresh)
        torch.testing.assert_close(ours, _step(model, token, fresh), atol=1e-5, rtol=0)


def test_answers_over_two_caches_may_alternate(model: LlamaForCausalLM) -> None:
    prompts, tokens = [random_ids(PROMPT), random_ids(PROMPT)], random_ids(6)
    with lampe.patch(model, "lampe"):
        alone = []
        for prompt in prompts:
            cache = _dynamic(model)
            _step(model, prompt, cache)
            alone.append([_step(model, tokens[:, at : at + 1], cache) for at in range(6)])
        caches = [_dynamic(model), _dynamic(model)]
        for prompt, cache in zip(prompts, caches, strict=True):
            _step(model, prompt, cache)
        for at in range(6):
            for cache, expected in zip(caches, alone, strict=True):
                torch.testing.assert_close(
                    _step(model, tokens[:, at : at + 1], cache), expected[at]
                )


def test_a_method_after_another_rotates_the_same_cache_again(model: LlamaForCausalLM) -> None:
    cache, tokens = _dynamic(model), random_ids(2)
    with lampe.patch(model, "lampe") as handle:
        _step(model, random_ids(PROMPT), cache)
        _step(model, tokens[:, :1], cache)
        with lampe.patch(model, "dca", stack=True) as inner, inner.prompt(PROMPT):
            ours = _step(model, tokens[:, 1:], cache)
            cache.crop(-1)
            inner._attention.rotated_keys = RotatedKeyCache()
            torch.testing.assert_close(ours, _step(model, tokens[:, 1:], cache), atol=1e-5, rtol=0)
        assert handle.method.name == "lampe"


def _count_rotated_keys(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of rotated keys with each layer's step."""
    counts: list[int] = []
    moves = DecodeStep.rotations_from

    def counting_moves(step: DecodeStep, held: Any) -> Any:
        out = moves(step, held)
        counts.append(len(out[0].index) if out[0] else 0)
        return out

    monkeypatch.setattr(DecodeStep, "rotations_from", counting_moves)
    return counts


@pytest.mark.parametrize(
    ("method", "most"),
    [
        *(("original", 1), ("yarn", 1), ("dca", 1), ("selfextend", 2), ("lampe", 3)),
        *(("cope", 1), ("self", 2)),
        *(("dpe", 2), ("gali", 3)),
    ],
)
def test_a_step_rotates_the_new_key_and_one_at_each_boundary(
    model: LlamaForCausalLM, method: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotated = _count_rotated_keys(monkeypatch)
    cache = _dynamic(model)
    with lampe.patch(model, method, check=False):
        _step(model, random_ids(PROMPT), cache)
        for _ in range(12):
            _step(model, random_ids(1), cache)
    first, others = rotated[:2], rotated[2:]
    assert first == [PROMPT + 1] * 2
    assert len(others) == 22 and max(others) <= most


@pytest.mark.parametrize("new_cache", [_growing, _dynamic])
@pytest.mark.parametrize("method", ["lampe", "chunkllama"])
def test_a_padded_batch_answers_as_each_row_alone_and_rotates_few_keys(
    model: LlamaForCausalLM,
    method: str,
    new_cache: NewCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rotated = _count_rotated_keys(monkeypatch)
    ids, tokens, pads = random_ids(PROMPT, rows=2), random_ids(8, rows=2), (0, 63)
    mask = torch.ones(2, PROMPT + 8, dtype=torch.long)
    mask[1, : pads[1]] = 0
    cache, together = new_cache(model), []
    with lampe.patch(model, method, check=False):
        model(ids, attention_mask=mask[:, :PROMPT], past_key_values=cache, use_cache=True)
        for at in range(8):
            out = model(
                tokens[:, at : at + 1],
                attention_mask=mask[:, : PROMPT + at + 1],
                past_key_values=cache,
                use_cache=True,
            )
            together.append(out.logits[:, -1])
        assert max(rotated[4:]) <= 3, "two rows in two layers: first all their keys, then few"
        for row, pad in enumerate(pads):
            alone = _read(model, ids[row : row + 1, pad:], _dynamic(model))
            for at in range(8):
                logits = _step(model, tokens[row : row + 1, at : at + 1], alone)
                torch.testing.assert_close(together[at][row : row + 1], logits, atol=1e-5, rtol=0)


def test_a_batch_may_become_padded_and_whole_again(model: LlamaForCausalLM) -> None:
    """Keys are rotated for all rows together, then for each row, then for all rows again."""
    ids, tokens, answers = random_ids(PROMPT, rows=2), random_ids(6, rows=2), []
    for new_cache in (_growing, _dynamic):
        cache, logits = new_cache(model), []
        with lampe.patch(model, "lampe", check=False) as handle, handle.prompt(PROMPT):
            _step(model, ids, cache)
            for at in range(6):
                mask = torch.ones(2, PROMPT + at + 1, dtype=torch.long)
                mask[1, : 40 * (at in (2, 3))] = 0
                options = {"attention_mask": mask, "past_key_values": cache, "use_cache": True}
                logits.append(model(tokens[:, at : at + 1], **options).logits[:, -1])
        answers.append(logits)
    torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=0)


def test_rotated_keys_are_freed_with_their_cache(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores: list[weakref.ref[Tensor]] = []
    update = RotatedKeys.update

    def recording_update(rotated: RotatedKeys, key: Tensor, step: DecodeStep) -> Tensor:
        out = update(rotated, key, step)
        stores.append(weakref.ref(out))
        return out

    monkeypatch.setattr(RotatedKeys, "update", recording_update)
    cache = _dynamic(model)
    with lampe.patch(model, "lampe", check=False):
        _step(model, random_ids(PROMPT), cache)
        _step(model, random_ids(1), cache)
        assert all(store() is not None for store in stores)
        del cache
        gc.collect()
        assert all(store() is None for store in stores)


def test_keys_with_gradients_are_not_reused() -> None:
    model, cache = llama(), DynamicCache()
    with torch.enable_grad(), lampe.patch(model, "lampe", check=False):
        _step(model, random_ids(PROMPT), cache)
        _step(model, random_ids(1), cache).sum().backward()
    assert model.model.layers[0].self_attn.k_proj.weight.grad.abs().sum() > 0


def test_a_growing_cache_rotates_its_own_keys_and_copies_them_once_a_chunk(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses: list[int] = []
    update = RotatedKeys.update

    def recording_update(rotated: RotatedKeys, key: Tensor, step: DecodeStep) -> Tensor:
        out = update(rotated, key, step)
        assert out is key
        addresses.append(out.data_ptr())
        return out

    monkeypatch.setattr(RotatedKeys, "update", recording_update)
    monkeypatch.setattr("lampe.caches.growing_cache.GROWTH_TOKENS", 8)
    cache = lampe.growing_cache(model)
    with lampe.patch(model, "lampe", check=False):
        _step(model, random_ids(PROMPT), cache)
        for _ in range(20):
            _step(model, random_ids(1), cache)
    of_first_layer = addresses[::2]
    # Not distinct addresses: the third buffer may lie where the first one was.
    moves = [one != other for one, other in itertools.pairwise(of_first_layer)]
    assert sum(moves) == 2


def _after_some_steps(model: LlamaForCausalLM, cache: Cache) -> Cache:
    for token in random_ids(6).T:
        _step(model, token[None], cache)
    return cache


def test_reading_a_growing_cache_gives_unrotated_keys(model: LlamaForCausalLM) -> None:
    ids = random_ids(PROMPT)
    with lampe.patch(model, "chunkllama", check=False):
        torch.manual_seed(2)
        ours = _after_some_steps(model, _read(model, ids, lampe.growing_cache(model)))
        torch.manual_seed(2)
        plain = _after_some_steps(model, _read(model, ids, _dynamic(model)))
    for one, other in zip(ours.layers, plain.layers, strict=True):
        torch.testing.assert_close(one.keys, other.keys, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.values, other.values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["original", "lampe", "dca"])
def test_a_crop_gives_back_exactly_the_cache_of_before(
    model: LlamaForCausalLM, method: str
) -> None:
    with lampe.patch(model, method, check=False):
        cache = lampe.growing_cache(model, rotate_in_place=False)
        _read(model, random_ids(PROMPT), cache)
        before = [layer.values.clone() for layer in cache.layers]
        before += [layer._keys.clone() for layer in cache.layers]
        buffers = [layer._key_buffer._buffer for layer in cache.layers]
        for _ in range(3):
            _after_some_steps(model, cache)
            cache.crop(-6)
        after = [layer.values for layer in cache.layers]
        after += [layer._keys for layer in cache.layers]
        assert all(torch.equal(one, other) for one, other in zip(after, before, strict=True))
        now = [layer._key_buffer._buffer for layer in cache.layers]
        assert all(one is other for one, other in zip(now, buffers, strict=True)), "copied"


def _read(model: LlamaForCausalLM, ids: Tensor, cache: Cache) -> Cache:
    _step(model, ids, cache)
    return cache


@pytest.mark.parametrize(
    ("then", "tokens"),
    [({"attention": "dense"}, 1), ({"method": "dca"}, 1), ({}, 5)],
    ids=["another backend", "another method", "several tokens"],
)
def test_rotated_keys_of_a_growing_cache_are_restored_for_other_attention(
    model: LlamaForCausalLM, then: dict[str, Any], tokens: int
) -> None:
    ids, more, last = random_ids(PROMPT), random_ids(6), random_ids(tokens)
    answers = []
    for new_cache in (_growing, _dynamic):
        cache = new_cache(model)
        with lampe.patch(model, "lampe", check=False):
            _step(model, ids, cache)
            for at in range(6):
                _step(model, more[:, at : at + 1], cache)
        with (
            lampe.patch(model, **{"method": "lampe", "check": False, **then}) as handle,
            handle.prompt(PROMPT),
        ):
            answers.append(_step(model, last, cache))
    torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=0)


def test_rotated_keys_of_a_growing_cache_serve_a_padded_batch(model: LlamaForCausalLM) -> None:
    ids, tokens, answers = random_ids(PROMPT, rows=2), random_ids(3, rows=2), []
    for new_cache in (_growing, _dynamic):
        cache = new_cache(model)
        with lampe.patch(model, "lampe", check=False):
            _step(model, ids, cache)
            _step(model, tokens[:, :1], cache)
            _step(model, tokens[:, 1:2], cache)
            mask = torch.ones(2, PROMPT + 3, dtype=torch.long)
            mask[1, :40] = 0
            out = model(tokens[:, 2:], attention_mask=mask, past_key_values=cache, use_cache=True)
            answers.append(out.logits[:, -1])
    torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=0)


def test_a_step_that_fails_leaves_keys_unrotated(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, tokens = random_ids(PROMPT), random_ids(2)
    turn = KeyRotations.rotate_in_place
    failing = iter([False, True, False, False, False, False])

    def sometimes(moves: KeyRotations, *inputs: Any) -> None:
        if next(failing):
            raise MemoryError
        turn(moves, *inputs)

    with lampe.patch(model, "lampe", check=False):
        cache = _read(model, ids, lampe.growing_cache(model))
        monkeypatch.setattr(KeyRotations, "rotate_in_place", sometimes)
        with pytest.raises(MemoryError):
            _step(model, tokens[:, :1], cache)
        cache.layers[0].crop(-1)
        cache.layers[1].crop(-1)
        ours = _step(model, tokens[:, :1], cache)
        plain = _read(model, ids, _dynamic(model))
        monkeypatch.setattr(KeyRotations, "rotate_in_place", turn)
        torch.testing.assert_close(ours, _step(model, tokens[:, :1], plain), atol=1e-5, rtol=0)


def test_keys_read_from_a_growing_cache_stay_as_they_are(model: LlamaForCausalLM) -> None:
    with lampe.patch(model, "lampe", check=False):
        cache = _after_some_steps(
            model, _read(model, random_ids(PROMPT), lampe.growing_cache(model))
        )
        held = [layer.keys for layer in cache.layers]
        copies = [keys.clone() for keys in held]
        _after_some_steps(model, cache)
    assert all(torch.equal(one, other) for one, other in zip(held, copies, strict=True))


def test_a_step_is_of_one_device() -> None:
    steps = DecodeSteps()
    encoding = lampe.method_of("lampe").encode(lampe.Geometry(window=64, head_dim=16), PROMPT)
    here, there = (steps.get(encoding, PROMPT, torch.device(kind)) for kind in ("cpu", "meta"))
    assert (here.rotation.cos.device.type, there.rotation.cos.device.type) == ("cpu", "meta")
    assert steps.get(encoding, PROMPT, torch.device("cpu")) is here


def test_rows_of_a_batch_share_steps_with_all_layers() -> None:
    """Use rows of different lengths, so that each row is at another token."""
    steps, method = DecodeSteps(), lampe.method_of("lampe")
    rows = [
        (method.encode(lampe.Geometry(window=64, head_dim=16), length), length)
        for length in (100, 120, 150)
    ]
    first_layer = [steps.get(*row, torch.device("cpu")) for row in rows]
    second_layer = [steps.get(*row, torch.device("cpu")) for row in rows]
    assert all(one is other for one, other in zip(first_layer, second_layer, strict=True))
    assert steps.get(rows[0][0], 101, torch.device("cpu")) is not first_layer[0]


def test_tables_made_in_inference_mode_serve_gradients() -> None:
    model, ids = llama(), random_ids(PROMPT)
    with lampe.patch(model, "lampe", check=False):
        with torch.inference_mode():
            model(ids, use_cache=False)
        with torch.enable_grad():
            model(ids, use_cache=False).logits.sum().backward()
    assert model.model.layers[0].self_attn.k_proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("more", [1, 3])
def test_a_growing_cache_made_in_inference_mode_continues_outside(
    model: LlamaForCausalLM, more: int
) -> None:
    ids, tokens = random_ids(PROMPT), random_ids(1 + more)
    with lampe.patch(model, "lampe", check=False) as handle, handle.prompt(PROMPT):
        cache = lampe.growing_cache(model)
        with torch.inference_mode():
            _step(model, ids, cache)
            _step(model, tokens[:, :1], cache)
        ours = _step(model, tokens[:, 1:], cache)
        plain = _read(model, ids, _dynamic(model))
        _step(model, tokens[:, :1], plain)
        torch.testing.assert_close(ours, _step(model, tokens[:, 1:], plain), atol=1e-5, rtol=0)


def test_a_growing_cache_serves_the_model_unpatched(model: LlamaForCausalLM) -> None:
    """Single tokens get unrotated keys from a model that is no longer patched."""
    ids, tokens, answers = random_ids(PROMPT), random_ids(2), []
    for new_cache in (_growing, _dynamic):
        cache = new_cache(model)
        with lampe.patch(model, "lampe", check=False):
            _step(model, ids, cache)
            _step(model, tokens[:, :1], cache)
        answers.append(_step(model, tokens[:, 1:], cache))
    torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=0)
