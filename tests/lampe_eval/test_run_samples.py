"""Running samples: every sample has an outcome, which may be an error; no number is invented."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lampe_eval.benches.bench import Passage, Prompt
from lampe_eval.engine.local_engine import LocalEngine
from lampe_eval.engine.run_samples import run_samples
from lampe_eval.method_specs import parse_methods
from lampe_eval.texts import pocket_language

Pocket = tuple[PreTrainedModel, PreTrainedTokenizerBase]
QUESTION = "\nWhat is the code of the red lamp? The code of the red lamp is"


@pytest.fixture
def engine(pocket: Pocket) -> Iterator[LocalEngine]:
    """Return the built-in model under LaMPE."""
    engine = LocalEngine(*pocket)
    (spec,) = parse_methods(["lampe"])
    with engine.patched(spec.build({}), 256, "blockwise"):
        yield engine


def _prompts(engine: LocalEngine, *sizes: int) -> list[Prompt]:
    texts = [
        f"The code of the red lamp is 4821{n}. {pocket_language.text(n, 900)[: 4 * size]}"
        for n, size in enumerate(sizes)
    ]
    return [
        Prompt(
            str(n),
            engine.tokenizer(text + QUESTION, add_special_tokens=False)["input_ids"],
            12,
            [f"4821{n}"],
        )
        for n, text in enumerate(texts)
    ]


def _run_out_of_memory_unless(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, rows: int = 0, in_chunks: bool = False
) -> None:
    """Simulate a GPU whose memory is too small for most forward calls.

    Args:
        engine: engine whose model runs out of memory.
        monkeypatch: fixture that restores the model.
        rows: largest number of rows that fit into memory.
        in_chunks: whether prompts fit that are read in chunks.
    """
    generate = engine.model.generate

    def generate_in_little_memory(ids: torch.Tensor, **options: Any) -> Any:
        if len(ids) <= rows or (in_chunks and options["past_key_values"].get_seq_length()):
            return generate(ids, **options)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 PiB")

    monkeypatch.setattr(engine.model, "generate", generate_in_little_memory)


@pytest.mark.parametrize(
    "method", ["original", "yarn", "dynamic-ntk", "selfextend", "dca", "lampe"]
)
def test_a_batch_answers_as_each_of_it_alone(pocket: Pocket, method: str) -> None:
    engine = LocalEngine(*pocket)
    (spec,) = parse_methods([method])
    with engine.patched(spec.build({}), 256, "blockwise"):
        prompts = _prompts(engine, 20, 220, 60)
        alone = []
        for prompt in prompts:
            alone += engine.answer([prompt])
        together = engine.answer(prompts)
    assert len({len(prompt.ids) for prompt in prompts}) == 3
    assert [(a.text, a.tokens, a.stop_reason) for a in together] == [
        (a.text, a.tokens, a.stop_reason) for a in alone
    ]


def test_outcomes_have_time_and_memory(engine: LocalEngine) -> None:
    first, second = run_samples(engine, _prompts(engine, 20, 60))
    assert (first["prediction"], second["prediction"]) == (" 48210.", " 48211.")
    assert first["batch_size"] == second["batch_size"] == 2
    assert first["prefill_seconds"] > 0 and first["decode_seconds"] > 0
    assert first["seconds"] >= first["prefill_seconds"] + first["decode_seconds"] - 1e-3
    assert first["peak_memory_bytes"] > sum(
        p.numel() * p.itemsize for p in engine.model.parameters()
    )


def test_a_prompt_is_read_in_chunks_in_low_memory_mode(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = _prompts(engine, 220)
    (expected,) = run_samples(engine, prompts)
    _run_out_of_memory_unless(engine, monkeypatch, in_chunks=True)
    monkeypatch.setattr("lampe_eval.engine.local_engine.LOW_MEMORY_PROMPT_CHUNK", 50)
    (outcome,) = run_samples(engine, prompts)
    assert outcome["low_memory"] is True
    assert (outcome["prediction"], outcome["answer_tokens"]) == (
        expected["prediction"],
        expected["answer_tokens"],
    )


def test_a_long_prompt_is_read_in_chunks(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = _prompts(engine, 220)
    (expected,) = run_samples(engine, prompts)
    _run_out_of_memory_unless(engine, monkeypatch, in_chunks=True)
    monkeypatch.setattr("lampe_eval.engine.local_engine.PROMPT_CHUNK", 100)
    (outcome,) = run_samples(engine, prompts)
    assert outcome["prediction"] == expected["prediction"] and "low_memory" not in outcome


def test_samples_as_long_as_one_that_ran_out_of_memory_start_in_low_memory_mode(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_out_of_memory_unless(engine, monkeypatch, in_chunks=True)
    monkeypatch.setattr("lampe_eval.engine.local_engine.LOW_MEMORY_PROMPT_CHUNK", 50)
    generate, whole = engine.model.generate, []

    def count(ids: torch.Tensor, **options: Any) -> Any:
        whole.append(not options["past_key_values"].get_seq_length())
        return generate(ids, **options)

    monkeypatch.setattr(engine.model, "generate", count)
    outcomes = [run_samples(engine, _prompts(engine, words))[0] for words in (220, 230, 220)]
    assert all(outcome["low_memory"] for outcome in outcomes)
    assert whole == [True, False, False, False]


def test_a_batch_that_is_too_large_is_run_one_by_one(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_out_of_memory_unless(engine, monkeypatch, rows=1)
    first, second = run_samples(engine, _prompts(engine, 20, 60))
    assert (first["prediction"], second["prediction"]) == (" 48210.", " 48211.")
    assert first["batch_size"] == second["batch_size"] == 1


def test_out_of_memory_in_low_memory_mode_is_recorded(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_out_of_memory_unless(engine, monkeypatch)
    outcomes = run_samples(engine, _prompts(engine, 20, 60))
    assert [outcome["error"] for outcome in outcomes] == [
        "oom: OutOfMemoryError: CUDA out of memory. Tried to allocate 3 PiB"
    ] * 2
    assert all(outcome["seconds"] > 0 and outcome["peak_memory_bytes"] > 0 for outcome in outcomes)
    assert all(
        (outcome["backend"], outcome["low_memory"]) == ("blockwise on cpu", True)
        for outcome in outcomes
    )


def test_one_bad_sample_does_not_spoil_its_batch(engine: LocalEngine) -> None:
    good, bad = _prompts(engine, 20, 60)
    bad = Prompt(bad.id, [10**6, *bad.ids], bad.max_new_tokens, bad.references)
    answered, failed = run_samples(engine, [good, bad])
    assert answered["prediction"] == " 48210."
    assert failed["error"] == "IndexError: index out of range in self"
    assert (failed["backend"], failed["batch_size"]) == ("blockwise on cpu", 1)


def test_logits_that_are_not_numbers_are_an_error(engine: LocalEngine) -> None:
    """Only the second row has such logits, from its second token on."""

    def spoil(module: torch.nn.Module, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        if logits.shape[1] == 1 and len(logits) == 2:
            logits[1] = math.nan
        return logits

    with engine.model.get_output_embeddings().register_forward_hook(spoil):
        answered, failed = run_samples(engine, _prompts(engine, 20, 60))
    assert answered["prediction"] == " 48210."
    assert failed["error"].startswith("NotANumber") and "prediction" not in failed


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error(engine: LocalEngine, factor: float) -> None:
    passage = Passage("x", list(range(40)), 10)
    (sound,) = run_samples(engine, [passage])
    assert sound["loss"] > 0 and "error" not in sound
    assert sound["prefill_seconds"] == sound["seconds"] > 0
    with engine.model.get_output_embeddings().register_forward_hook(
        lambda *args: args[-1] * factor
    ):
        (spoiled,) = run_samples(engine, [passage])
    assert spoiled["error"].startswith("NotANumber") and "loss" not in spoiled


def test_an_empty_answer_is_an_answer(engine: LocalEngine) -> None:
    eos = engine.tokenizer.eos_token_id

    def end(module: torch.nn.Module, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[..., eos] = 1e4
        return logits

    with engine.model.get_output_embeddings().register_forward_hook(end):
        (outcome,) = run_samples(engine, _prompts(engine, 20))
    assert (outcome["prediction"], outcome["answer_tokens"], outcome["stop_reason"]) == (
        "",
        1,
        "eos",
    )
    assert "error" not in outcome
