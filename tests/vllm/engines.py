"""Engines of vLLM in this process, one after the other, and answers of transformers."""

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before vLLM is imported: engines then run in this process.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from vllm import LLM
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.layers import rotary_embedding
from vllm.platforms import current_platform

import lampe
from lampe_vllm import engine_state, plugin
from lampe_vllm.served_method import ServedMethod

MAX_LENGTH = 4096

Answer = tuple[list[int], list[float]]
"""Tokens of an answer and their log-probabilities."""


class Engines:
    """Starter of engines, of which one runs at a time."""

    def __init__(self) -> None:
        # Whether or not its entry point is installed.
        plugin.register()
        self._running: LLM | None = None

    def start(self, model: Path | str, served: ServedMethod | None, **options: Any) -> LLM:
        """Start an engine in the place of the one before."""
        self.stop()
        settings: dict[str, Any] = {
            "max_model_len": MAX_LENGTH,
            "dtype": "float32",
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "kv_cache_memory_bytes": 256 << 20,
            **options,
        }
        overrides = {} if served is None else served.overrides(MAX_LENGTH)
        self._running = LLM(model=str(model), hf_overrides=overrides, **settings)
        return self._running

    def stop(self) -> None:
        """Stop the engine that runs."""
        if self._running is not None:
            self._running.llm_engine.engine_core.shutdown()
            self._running = None
            gc.collect()
            cleanup_dist_env_and_memory()
        rotary_embedding._ROPE_DICT.clear()
        if plugin.CPU_BACKEND.rpartition(".")[0] in sys.modules:
            # vLLM looks into every module for its Triton kernels, and stumbles over llvmlite's.
            type(current_platform).register_triton_kernel_overrides = staticmethod(lambda: None)


def serve(method: str, settings: dict[str, Any]) -> None:
    """Serve another method on the engine that runs."""
    assert engine_state._newest is not None
    engine_state._newest.serve(ServedMethod(method, settings, force=True))


def expected_answers(
    model: PreTrainedModel, method: str, settings: dict[str, Any], prompts: Sequence[list[int]],
    tokens: int,
) -> list[Answer]:  # fmt: skip
    """Return the greedy answers of a patched model to prompts, one at a time."""
    answers = []
    with torch.no_grad(), lampe.patch(model, method, **settings):
        for prompt in prompts:
            ids = torch.tensor([prompt])
            output = model.generate(  # type: ignore[operator]
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
            answer = output.sequences[0, len(prompt) :]
            scores = torch.cat(output.logits).float().log_softmax(-1)
            answers.append((answer.tolist(), scores.gather(1, answer[:, None])[:, 0].tolist()))
    return answers


def random_prompts(lengths: Sequence[int], vocabulary: int) -> list[list[int]]:
    """Return random prompts without special tokens, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(5, vocabulary, (length,), generator=generator).tolist() for length in lengths
    ]


def load(folder: Path | str) -> PreTrainedModel:
    """Load a checkpoint in float32."""
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    # No recommendation of the checkpoint may end an answer early.
    model.generation_config.eos_token_id = None
    return model.eval()  # type: ignore[no-any-return]
