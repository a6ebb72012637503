"""Local engine: answers are greedy whatever a checkpoint recommends, and end at its stop tokens."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches.bench import Prompt
from lampe_eval.engine.local_engine import LocalEngine
from lampe_eval.engine.local_worker import LocalWorker
from lampe_eval.method_specs import parse_methods
from tests.model_sources import find_model

Pocket = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def _answer(pocket: Pocket, **recommended: object) -> tuple[str, int, str]:
    model, tokenizer = pocket
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=tokenizer.eos_token_id, **recommended
    )
    engine = LocalEngine(model, tokenizer)
    text = (
        "The lamp is in the kitchen. The code of the red lamp is 48213.\n"
        "What is the code of the red lamp? The code of the red lamp is"
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    (spec,) = parse_methods(["original"])
    with engine.patched(spec.build({}), 256, "blockwise"):
        (answer,) = engine.answer([Prompt("x", ids, 16, ("48213",))])
    return answer.text, answer.tokens, answer.stop_reason


def test_a_checkpoints_recommendations_for_generation_are_ignored(pocket: Pocket) -> None:
    plain = _answer(pocket)
    assert plain == (" 48213.", 7, "eos")
    assert _answer(pocket, repetition_penalty=1.8, no_repeat_ngram_size=1) == plain
    assert _answer(pocket, do_sample=True, temperature=5.0, num_beams=3) == plain


def test_a_gpu_without_memory_for_the_probe_runs_one_sample_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_out_of_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 3 PiB")

    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 0)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(
        LocalWorker,
        "engine",
        SimpleNamespace(device=torch.device("cuda"), answer=run_out_of_memory),
    )
    assert LocalWorker(find_model("pocket"), "cuda", "auto").measure_batch_tokens() == 1
