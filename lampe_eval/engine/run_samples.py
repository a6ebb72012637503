"""Running samples on a loaded model: errors become outcomes, and too little memory a retry."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from lampe_eval.benches.bench import Continuations, Passage, Prompt, Sample
from lampe_eval.device_memory import PeakMemory, free_unused, is_out_of_memory
from lampe_eval.engine.local_engine import GeneratedAnswer, LocalEngine
from lampe_eval.errors import describe_error
from lampe_eval.records import Outcome

NAN_ERROR = (
    "NotANumber: the model's logits are not numbers; "
    "try a --dtype with a larger range, such as bfloat16 or float32"
)


def run_samples(
    engine: LocalEngine, samples: Sequence[Sample], *, low_memory: bool = False
) -> list[Outcome]:
    """Run samples as one batch and return the outcome of each; an error is an outcome, too.

    Questions about one document run one by one: the engine reads their document once.

    If a batch fails, its samples are run one by one, so that one bad sample does not spoil the
    others. A single sample that runs out of memory is run once more in low-memory mode, and from
    then on samples of that length or longer start in it.

    Args:
        engine: the loaded model, patched with a method.
        samples: samples that may share a batch.
        low_memory: whether to read prompts in small chunks.
    """
    if len(samples) > 1 and isinstance(samples[0], Prompt) and samples[0].shared_tokens:
        return list(chain.from_iterable(run_samples(engine, [sample]) for sample in samples))
    longest = max(len(sample.ids) for sample in samples)
    if len(samples) == 1 and longest >= engine.low_memory_from:
        low_memory = True
    peak = PeakMemory(engine.device)
    started = time.perf_counter()
    try:
        outcomes = _run(engine, samples, low_memory)
        cost = _cost(engine, samples, low_memory, peak, started)
        return [{**outcome, **cost} for outcome in outcomes]
    except Exception as error:
        # Keep the text, not the error: its traceback would hold the tensors that must be freed.
        out_of_memory = is_out_of_memory(error)
        description = describe_error(error)
    free_unused()
    if out_of_memory and len(samples) == 1:
        # Samples that are as long would fail in the same way: spare them the first attempt.
        engine.low_memory_from = min(engine.low_memory_from, longest)
    if len(samples) > 1 or (out_of_memory and not low_memory):
        retried: list[Outcome] = []
        for sample in samples:
            retried += run_samples(engine, [sample], low_memory=out_of_memory)
        return retried
    failed: Outcome = {"error": f"oom: {description}" if out_of_memory else description}
    return [{**failed, **_cost(engine, samples, low_memory, peak, started)}]


def _run(engine: LocalEngine, samples: Sequence[Sample], low_memory: bool) -> list[Outcome]:
    """Run samples of one kind."""
    passages = [sample for sample in samples if isinstance(sample, Passage)]
    if passages:
        return [_passage_outcome(engine, passage, low_memory) for passage in passages]
    continuations = [sample for sample in samples if isinstance(sample, Continuations)]
    if continuations:
        return [_continuations_outcome(engine, sample, low_memory) for sample in continuations]
    prompts = [sample for sample in samples if isinstance(sample, Prompt)]
    if any(prompt.error for prompt in prompts):
        return [{"error": prompt.error} for prompt in prompts]
    if any(prompt.skip for prompt in prompts):
        return [{"skipped": "longer than the protocol allows"} for _ in prompts]
    answers = engine.answer(prompts, low_memory=low_memory)
    return [
        _answer_outcome(engine, prompt, answer, low_memory)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _passage_outcome(engine: LocalEngine, passage: Passage, low_memory: bool) -> Outcome:
    loss = engine.loss(passage, low_memory=low_memory)
    if not math.isfinite(loss):
        return {"error": NAN_ERROR}
    return {"loss": loss, "scored_tokens": passage.scored_tokens}


def _continuations_outcome(engine: LocalEngine, sample: Continuations, low_memory: bool) -> Outcome:
    found = engine.loglikelihoods(sample.texts, low_memory=low_memory)
    loglikelihoods = [loglikelihood for loglikelihood, _ in found]
    if not all(map(math.isfinite, loglikelihoods)):
        return {"error": NAN_ERROR}
    return {"loglikelihoods": loglikelihoods, "greedy": [is_greedy for _, is_greedy in found]}


def _answer_outcome(
    engine: LocalEngine, prompt: Prompt, answer: GeneratedAnswer, low_memory: bool
) -> Outcome:
    """Return the outcome of a prompt, after its follow-up question where it has one."""
    if prompt.follow_up is None or answer.has_nan:
        return _outcome([answer], answer.text)
    next_prompt = replace(
        prompt.follow_up.make_prompt(answer.text),
        plan_length=prompt.plan_length,
        # By which the engine knows that the document goes on.
        document_sha256=prompt.document_sha256,
    )
    (second,) = engine.answer([next_prompt], low_memory=low_memory)
    outcome = _outcome([answer, second], prompt.follow_up.join_answers(answer.text, second.text))
    if "error" not in outcome:
        outcome["answers"] = [answer.text, second.text]
    return outcome


def _outcome(answers: Sequence[GeneratedAnswer], prediction: str) -> Outcome:
    """Return the outcome of one prompt; tokens and seconds of several answers are added."""
    if any(answer.has_nan for answer in answers):
        return {"error": NAN_ERROR}
    return {
        "prediction": prediction,
        "answer_tokens": sum(answer.tokens for answer in answers),
        "stop_reason": answers[-1].stop_reason,
        "prefill_seconds": round(sum(answer.prefill_seconds for answer in answers), 4),
        "decode_seconds": round(sum(answer.decode_seconds for answer in answers), 4),
    }


def _cost(
    engine: LocalEngine,
    samples: Sequence[Sample],
    low_memory: bool,
    peak: PeakMemory,
    started: float,
) -> Outcome:
    """Return what ran the batch, and the time and memory that the whole batch took."""
    seconds = round(time.perf_counter() - started, 4)
    cost: Outcome = {"backend": engine.backend, "batch_size": len(samples), "seconds": seconds}
    # Where nothing is generated, all of the time is prefill.
    if not isinstance(samples[0], Prompt):
        cost["prefill_seconds"] = seconds
    peak_bytes = peak.bytes()
    if peak_bytes is not None:
        cost["peak_memory_bytes"] = peak_bytes
    if low_memory:
        cost["low_memory"] = True
    return cost
