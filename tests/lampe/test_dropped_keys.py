"""Growing caches under plans that forget: they drop what no later token sees, and nothing else."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Cache,
    DynamicCache,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaForCausalLM,
)

import lampe
from lampe.caches import growing_cache as growing
from lampe.caches.rotated_key_cache import RotatedKeyCache
from tests.lampe.tiny import llama, random_ids

pytestmark = pytest.mark.usefixtures("no_gradients_or_warnings", "small_growth")

PROMPT, ANSWER = 150, 30
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("streaming-llm", {"recent": 20}),
    ("streaming-llm", {"recent": 20, "attention_factor": "logn", "logn_base": 50}),
    ("streaming-llm+dynamic-ntk", {"recent": 20, "dynamic-ntk.cache": "rotated"}),
    ("lm-infinite", {"local": 20, "sinks": 3}),
    ("lm-infinite", {"local": 20, "sinks": 3, "limit": 170}),
]
FORGETFUL = METHODS[0]


@pytest.fixture
def small_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let short texts lose tokens: few are dropped together, and few may be cropped."""
    monkeypatch.setattr(growing, "GROWTH_TOKENS", 8)
    monkeypatch.setattr(growing, "CROPPED_TOKENS", 6)


def _step(model: LlamaForCausalLM, ids: Tensor, cache: Cache, **options: Any) -> Tensor:
    logits: Tensor = model(ids, past_key_values=cache, use_cache=True, **options).logits
    return logits


def _read(
    model: LlamaForCausalLM, cache: Cache, ids: Tensor, chunk: int, mask: Tensor | None = None
) -> Tensor:
    """Return the logits of a prompt in chunks and of an answer token by token."""
    starts = [*range(0, PROMPT, chunk), *range(PROMPT, ids.shape[1])]
    parts = []
    for start, stop in zip(starts, [*starts[1:], ids.shape[1]], strict=True):
        options = {} if mask is None else {"attention_mask": mask[:, :stop]}
        parts.append(_step(model, ids[:, start:stop], cache, **options))
    return torch.cat(parts, dim=1)


def _held(cache: Cache) -> list[int]:
    """Return how many keys and values the layers hold."""
    return [size for each in cache.layers for size in (each._keys.shape[2], each.values.shape[2])]


@pytest.mark.parametrize("attention", ["blockwise", "dense"])
@pytest.mark.parametrize("chunk", [PROMPT, 37])
@pytest.mark.parametrize(("name", "settings"), METHODS, ids=str)
def test_a_cache_that_drops_keys_answers_as_one_that_holds_all(
    model: LlamaForCausalLM, name: str, settings: dict[str, Any], chunk: int, attention: str
) -> None:
    ids, cache = random_ids(PROMPT + ANSWER, rows=2), lampe.growing_cache(model)
    options = {"check": False, "attention": attention, **settings}
    with lampe.patch(model, name, **options) as handle, handle.prompt(PROMPT):
        ours = _read(model, cache, ids, chunk)
        theirs = _read(model, DynamicCache(), ids, chunk)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    assert cache.get_seq_length() == PROMPT + ANSWER
    assert max(_held(cache)) < 45, "sinks, recent tokens, croppable ones and a growth"


def test_a_padded_batch_answers_as_each_row_alone(model: LlamaForCausalLM) -> None:
    """Read chunks of which the first two hold no token of the second row."""
    name, settings = FORGETFUL
    ids, pads = random_ids(PROMPT + ANSWER, rows=3), (0, 90, 11)
    mask = torch.ones(3, PROMPT + ANSWER, dtype=torch.long)
    for row, pad in enumerate(pads):
        mask[row, :pad] = 0
    cache = lampe.growing_cache(model)
    with lampe.patch(model, name, check=False, **settings) as handle:
        with handle.prompt(PROMPT):
            together = _read(model, cache, ids, 37, mask)
        assert max(_held(cache)) < 90 + 45
        for row, pad in enumerate(pads):
            alone = model(ids[row : row + 1, pad:]).logits
            torch.testing.assert_close(together[row : row + 1, pad:], alone, atol=2e-5, rtol=0)


def test_a_batch_that_becomes_padded_is_refused_where_it_needs_dropped_keys(
    model: LlamaForCausalLM,
) -> None:
    name, settings = FORGETFUL
    ids, cache = random_ids(PROMPT + 2, rows=2), lampe.growing_cache(model)
    mask = torch.ones(2, PROMPT + 2, dtype=torch.long)
    with lampe.patch(model, name, check=False, **settings) as handle, handle.prompt(PROMPT):
        _read(model, cache, ids[:, :-1], 37)
        mask[1, :40] = 0
        with pytest.raises(lampe.UnsupportedModel, match=r"4 to .*new cache") as caught:
            _step(model, ids[:, -1:], cache, attention_mask=mask)
    assert "\n" not in str(caught.value)


def test_a_few_tokens_may_be_cropped_and_the_answer_goes_on(model: LlamaForCausalLM) -> None:
    name, settings = FORGETFUL
    ids, cache = random_ids(PROMPT + ANSWER), lampe.growing_cache(model)
    with lampe.patch(model, name, check=False, **settings):
        expected = _read(model, DynamicCache(), ids, PROMPT)
        _read(model, cache, ids, PROMPT)
        for _ in range(3):
            cache.crop(-6)
            again = [
                _step(model, ids[:, at : at + 1], cache) for at in range(PROMPT + ANSWER - 6, 180)
            ]
            torch.testing.assert_close(torch.cat(again, 1), expected[:, -6:], atol=2e-5, rtol=0)


def test_a_crop_to_dropped_tokens_is_refused_and_one_to_the_first_tokens_is_not(
    model: LlamaForCausalLM,
) -> None:
    name, settings = FORGETFUL
    ids, cache = random_ids(PROMPT + ANSWER), lampe.growing_cache(model)
    with lampe.patch(model, name, check=False, **settings) as handle:
        expected = _read(model, cache, ids, PROMPT)
        later = copy.deepcopy(cache)
        with pytest.raises(lampe.UnsupportedModel, match=r"100 tokens.* 4 to 1[0-9]+.*new cache"):
            cache.crop(-80)
        # To fewer tokens than may be cropped: the next token would see dropped ones.
        later.crop(-14)
        with pytest.raises(lampe.UnsupportedModel, match="dropped"):
            _step(model, ids[:, -14:-13], later)
        cache.crop(-(PROMPT + ANSWER - 3))
        assert (cache.get_seq_length(), _held(cache)) == (3, [3] * 4)
        with handle.prompt(PROMPT):
            again = _step(model, ids[:, 3:PROMPT], cache)
        torch.testing.assert_close(again, expected[:, 3:PROMPT], atol=2e-5, rtol=0)


def test_beams_over_a_cache_that_drops_keys_answer_as_over_one_that_holds_all(
    model: LlamaForCausalLM,
) -> None:
    name, settings = FORGETFUL
    ids = random_ids(PROMPT, rows=2)
    options = {
        "num_beams": 3,
        "max_new_tokens": ANSWER,
        "do_sample": False,
        "attention_mask": torch.ones_like(ids),
    }
    with lampe.patch(model, name, check=False, **settings):
        cache = lampe.growing_cache(model)
        ours = model.generate(ids, past_key_values=cache, **options)
        assert max(_held(cache)) < 45
        assert torch.equal(ours, model.generate(ids, **options))


def test_guessed_tokens_over_a_cache_that_drops_keys_answer_alike(
    model: LlamaForCausalLM,
) -> None:
    """Guesses that are wrong are cropped from the cache."""
    name, settings = FORGETFUL
    ids = random_ids(20).repeat(1, 8)
    options = {
        "max_new_tokens": ANSWER,
        "do_sample": False,
        "attention_mask": torch.ones_like(ids),
        "prompt_lookup_num_tokens": 3,
    }
    with lampe.patch(model, name, check=False, **settings):
        cache = lampe.growing_cache(model)
        ours = model.generate(ids, past_key_values=cache, **options)
        assert max(_held(cache)) < 60
        assert torch.equal(ours, model.generate(ids, **options))


@pytest.mark.parametrize("then", ["unpatched", "lampe", "streaming-llm"])
def test_other_attention_over_a_cache_with_dropped_keys_is_refused(
    model: LlamaForCausalLM, then: str
) -> None:
    name, settings = FORGETFUL
    ids, cache = random_ids(PROMPT + 1), lampe.growing_cache(model)
    with lampe.patch(model, name, check=False, **settings) as handle, handle.prompt(PROMPT - 8):
        _read(model, cache, ids[:, :-1], 37)
    refused = pytest.raises(lampe.UnsupportedModel, match=r"dropped tokens 4 to|sees tokens 4 to")
    if then == "unpatched":
        with refused:
            _step(model, ids[:, -1:], cache)
        return
    wider = {"recent": 60} if then == "streaming-llm" else {}
    with lampe.patch(model, then, check=False, **wider) as handle, handle.prompt(PROMPT), refused:
        _step(model, ids[:, -1:], cache)


def test_a_cache_that_is_reset_holds_another_prompt(model: LlamaForCausalLM) -> None:
    name, settings = FORGETFUL
    first, second = random_ids(PROMPT + ANSWER), random_ids(PROMPT + ANSWER)
    cache = lampe.growing_cache(model)
    with lampe.patch(model, name, check=False, **settings):
        _read(model, cache, first, PROMPT)
        cache.reset()
        assert cache.get_seq_length() == 0
        ours = _read(model, cache, second, PROMPT)
        theirs = _read(model, DynamicCache(), second, PROMPT)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_a_copy_of_a_cache_with_dropped_keys_answers_on_its_own(model: LlamaForCausalLM) -> None:
    name, settings = FORGETFUL
    ids, cache = random_ids(PROMPT + ANSWER), lampe.growing_cache(model)
    with lampe.patch(model, name, check=False, **settings):
        expected = _read(model, DynamicCache(), ids, PROMPT)
        _read(model, cache, ids[:, : PROMPT + 15], PROMPT)
        for each in (copy.deepcopy(cache), cache):
            logits = [_step(model, ids[:, at : at + 1], each) for at in range(PROMPT + 15, 180)]
            torch.testing.assert_close(torch.cat(logits, 1), expected[:, -15:], atol=2e-5, rtol=0)


def test_keys_that_are_read_are_unrotated_and_those_of_what_is_left(
    model: LlamaForCausalLM,
) -> None:
    name, settings = FORGETFUL
    ids, cache, whole = random_ids(PROMPT + ANSWER), lampe.growing_cache(model), DynamicCache()
    with lampe.patch(model, name, check=False, **settings):
        _read(model, cache, ids, PROMPT)
        _read(model, whole, ids, PROMPT)
    for ours, theirs in zip(cache.layers, whole.layers, strict=True):
        recent = ours.keys.shape[2] - 4
        for one, other in ((ours.keys, theirs.keys), (ours.values, theirs.values)):
            torch.testing.assert_close(one[:, :, :4], other[:, :, :4], atol=2e-5, rtol=0)
            torch.testing.assert_close(one[:, :, 4:], other[:, :, -recent:], atol=2e-5, rtol=0)


@pytest.mark.parametrize(("name", "settings"), METHODS[::3], ids=str)
def test_heads_that_rotate_in_part_are_served_as_well(name: str, settings: dict[str, Any]) -> None:
    """StreamingLLM's authors run Pythia, which rotates a quarter of each head."""
    config = GPTNeoXConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
        rotary_pct=0.25,
    )
    model, ids = GPTNeoXForCausalLM(config).eval(), random_ids(PROMPT + ANSWER)
    cache = lampe.growing_cache(model)
    with lampe.patch(model, name, **settings) as handle, handle.prompt(PROMPT):
        ours = _read(model, cache, ids, 37)
    assert max(_held(cache)) < 45
    options = {"attention": "dense", "check": False, **settings}
    with lampe.patch(model, name, **options) as handle, handle.prompt(PROMPT):
        torch.testing.assert_close(ours, model(ids).logits, atol=2e-5, rtol=0)


def test_methods_that_see_everything_drop_nothing(model: LlamaForCausalLM) -> None:
    ids, cache = random_ids(PROMPT + ANSWER), lampe.growing_cache(model)
    with lampe.patch(model, "lampe", check=False):
        _read(model, cache, ids, PROMPT)
    assert _held(cache) == [PROMPT + ANSWER] * 4


def test_memory_is_freed_with_what_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the bytes of the layers' storages after a long prompt and a step."""
    model, cache = llama(layers=1), None
    ids = random_ids(3000)
    with lampe.patch(model, "streaming-llm", check=False, recent=50) as handle, handle.prompt(2998):
        cache = lampe.growing_cache(model)
        _step(model, ids[:, :-2], cache)
        whole = _storage(cache)
        _step(model, ids[:, -2:-1], cache)
        _step(model, ids[:, -1:], cache)
    assert _storage(cache) < whole / 20


def _storage(cache: Cache) -> int:
    layer = cache.layers[0]
    return sum(x.untyped_storage().nbytes() for x in (layer._keys, layer.values))


def test_rotated_keys_stay_valid_as_others_are_dropped(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare with attention that rotates all keys in each step."""
    name, settings = FORGETFUL
    ids = random_ids(PROMPT + ANSWER)
    with lampe.patch(model, name, check=False, **settings):
        ours = _read(model, lampe.growing_cache(model), ids, PROMPT)
        monkeypatch.setattr(RotatedKeyCache, "rows_of", lambda *inputs: None)
        torch.testing.assert_close(
            ours, _read(model, DynamicCache(), ids, PROMPT), atol=2e-5, rtol=0
        )
