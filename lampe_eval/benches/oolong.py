"""OOLONG: counts and comparisons over all lines of a text.

The questions are about labelled lines (`synth`), whose labels a model must find by itself or reads
in the text (`synth_labels`), or about transcripts of games (`real`). A text that is cut has another
answer, so a cell has the texts that take more than half of its length (`length_cells.py`). Text and
question are one user turn; upstream puts the text into a system turn.

Source: `src/eval` of abertsch72/oolong at adbf1cb. No fixed version of the
data is known, so that they are read from a folder of the user's.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lampe_eval import assets
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, Task, mean_scores
from lampe_eval.benches.length_cells import empty_cell, fills, may_fill
from lampe_eval.cards import TaskCard
from lampe_eval.file_io import sha256_of_text
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import fit_prompt
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.records import SampleRecord
from lampe_eval.scoring import oolong_metrics
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.texts.jsonl_rows import FaultyRow, read_container


class OolongCard(TaskCard):
    """Card of a task.

    Attributes:
        file: file of its rows.
        max_new_tokens: tokens that the answer may have.
    """

    file: str
    max_new_tokens: int


class OolongRow(BaseModel):
    """Row of the data: a question on a text."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: str | int
    text: str = Field(alias="context_window_text")
    question: str
    answer: str
    group: str = ""
    answer_type: str = ""


class SynthRow(OolongRow):
    """Row about labelled lines: its answer is a Python list or a date."""

    group: str = Field(alias="task_group")
    answer_type: str

    @field_validator("answer")
    @classmethod
    def _check_answer(cls, answer: str) -> str:
        oolong_metrics.parse_answer(answer)
        return answer


class LabelledRow(SynthRow):
    """Row whose text has the labels of its lines."""

    text: str = Field(alias="context_window_text_with_labels")


ROWS: Mapping[str, type[OolongRow]] = {
    "synth": SynthRow,
    "synth_labels": LabelledRow,
    "real": OolongRow,
}
"""Types of rows by task."""


class Oolong(Bench):
    """OOLONG: 100 for a right answer, less for a number that is wrong, in percent."""

    name: ClassVar[str] = "oolong"
    card: ClassVar[type[TaskCard]] = OolongCard

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        return [f"{self.name}/{task.card.file}"]

    def rows(self, task: Task, request: SampleRequest) -> Iterator[OolongRow | FaultyRow]:
        path = assets.path_of(f"{self.name}/{task.card.file}", request.data_dir)
        return read_container(path, ROWS[task.name].model_validate)

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        return islice(_samples(task, self.rows(task, request), request), request.limit)

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        (answer,) = row["references"]
        if task == "real":
            return oolong_metrics.real_score(row["prediction"], answer)
        answer_type = row["extras"]["answer_type"]
        return oolong_metrics.synth_score(row["prediction"], answer, answer_type)

    def detail_estimates(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, Estimate]:
        """Return the mean scores of each group of questions."""
        groups: dict[str, list[SampleRecord]] = {}
        for row in rows:
            groups.setdefault(row["extras"]["group"], []).append(row)
        return mean_scores({name: rows for name, rows in groups.items() if name})


def _samples(
    task: Task, rows: Iterator[OolongRow | FaultyRow], request: SampleRequest
) -> Iterator[Prompt]:
    """Yield the rows whose prompts take more than half of the length.

    Raises:
        UserError: if there is none.
    """
    answer_tokens = task.card.max_new_tokens
    is_empty = True
    letters: list[int] = []
    for index, row in enumerate(rows):
        sample_id = f"{request.length}/{index:04d}"
        if isinstance(row, FaultyRow):
            yield Prompt.of_faulty_row(sample_id, row)
            continue
        message = Message(f"{row.text}\n\n{row.question}")
        letters.append(len(message.user))
        if not may_fill(request.length, letters[-1]):
            continue
        prompt = fit_prompt(
            request.tokenizer,
            request.protocol,
            message,
            length=request.length,
            answer_tokens=answer_tokens,
        )
        if not fills(request.length, len(prompt.ids)):
            continue
        is_empty = False
        yield Prompt(
            id=sample_id,
            ids=prompt.ids,
            max_new_tokens=answer_tokens,
            references=[row.answer],
            extras=row.model_dump(include={"id", "group", "answer_type"}),
            document_sha256=sha256_of_text(row.text),
            skip=prompt.skip,
        )
    if is_empty:
        raise empty_cell(request.length, letters)
