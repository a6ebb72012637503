"""Attention backend for GPUs in vLLM's CPU engine, its kernels interpreted: transformers' tokens.

Two things differ from a GPU: vLLM writes keys and values into the cache by an operation that it has
on GPUs alone, and data types are float32.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vllm is not installed in this Python: make test-vllm")
pytest.importorskip("triton")

from torch import Tensor
from vllm import SamplingParams
from vllm.v1.attention import selector
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

from lampe_vllm import plugin
from lampe_vllm.gpu.backend import LampeGPUAttention
from lampe_vllm.gpu.paged_cache import PagedCache
from lampe_vllm.gpu_selection import BACKEND
from lampe_vllm.served_method import ServedMethod
from tests.vllm.answers import expected_answers, load, random_prompts
from tests.vllm.engines import Engines
from tests.vllm.test_architectures import MODELS, write_checkpoint

LENGTHS = (20, 70, 130)
TOKENS = 6


def _write(
    attention: LampeGPUAttention,
    layer: Any,
    key: Tensor,
    value: Tensor,
    kv_cache: Tensor,
    slot_mapping: Tensor,
) -> None:
    """Write keys and values ``[T, G, D]`` into the cache."""
    cache = PagedCache.from_vllm(kv_cache)
    place = slot_mapping // cache.slots, slot_mapping % cache.slots
    cache.key.transpose(1, 2)[place] = key
    cache.value.transpose(1, 2)[place] = value


@pytest.fixture
def gpu_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let vLLM's CPU platform take the backend for GPUs."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(LampeGPUAttention, "do_kv_cache_update", _write)
    register_backend(AttentionBackendEnum.CPU_ATTN, BACKEND)
    # vLLM remembers which class it took for a kind of layer.
    selector._cached_get_attn_backend.cache_clear()
    yield
    register_backend(AttentionBackendEnum.CPU_ATTN, plugin.CPU_BACKEND)
    selector._cached_get_attn_backend.cache_clear()


# Plain attention; local windows; sinks beside local windows.
@pytest.mark.parametrize("name", ["llama", "mistral", "gpt-oss"])
@pytest.mark.usefixtures("gpu_backend")
def test_same_answers(name: str, tmp_path: Path, engines: Engines) -> None:
    kind, changes = MODELS[name]
    write_checkpoint(tmp_path, kind, changes)
    prompts = random_prompts(LENGTHS, 256)
    engine = engines.start(
        tmp_path, ServedMethod("lampe"), skip_tokenizer_init=True, max_num_batched_tokens=64,
        max_model_len=256, max_num_seqs=8,
    )  # fmt: skip
    # Without min_tokens, which would forbid the token that ends an answer.
    parameters = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True, detokenize=False)
    outputs = engine.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts], parameters, use_tqdm=False
    )
    expected = expected_answers(load(tmp_path), "lampe", {}, prompts, TOKENS)
    assert [list(output.outputs[0].token_ids) for output in outputs] == [t for t, _ in expected]
