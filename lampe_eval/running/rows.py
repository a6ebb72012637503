"""What is stored of a sample: what it is, how far its positions reach, and what came of it."""

import hashlib
import json
from typing import Any

from transformers import PreTrainedTokenizerBase

import lampe
from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import Prompt, Sample, Task
from lampe_eval.engine.job import Job, Outcome
from lampe_eval.errors import describe_error
from lampe_eval.models import ModelSource
from lampe_eval.plan import Plan
from lampe_eval.prompts.protocol import Protocol

SHOWN = 100
"""Tokens of a prompt's head and tail."""
LETTERS = 300
"""Characters of them, at most."""


class Rows:
    """Makes the rows of one model."""

    def __init__(self, plan: Plan, source: ModelSource, tokenizer: PreTrainedTokenizerBase) -> None:
        self._protocols, self._geometry, self._tokenizer = (
            plan.protocols,
            source.geometry,
            tokenizer,
        )

    def of(self, job: Job, sample: Sample, outcome: Outcome) -> dict[str, Any]:
        """The row of a sample of a job; what making it or a scorer raises is an error of the sample."""
        named = {"id": sample.id, "prompt_sha256": sha256(sample), "prompt_tokens": len(sample.ids)}
        try:
            row = {
                **named,
                **_described(sample, self._tokenizer),
                **_reached(job.method, self._geometry, len(sample.ids)),
                **outcome,
            }
            row |= _scored(job.task, row, self._protocols[job.cell.bench])
            json.dumps(row)  # or it cannot be stored
            return row
        except Exception as error:
            return {**named, **outcome, "error": describe_error(error)}


def sha256(sample: Sample) -> str:
    """Of a prompt's tokens."""
    return hashlib.sha256(repr(list(sample.ids)).encode()).hexdigest()


def _described(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What a sample is; ``head`` and ``tail`` are the ends of its prompt as the model reads it."""
    row: dict[str, Any] = {
        "prompt_start": str(tokenizer.decode(list(sample.ids[:SHOWN])))[:LETTERS],
        "prompt_end": str(tokenizer.decode(list(sample.ids[-SHOWN:])))[-LETTERS:],
        "meta": dict(sample.meta),
    }
    if isinstance(sample, Prompt):
        row |= {"references": sample.references, "extras": dict(sample.extras)}
        row |= {"cut_tokens": sample.cut_tokens} if sample.cut_tokens else {}
    return row


def _reached(method: lampe.Method, geometry: lampe.Geometry, length: int) -> dict[str, Any]:
    """How far the positions of a prompt reach under a method, and how sharp its attention is."""
    encoding = method.encode(geometry, length)
    return {
        "largest_position": round(encoding.largest_position(length, geometry.rope(length)), 6),
        "attention_factor": str(encoding.effective_attention_factor),
    }


def _scored(task: Task, row: dict[str, Any], protocol: Protocol) -> dict[str, Any]:
    """The score of an answer; nothing for what is none."""
    if "prediction" not in row:
        return {}
    try:
        return {"score": BENCHES[task.bench].score(task.name, row, protocol)}
    except Exception as error:
        return {"error": describe_error(error)}
