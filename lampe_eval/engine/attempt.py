"""Samples run on a loaded model, whatever happens to them: an error is what came of a sample, as an answer is."""

import math
import time
from collections.abc import Sequence
from typing import Any

from lampe_eval.benches.bench import Passage, Prompt, Sample
from lampe_eval.engine import memory
from lampe_eval.engine.job import Outcome
from lampe_eval.engine.local import Answer, LocalEngine
from lampe_eval.errors import describe_error

NAN = "NotANumber: the model's logits are not numbers; a --dtype with more range, as bfloat16 or float32, may mend it"


def attempt(engine: LocalEngine, samples: Sequence[Sample], *, lean: bool = False) -> list[Outcome]:
    """What came of each sample.

    Samples of a batch that fails are tried one by one. One that memory is short for is tried once more, lean, and those
    that are as long are lean from then on.
    """
    longest = max(len(sample.ids) for sample in samples)
    lean = lean or (len(samples) == 1 and longest >= engine.short_from)
    peak, began = memory.PeakMemory(engine.device), time.perf_counter()
    try:
        outcomes, cost = _outcomes(engine, samples, lean), _cost(engine, samples, lean, peak, began)
        return [{**outcome, **cost} for outcome in outcomes]
    except Exception as error:
        short, text = (
            memory.is_out_of_memory(error),
            describe_error(error),
        )  # not the error, which holds the tensors of its frames
    memory.free()
    if short and len(samples) == 1:
        engine.short_from = min(engine.short_from, longest)
    if len(samples) > 1 or (short and not lean):
        return [outcome for sample in samples for outcome in attempt(engine, [sample], lean=short)]
    return [
        {"error": f"oom: {text}" if short else text, **_cost(engine, samples, lean, peak, began)}
    ]


def _cost(
    engine: LocalEngine,
    samples: Sequence[Sample],
    lean: bool,
    peak: memory.PeakMemory,
    began: float,
) -> Outcome:
    """What samples that were run together ran on, and the seconds and bytes that they took together."""
    seconds = round(time.perf_counter() - began, 4)
    cost: Outcome = {"backend": engine.backend, "batch_size": len(samples), "seconds": seconds}
    if isinstance(samples[0], Passage):
        cost["prefill_seconds"] = seconds
    if (most := peak.bytes()) is not None:
        cost["peak_memory_bytes"] = most
    if lean:
        cost["low_memory"] = True
    return cost


def _outcomes(engine: LocalEngine, samples: Sequence[Sample], lean: bool) -> list[Outcome]:
    passages = [sample for sample in samples if isinstance(sample, Passage)]
    if passages:
        return [_read(passage, engine.loss(passage, lean=lean)) for passage in passages]
    prompts = [sample for sample in samples if isinstance(sample, Prompt)]
    if any(prompt.skip for prompt in prompts):
        return [{"skipped": "longer than the protocol allows"} for _ in prompts]
    answers = engine.answer(prompts, lean=lean)
    return [_answered(engine, *pair, lean) for pair in zip(prompts, answers, strict=True)]


def _read(passage: Passage, loss: float) -> Outcome:
    return (
        {"error": NAN}
        if math.isnan(loss)
        else {"loss": loss, "scored_tokens": passage.scored_tokens}
    )


def _answered(engine: LocalEngine, prompt: Prompt, answer: Answer, lean: bool) -> Outcome:
    """The prediction; both answers where another prompt follows the first."""
    if prompt.follow_up is None or answer.nan:
        return _told([answer], answer.text)
    (second,) = engine.answer([prompt.follow_up.make_prompt(answer.text)], lean=lean)
    told = _told([answer, second], prompt.follow_up.join_answers(answer.text, second.text))
    return told if "error" in told else {**told, "answers": [answer.text, second.text]}


def _told(answers: Sequence[Answer], prediction: str) -> dict[str, Any]:
    if any(answer.nan for answer in answers):
        return {"error": NAN}
    return {
        "prediction": prediction,
        "answer_tokens": sum(answer.tokens for answer in answers),
        "stop_reason": answers[-1].stop,
        "prefill_seconds": round(sum(answer.prefill for answer in answers), 4),
        "decode_seconds": round(sum(answer.decode for answer in answers), 4),
    }
