"""Records of finished samples: prompt, largest position, outcome and score."""

import json
from dataclasses import replace
from typing import NamedTuple, Self

from transformers import PreTrainedTokenizerBase

import lampe
from lampe_eval import records
from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import Continuations, Passage, Prompt, Sample
from lampe_eval.engine.batch_job import BatchJob
from lampe_eval.errors import describe_error
from lampe_eval.file_io import sha256_of_text
from lampe_eval.models import ModelSource
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.records import Outcome, SampleRecord
from lampe_eval.running.prepared_run import PreparedRun

SHOWN_TOKENS = 100
"""Tokens of a prompt's start and end that a record shows."""
SHOWN_CHARACTERS = 300
"""Characters of them at most."""


class ReadPrompt(NamedTuple):
    """Prompt as a method reads it, by which a stored sample is known again.

    Attributes:
        sha256: hash of its token ids.
        plan_tokens: tokens of the plan that it shares with other questions; 0 for one of its own.
    """

    sha256: str
    plan_tokens: int

    @classmethod
    def of_sample(cls, sample: Sample) -> Self:
        """Return the prompt of a sample."""
        return cls(prompt_sha256(sample), _other_plan_tokens(sample))

    @classmethod
    def of_record(cls, row: SampleRecord) -> Self:
        """Return the prompt of a stored sample."""
        return cls(row["prompt_sha256"], row.get("plan_tokens", 0))


class SampleRecorder:
    """Maker of the records of one model's samples."""

    def __init__(
        self, prepared: PreparedRun, source: ModelSource, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._protocols = prepared.resolved.protocols
        self._geometry = source.geometry
        self._tokenizer = tokenizer

    def record(self, job: BatchJob, sample: Sample, outcome: Outcome) -> SampleRecord:
        """Return the record of a finished sample."""
        named: SampleRecord = {
            "length": job.cell.length,
            "id": sample.id,
            "prompt_sha256": prompt_sha256(sample),
            "prompt_tokens": len(sample.ids),
        }
        try:
            # Keys are in the order in which people read a line.
            record = named.copy()
            _add_prompt(record, sample, self._tokenizer)
            if sample.ids:  # the sample of a faulty row has none
                _add_positions(record, sample, outcome, job.method, self._geometry)
            record = {**record, **outcome}
            _add_score(record, job, self._protocols[job.cell.bench])
            # The store reads back only what is JSON of the declared types.
            json.dumps(record, allow_nan=False)
            records.SAMPLE.validate_python(record)
            return record
        # An error of the scorer, or of anything else here, becomes an error of the sample: the
        # answer took time to generate and must be stored.
        except Exception as error:
            return {**named, **outcome, "error": describe_error(error)}


def prompt_sha256(sample: Sample) -> str:
    """Return the hash of a prompt's token ids."""
    if isinstance(sample, Continuations):
        return sha256_of_text(repr([list(text.ids) for text in sample.texts]))
    return sha256_of_text(repr(list(sample.ids)))


def _other_plan_tokens(sample: Sample) -> int:
    """Return the tokens of the plan of a sample's document; 0 where it would have the same plan."""
    if not (isinstance(sample, Prompt) and sample.plan_tokens):
        return 0
    alone = replace(sample, plan_tokens=0)
    return 0 if alone.reserved_tokens == sample.reserved_tokens else sample.plan_tokens


def _add_prompt(record: SampleRecord, sample: Sample, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add what the sample is, with both ends of its prompt as the model reads it."""
    start = str(tokenizer.decode(list(sample.ids[:SHOWN_TOKENS])))
    end = str(tokenizer.decode(list(sample.ids[-SHOWN_TOKENS:])))
    record["prompt_start"] = start[:SHOWN_CHARACTERS]
    record["prompt_end"] = end[-SHOWN_CHARACTERS:]
    record["meta"] = dict(sample.meta)
    if isinstance(sample, Passage):
        return
    if isinstance(sample, Prompt) and sample.document_sha256:
        record["document_sha256"] = sample.document_sha256
    record["references"] = sample.references
    record["extras"] = dict(sample.extras)
    if isinstance(sample, Prompt) and sample.cut_tokens:
        record["cut_tokens"] = sample.cut_tokens


def _add_positions(
    record: SampleRecord,
    sample: Sample,
    outcome: Outcome,
    method: lampe.Method,
    geometry: lampe.Geometry,
) -> None:
    """Add how far positions of prompt and answer reach under a method, and its factor."""
    if plan_tokens := _other_plan_tokens(sample):
        record["plan_tokens"] = plan_tokens
    prompt_tokens = record["prompt_tokens"]
    planned = prompt_tokens + (sample.reserved_tokens if isinstance(sample, Prompt) else 0)
    encoding = method.encode(geometry, planned)
    tokens = prompt_tokens + outcome.get("answer_tokens", 0)
    position = encoding.largest_position(tokens, geometry.rope(planned))
    record["largest_position"] = round(position, 6)
    record["attention_factor"] = str(encoding.effective_attention_factor)


def _add_score(record: SampleRecord, job: BatchJob, protocol: Protocol) -> None:
    """Add metrics and score of an answer; a loss, an error or a skipped sample has no score."""
    if "error" in record or "skipped" in record:
        return
    bench = BENCHES[job.task.bench]
    # Caught here, so that the record keeps its other keys.
    try:
        metrics = bench.metrics(job.task, record)
        if metrics:
            record["metrics"] = metrics
        if bench.has_answers:
            record["score"] = bench.score(job.task.name, record, protocol)
    except Exception as error:
        record["error"] = describe_error(error)
