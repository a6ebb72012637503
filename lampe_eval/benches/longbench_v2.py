"""LongBench v2: 503 questions with four choices, on texts of up to two million words.

Two things differ from upstream: answers are greedy, where upstream samples at temperature 0.1, so
that a run can be repeated; and an empty answer counts as wrong, where upstream leaves its question
out.

Source: arXiv 2412.15204 with `pred.py`, `result.py` and `prompts/` of THUDM/LongBench at 2e00731.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import ijson  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lampe_eval import assets
from lampe_eval.benches.bench import Bench, FollowUp, Prompt, SampleRequest, Score, Task
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message, template_affixes
from lampe_eval.prompts.prompt_fitting import FittedPrompt, fit_prompt
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode, encode_with_special_tokens, with_bos
from lampe_eval.records import SampleRecord
from lampe_eval.scoring import longbench_metrics

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATES = {"direct": "0shot.txt", "cot": "0shot_cot.txt", "no-context": "0shot_no_context.txt"}
"""Template files by task."""

CONCLUSION_TEMPLATE = "0shot_cot_ans.txt"
"""Template that asks for the letter after the reasoning; it leaves the text out."""

EXTRAS = {"id", "domain", "difficulty", "length"}
BUFFER_BYTES = 1 << 20
"""Bytes of the data file that are read at a time.

Rows have up to several megabytes of text: with the 64 KiB that ijson reads by default, 520 MB took
30 seconds instead of 6.
"""


class ChoiceQuestion(BaseModel):
    """Row of the data: a question with four choices, on a text."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: str = Field(alias="_id")
    domain: str
    sub_domain: str
    difficulty: Literal["easy", "hard"]
    length: Literal["short", "medium", "long"]
    question: str
    choice_A: str  # noqa: N815  # as the data has it
    choice_B: str  # noqa: N815
    choice_C: str  # noqa: N815
    choice_D: str  # noqa: N815
    answer: Literal["A", "B", "C", "D"]
    context: str


class LongBenchV2Card(TaskCard):
    """Card of a task of LongBench v2.

    Attributes:
        max_new_tokens: tokens that the answer may have.
        reasoning: tokens of the reasoning before it; None for tasks without reasoning.
    """

    max_new_tokens: int
    reasoning: int | None = None


class LongBenchV2(Bench):
    """LongBench v2: accuracy in percent, with accuracies by difficulty and by length as details."""

    name: ClassVar[str] = "longbench-v2"
    card: ClassVar[type[TaskCard]] = LongBenchV2Card

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        conclusion = [CONCLUSION_TEMPLATE] if task.card.reasoning else []
        return [f"{self.name}/{file}" for file in (TEMPLATES[task.name], *conclusion, "data.json")]

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        card: LongBenchV2Card = task.card
        template = _read_template(TEMPLATES[task.name], request.data_dir)
        conclusion = None
        if card.reasoning:
            conclusion = _read_template(CONCLUSION_TEMPLATE, request.data_dir)
        # The first answer is the reasoning where there is one; the second has the letter.
        answer_tokens = card.reasoning or card.max_new_tokens
        path = assets.path_of("longbench-v2/data.json", request.data_dir)
        for index, row in enumerate(islice(questions(path), request.limit)):
            prompt = _fitted_prompt(fill_template(template, row), answer_tokens, request)
            follow_up = None
            if conclusion:
                follow_up = _conclusion(conclusion, row, card.max_new_tokens, request)
            yield Prompt(
                id=f"{index:04d}",
                ids=prompt.ids,
                max_new_tokens=answer_tokens,
                references=[row.answer],
                extras=row.model_dump(include=EXTRAS, by_alias=True),
                cut_tokens=prompt.cut_tokens,
                skip=prompt.skip,
                decoding=request.protocol.decoding,
                follow_up=follow_up,
            )

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        return longbench_metrics.choice_score(row["prediction"], row["references"][0])

    def details(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, float]:
        """Return accuracies by difficulty and length, to one decimal as upstream prints them."""
        answers = [_judged_answer(row["score"], row["extras"]) for row in rows]
        accuracies = longbench_metrics.accuracies(answers)
        del accuracies["overall"]
        return accuracies

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        """Return what the benchmark's leaderboard shows: accuracy by difficulty and by length."""
        shown: dict[str, float] = {}
        for task, score in scores.items():
            shown |= {f"{task}, {group}": value for group, value in score.details.items()}
        return shown


def _judged_answer(score: float, extras: Mapping[str, Any]) -> longbench_metrics.JudgedAnswer:
    return longbench_metrics.JudgedAnswer(score, extras["difficulty"], extras["length"])


def questions(path: Path) -> Iterator[ChoiceQuestion]:
    """Yield the rows of the data file.

    Raises:
        UserError: if the file cannot be read or is no JSON array, or a row does not fit; the
            message names file, row and field.
    """
    try:
        for number, row in enumerate(_array_items(path), 1):
            yield _question(row, f"{path}: row {number}")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _question(row: Any, where: str) -> ChoiceQuestion:
    try:
        return ChoiceQuestion.model_validate(row)
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"])) or "(whole row)"
        raise UserError(f"{where}: {field!r}: {fault['msg']}") from None


def _array_items(path: Path) -> Iterator[Any]:
    """Yield the elements of a JSON array one after another: the file has half a gigabyte."""
    count = 0
    with path.open("rb") as file:
        # ijson yields nothing for a file that holds no array, and does not say so.
        if not file.read(BUFFER_BYTES).lstrip().startswith(b"["):
            raise UserError(f"{path}: is not a JSON array; is it the official file?")
        file.seek(0)
        try:
            for item in ijson.items(file, "item", buf_size=BUFFER_BYTES, use_float=True):
                count += 1
                yield item
        except (ijson.JSONError, UnicodeDecodeError):
            raise UserError(f"{path}: row {count + 1}: is not JSON; is the file whole?") from None


def _read_template(name: str, data_dir: Path | None) -> str:
    return assets.path_of(f"longbench-v2/{name}", data_dir).read_text(encoding="utf-8")


def fill_template(template: str, row: ChoiceQuestion, reasoning: str = "") -> str:
    """Return a template with the parts of a question."""
    parts = {
        "DOC": row.context,
        "Q": row.question,
        "C_A": row.choice_A,
        "C_B": row.choice_B,
        "C_C": row.choice_C,
        "C_D": row.choice_D,
        "COT": reasoning,
    }
    # The parts are inserted one after another, as upstream does it: a text that contains the
    # placeholder of a later part gets that part.
    for placeholder, text in parts.items():
        template = template.replace(f"${placeholder}$", text.strip())
    return template


def _fitted_prompt(text: str, answer_tokens: int, request: SampleRequest) -> FittedPrompt:
    """Return the token ids of one user message, truncated as the protocol says."""
    tokenizer, protocol = request.tokenizer, request.protocol
    if protocol.truncate_as == "ids":
        return fit_prompt(
            tokenizer,
            protocol,
            Message(text),
            length=request.length,
            answer_tokens=answer_tokens,
        )
    limit = protocol.prompt_limit(request.length, answer_tokens)
    text, cut_tokens = truncate_as_text(tokenizer, text, limit)
    if protocol.chat != "none":
        before, after = template_affixes(tokenizer, "")
        text = f"{before}{text}{after}"
    return FittedPrompt(with_bos(tokenizer, encode(tokenizer, text)), cut_tokens)


def truncate_as_text(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> tuple[str, int]:
    """Return a text without its middle, and how many tokens were removed.

    Both parts are decoded at once, and a text that fits is left as it is (pred.py). Of an odd
    limit the last part has one token more.
    """
    ids = encode_with_special_tokens(tokenizer, text)
    if len(ids) <= limit:
        return text, 0
    # -limit // 2 rounds down, away from zero, exactly as in upstream's slice.
    kept = ids[: limit // 2] + ids[-limit // 2 :]
    return str(tokenizer.decode(kept, skip_special_tokens=True)), len(ids) - len(kept)


def _conclusion(
    template: str, row: ChoiceQuestion, answer_tokens: int, request: SampleRequest
) -> FollowUp:
    """Return the follow-up that asks for the letter to which the reasoning leads."""
    # The second prompt leaves the text out, as upstream's does.
    row = row.model_copy(update={"context": ""})

    def make_prompt(reasoning: str) -> Prompt:
        prompt = _fitted_prompt(fill_template(template, row, reasoning), answer_tokens, request)
        return Prompt(
            id="conclusion",
            ids=prompt.ids,
            max_new_tokens=answer_tokens,
            references=[row.answer],
            cut_tokens=prompt.cut_tokens,
            decoding=request.protocol.decoding,
        )

    return FollowUp(make_prompt, join_answers=lambda reasoning, conclusion: conclusion)
