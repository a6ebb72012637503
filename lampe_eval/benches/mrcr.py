"""MRCR: repeat one of several like messages of a long chat.

A user asks for short pieces by kind and topic; one kind on one topic is asked for two, four or
eight times, and the last message asks for one of those pieces by its number. The prompt is the
chat in the model's template; without a template it is written line by line, which `official`
refuses. No chat is cut: a cell has those that take more than half of the length with their answer
(`length_cells.py`). Bins of published numbers are in the tokens of another tokenizer.

Source: the card of openai/mrcr; rows as revised in December 2025.
"""

from collections.abc import Iterator
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, Json

from lampe_eval import assets
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, Task
from lampe_eval.benches.length_cells import empty_cell, fills, may_fill
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text
from lampe_eval.prompts.chat_template import chat_text, transcript
from lampe_eval.prompts.prompt_fitting import encode_prompt
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode
from lampe_eval.records import SampleRecord
from lampe_eval.scoring import mrcr_metrics
from lampe_eval.texts.jsonl_rows import FaultyRow, read_container

ANSWER_FACTOR = 1.2
"""Tokens of an answer for each token of the right one."""


class MrcrCard(TaskCard):
    """Card of a task.

    Attributes:
        files: files of its rows.
    """

    files: tuple[str, ...]


class ChatTurn(BaseModel):
    """Message of a chat."""

    model_config = ConfigDict(frozen=True, strict=True)

    role: Literal["system", "user", "assistant"]
    content: str


Chat = Annotated[Json[list[ChatTurn]], Field(min_length=1)]
"""Messages, which the data have as JSON text."""


class MrcrRow(BaseModel):
    """Row of the data set: a chat as JSON text, and the message that its end asks for."""

    model_config = ConfigDict(frozen=True, strict=True)

    prompt: Chat
    answer: str
    random_string_to_prepend: str

    @property
    def letters(self) -> int:
        """Return the letters of all messages and of the answer."""
        return sum(len(turn.content) for turn in self.prompt) + len(self.answer)


class Mrcr(Bench):
    """MRCR: similarity of the answer and the right message, in percent."""

    name: ClassVar[str] = "mrcr"
    card: ClassVar[type[TaskCard]] = MrcrCard

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        return [f"{self.name}/{file}" for file in task.card.files]

    def rows(self, task: Task, request: SampleRequest) -> Iterator[MrcrRow | FaultyRow]:
        for file in task.card.files:
            path = assets.path_of(f"{self.name}/{file}", request.data_dir)
            yield from read_container(path, MrcrRow.model_validate)

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        has_template = getattr(request.tokenizer, "chat_template", None)
        if request.protocol.chat == "upstream" and not has_template:
            raise UserError(
                f"{request.tokenizer.name_or_path} has no chat template; use "
                "--protocol fair, which writes the chat line by line, or another model"
            )
        return islice(_samples(self.rows(task, request), request), request.limit)

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        prefix = row["extras"]["random_string_to_prepend"]
        return mrcr_metrics.score(row["prediction"], row["references"][0], prefix)


def _samples(rows: Iterator[MrcrRow | FaultyRow], request: SampleRequest) -> Iterator[Prompt]:
    """Yield the rows that take more than half of the length with their answer.

    Raises:
        UserError: if there is none.
    """
    is_empty = True
    letters: list[int] = []
    for index, row in enumerate(rows):
        sample_id = f"{request.length}/{index:04d}"
        if isinstance(row, FaultyRow):
            yield Prompt.of_faulty_row(sample_id, row)
            continue
        letters.append(row.letters)
        if not may_fill(request.length, letters[-1]):
            continue
        answer_tokens = ceil(ANSWER_FACTOR * len(encode(request.tokenizer, row.answer)))
        ids = _prompt_ids(row, request)
        if not fills(request.length, len(ids) + answer_tokens):
            continue
        is_empty = False
        yield Prompt(
            id=sample_id,
            ids=ids,
            max_new_tokens=answer_tokens,
            references=[row.answer],
            extras={"random_string_to_prepend": row.random_string_to_prepend},
            # Several rows may ask about one chat, by its last message.
            document_sha256=sha256_of_text(repr(row.prompt[:-1])),
        )
    if is_empty:
        raise empty_cell(request.length, letters)


def _prompt_ids(row: MrcrRow, request: SampleRequest) -> list[int]:
    messages = [turn.model_dump() for turn in row.prompt]
    if request.protocol.chat == "none":
        text = transcript(messages)
    else:
        text = chat_text(request.tokenizer, messages)
    return encode_prompt(request.tokenizer, request.protocol, text, "", "")
