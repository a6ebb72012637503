"""Tiny random models of the architectures that are served: the tokens of transformers."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vllm is not installed in this Python: make test-vllm")

import torch
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig
from vllm import SamplingParams

import lampe
from lampe_vllm.model_checks import TRIED_ARCHITECTURES
from lampe_vllm.served_method import ServedMethod
from tests.vllm.answers import expected_answers, load, random_prompts
from tests.vllm.engines import Engines

LENGTHS = (20, 70, 200, 333)
TOKENS = 12
WINDOW = 64
SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": WINDOW,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "beta_fast": 32.0,
    "beta_slow": 1.0, "truncate": False, "original_max_position_embeddings": WINDOW,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama3": ("llama", {"rope_parameters": LLAMA3}),
    "linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    ),
    "mistral": ("mistral", {"sliding_window": 100}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "qwen3-moe": ("qwen3_moe", EXPERTS),
    "cohere": (
        "cohere",
        {"logit_scale": 1.0, "use_qk_norm": False, "tie_word_embeddings": True},
    ),
    "stablelm": ("stablelm", {}),
    "glm4": ("glm4", {}),
    "gemma2": (
        "gemma2",
        {"query_pre_attn_scalar": 32, "sliding_window": 48, "tie_word_embeddings": True},
    ),
    "granite": ("granite", {}),
    "gpt-oss": (
        "gpt_oss",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 48,
            "rope_parameters": YARN,
        },
    ),
}


def write_checkpoint(folder: Path, kind: str, changes: dict[str, Any]) -> None:
    """Write a random model whose answers depend on positions."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**{**SIZES, **changes})
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).eval()
    for name, weight in model.named_parameters():
        # Weights of 1 and 0, as norms begin with, would hide what they do.
        nn.init.normal_(weight, mean=1.0 if "norm" in name else 0.0, std=0.15)
    model.save_pretrained(folder)


def test_every_tried_architecture_is_here() -> None:
    kinds = {kind for kind, _ in MODELS.values()}
    names = {MODEL_FOR_CAUSAL_LM_MAPPING[type(CONFIG_MAPPING[kind]())].__name__ for kind in kinds}
    assert names == TRIED_ARCHITECTURES


@pytest.mark.parametrize("name", MODELS)
def test_same_answers(name: str, tmp_path: Path, engines: Engines) -> None:
    kind, changes = MODELS[name]
    write_checkpoint(tmp_path, kind, changes)
    # Within the window the method would change nothing.
    assert lampe.geometry_of(AutoConfig.from_pretrained(tmp_path)).window < LENGTHS[-2]
    prompts = random_prompts(LENGTHS, 256)
    engine = engines.start(
        tmp_path, ServedMethod("lampe"), skip_tokenizer_init=True, max_num_batched_tokens=128,
        max_model_len=512, max_num_seqs=8,
    )  # fmt: skip
    parameters = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True, detokenize=False)
    outputs = engine.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts], parameters, use_tqdm=False
    )
    expected = expected_answers(load(tmp_path), "lampe", {}, prompts, TOKENS)
    assert [list(output.outputs[0].token_ids) for output in outputs] == [t for t, _ in expected]
