"""What a run stores, declared once: the engine, the store, scores, reports and the page use it.

A run's folder has one `SampleRecord` a line in `samples/`, and one `CellRecord` a line in
`cells.jsonl`. `SCHEMA` is raised whenever a key changes its name or meaning.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

SCHEMA = 3


class Outcome(TypedDict, total=False):
    """What happened when a sample ran: an answer, a loss, an error, or a reason to skip it.

    Attributes:
        prediction: the answer's text.
        answers: both answers where the sample asks a follow-up question.
        answer_tokens: generated tokens, the stop token included.
        stop_reason: "eos" or "length".
        loss: sum of the losses (natural logarithm) of the scored tokens.
        scored_tokens: how many tokens the loss is of.
        skipped: why the sample was left out.
        error: class and message of what went wrong.
        backend: attention backends and the device type.
        batch_size: prompts that ran together.
        seconds: of the whole batch.
        prefill_seconds: until the first token; of the whole batch.
        decode_seconds: of all further tokens; of the whole batch.
        peak_memory_bytes: most memory in use; of the whole batch.
        low_memory: whether the prompt was read in small chunks to save memory.
    """

    prediction: str
    answers: list[str]
    answer_tokens: int
    stop_reason: str
    loss: float
    scored_tokens: int
    skipped: str
    error: str
    backend: str
    batch_size: int
    seconds: float
    prefill_seconds: float
    decode_seconds: float
    peak_memory_bytes: int
    low_memory: bool


class SampleRecord(Outcome):
    """A finished sample.

    Attributes:
        id: unique within a task and a length.
        length: tokens of the cell.
        prompt_sha256: of the prompt's token ids.
        prompt_tokens: tokens of the prompt.
        prompt_start: the prompt's first tokens as text.
        prompt_end: the prompt's last tokens as text.
        meta: numbers that tables may group by, such as the depth of a needle.
        references: what the answer is scored against.
        extras: what else the scorer needs.
        cut_tokens: tokens taken out of the prompt to make it fit.
        largest_position: largest relative position, in positions of the model's own rope.
        attention_factor: the factor on attention, as text.
        score: from 0 to 1.
    """

    id: str
    length: int
    prompt_sha256: str
    prompt_tokens: int
    prompt_start: NotRequired[str]
    prompt_end: NotRequired[str]
    meta: NotRequired[Mapping[str, float]]
    references: NotRequired[Any]
    extras: NotRequired[Mapping[str, Any]]
    cut_tokens: NotRequired[int]
    largest_position: NotRequired[float]
    attention_factor: NotRequired[str]
    score: NotRequired[float]


class CellRecord(TypedDict):
    """A cell (model x method x task x length) and its number of samples."""

    model: str
    method: str
    bench: str
    task: str
    length: int
    samples: int
