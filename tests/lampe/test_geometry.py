"""Window and rope of models whose configurations scale one or leave the other open."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from transformers import (
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
)

import lampe
from tests.lampe.tiny import WINDOW, llama, random_ids

PAIRS = 8
SHAPE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * PAIRS,
    "long_factor": [1.0 + pair / 3 for pair in range(PAIRS)],
}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def _scaled(rope: dict[str, Any]) -> LlamaForCausalLM:
    """Return a Llama with a window of ``WINDOW`` whose rope is of another type."""
    config = LlamaConfig(**SHAPE, max_position_embeddings=WINDOW, rope_parameters=dict(rope))
    return LlamaForCausalLM(config).eval()


def _phi3() -> Phi3ForCausalLM:
    """Return a Phi-3 as those with 128k tokens: pretrained on 64, extended to 256 by longrope."""
    config = Phi3Config(
        **SHAPE,
        max_position_embeddings=256,
        original_max_position_embeddings=64,
        rope_parameters=dict(LONGROPE),
    )
    return Phi3ForCausalLM(config).eval()


MODELS = {"dynamic": lambda: _scaled(DYNAMIC), "longrope": _phi3}


@pytest.mark.filterwarnings("ignore::lampe.PositionWarning")
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("window", [None, 16, 64, 256, 512])
def test_a_window_of_ones_own_leaves_the_models_rope_as_it_is(
    kind: str, window: int | None
) -> None:
    """Check lengths around those at which the frequencies of the models change."""
    model = MODELS[kind]()
    prompts = [random_ids(length) for length in (24, 63, 64, 65, 66, 200, 256, 257, 300)]
    expected = [model(prompt).logits for prompt in prompts]
    with lampe.patch(model, "original", window=window):
        for prompt, logits in zip(prompts, expected, strict=True):
            torch.testing.assert_close(model(prompt).logits, logits, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore::lampe.PositionWarning")
def test_a_longrope_model_is_extended_from_the_window_before_longrope() -> None:
    model, ids = _phi3(), random_ids(200)
    before = model(ids).logits
    for method in ("lampe", "yarn", "dynamic-ntk", "ntk"):
        with lampe.patch(model, method, window=64) as handle:
            assert handle.geometry.window == 64
            assert not torch.allclose(model(ids).logits, before, atol=1e-2)


@pytest.mark.parametrize("method", ["dynamic-ntk", "yarn"])
def test_a_methods_own_rope_is_scaled_from_the_window(method: str) -> None:
    """Both replace the model's scaling, so its reference length has no part in theirs."""
    plain = lampe.Geometry(window=64, head_dim=16)
    scaled = lampe.Geometry(window=64, head_dim=16, rope_parameters=DYNAMIC)
    referring = lampe.Geometry(
        window=64, head_dim=16, rope_parameters=DYNAMIC, max_position_embeddings=256
    )
    ropes = [
        lampe.method_of(method, factor=3.0).encode(geometry, 200).rope
        for geometry in (plain, scaled, referring)
    ]
    assert ropes[0] == ropes[1] == ropes[2]
    assert scaled.rope(200) != referring.rope(200)


@pytest.mark.parametrize("kind", MODELS)
def test_the_probe_finds_another_rope_beyond_the_tokens_of_its_calls(kind: str) -> None:
    """Compare far positions: the first ones agree, so no short call could show it."""
    model = MODELS[kind]()
    module = model.model.rotary_emb
    module.config = copy.deepcopy(module.config)
    if kind == "dynamic":
        module.config.rope_parameters["factor"] = 3.0
    else:
        module.config.rope_parameters["long_factor"] = [1.1] * PAIRS
        module.__dict__.pop("long_inv_freq", None)
    with pytest.raises(lampe.UnsupportedModel, match=r"at \d+ tokens: .* changed after loading"):
        lampe.patch(model)


@pytest.mark.parametrize("kind", MODELS)
def test_the_probe_leaves_the_models_frequencies_as_they_were(kind: str) -> None:
    model = MODELS[kind]()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    largest = getattr(model.model.rotary_emb, "max_seq_len_cached", None)
    with lampe.patch(model):
        pass
    assert getattr(model.model.rotary_emb, "max_seq_len_cached", None) == largest
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


@pytest.mark.parametrize(
    ("rope", "window", "words"),
    [
        (LINEAR, 4 * WINDOW, r"factor of 4: .* 256 tokens, .* of 64; give window=64"),
        (LINEAR | {"original_max_position_embeddings": 16}, WINDOW, None),
        (LINEAR | {"original_max_position_embeddings": 64}, 4 * WINDOW, None),
        (LINEAR | {"factor": 1.0}, WINDOW, None),
        (YARN | {"original_max_position_embeddings": 16}, 16, None),
        (DYNAMIC, WINDOW, None),
        (LONGROPE | {"original_max_position_embeddings": 16}, WINDOW, None),
    ],
)
def test_the_window_of_a_scaled_checkpoint(
    rope: dict[str, Any], window: int, words: str | None
) -> None:
    model = _scaled(rope)
    assert lampe.geometry_of(model.config).window == window
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", lampe.PositionWarning)
        with lampe.patch(model) as handle:
            assert handle.geometry.window == window
        with lampe.patch(model, window=32) as handle:
            assert handle.geometry.window == 32
    messages = [each for each in caught if each.category is lampe.PositionWarning]
    assert len(messages) == (words is not None)
    if words:
        with pytest.warns(lampe.PositionWarning, match=words):
            lampe.patch(model)


def test_a_model_with_a_rope_for_each_kind_of_layer_was_trained_as_described() -> None:
    config = Gemma3TextConfig(max_position_embeddings=4096)
    config.rope_parameters["full_attention"] = dict(LINEAR)
    geometry = lampe.geometry_of(config)
    assert (geometry.window, geometry.window_note) == (4096, "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 0}}, "rope_theta=0"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": "x"}}, "rope_theta='x'"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": True}}, "rope_theta=True"),
        ({"max_position_embeddings": "many"}, "max_position_embeddings='many'"),
        ({"max_position_embeddings": -1}, "max_position_embeddings=-1"),
        ({"max_position_embeddings": None}, "give its window"),
        ({"head_dim": None, "num_attention_heads": 0}, "num_attention_heads=0"),
        ({"rope_parameters": LINEAR | {"factor": 0}}, "factor=0"),
        ({"rope_parameters": YARN}, "original_max_position_embeddings=None"),
    ],
)
def test_an_impossible_configuration_is_named(changes: dict[str, Any], words: str) -> None:
    """Set after construction, because transformers refuses some of them itself."""
    config = LlamaConfig(**SHAPE)
    for name, value in changes.items():
        object.__setattr__(config, name, value)
    with pytest.raises(lampe.UnsupportedModel, match=words):
        lampe.geometry_of(config)


@pytest.mark.parametrize("window", [0, -5])
def test_a_window_without_tokens_is_refused(window: int) -> None:
    with pytest.raises(lampe.BadSetting, match=f"window={window}"):
        lampe.patch(llama(), window=window)


@pytest.mark.filterwarnings("ignore::lampe.PositionWarning")
@pytest.mark.parametrize("build", [llama, *MODELS.values()])
def test_double_precision_is_patched(build: Any) -> None:
    model: PreTrainedModel = build()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.double()
    for name, buffer in buffers.items():  # frequencies stay float32 on loading
        owner, _, buffer_name = name.rpartition(".")
        model.get_submodule(owner).register_buffer(buffer_name, buffer, persistent=False)
    ids = random_ids(150)
    before = model(ids).logits
    with lampe.patch(model, "original"):
        assert model(ids).logits.dtype == torch.float64
        torch.testing.assert_close(model(ids).logits, before, atol=1e-5, rtol=0)
    with lampe.patch(model, "lampe"):
        assert not torch.allclose(model(ids).logits, before, atol=1e-2)


@pytest.mark.parametrize(
    ("config", "head_dim"),
    [
        (transformers.GptOssConfig(), 64),  # 2880 over 64 heads is 45
        (transformers.Qwen3Config(hidden_size=1024, num_attention_heads=16, head_dim=128), 128),
        (transformers.LlamaConfig(hidden_size=256, num_attention_heads=4), 64),
    ],
    ids=lambda value: getattr(value, "model_type", str(value)),
)
def test_the_stated_dimensions_of_a_head_hold(
    config: transformers.PreTrainedConfig, head_dim: int
) -> None:
    geometry = lampe.geometry_of(config)
    assert geometry.head_dim == head_dim
    assert len(geometry.rope(geometry.window).inv_freq) == head_dim // 2
