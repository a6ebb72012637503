"""LongBench v2: 503 questions with four choices, on texts of up to two million words.

Answers are greedy, where upstream draws them at temperature 0.1, so that a run can be repeated; and an answer that is
empty counts as wrong, where upstream leaves its question out.

Source: arXiv 2412.15204 with ``pred.py``, ``result.py`` and ``prompts/`` of THUDM/LongBench at 2e00731.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import ijson  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import PreTrainedTokenizerBase

from lampe_eval import assets
from lampe_eval.benches.bench import Bench, FollowUp, Prompt, SampleRequest, SampleRow, Score, Task
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message, template_affixes
from lampe_eval.prompts.prompt_fitting import FittedPrompt, fit_prompt
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode, encode_with_special_tokens, with_bos
from lampe_eval.scoring import longbench_metrics

TEMPLATES = {"direct": "0shot.txt", "cot": "0shot_cot.txt", "no-context": "0shot_no_context.txt"}
CONCLUSION = "0shot_cot_ans.txt"
"""What asks for the letter after the reasoning; it leaves the text out."""

EXTRAS = {"id", "domain", "difficulty", "length"}
BUFFER_BYTES = 1 << 20
"""Bytes of the data file that are read at a time.

Rows have up to several megabytes of text: with the 64 KiB that ijson reads by default, 520 MB took
30 seconds instead of 6.
"""


class Question(BaseModel):
    """A row of the data."""

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
    """A task of LongBench v2.

    Attributes:
        max_new_tokens: room for the answer.
        reasoning: room for the reasoning before it, where the task asks for one.
    """

    max_new_tokens: int
    reasoning: int | None = None


class LongBenchV2(Bench):
    """Accuracy in percent; by difficulty and by length beside it."""

    name: ClassVar[str] = "longbench-v2"
    card: ClassVar[type[TaskCard]] = LongBenchV2Card

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        templates = [TEMPLATES[task.name], *([CONCLUSION] if task.card.reasoning else [])]
        return [f"{self.name}/{file}" for file in (*templates, "data.json")]

    def samples(self, task: Task, draw: SampleRequest) -> Iterator[Prompt]:
        template = _template(TEMPLATES[task.name], draw.data_dir)
        card: LongBenchV2Card = task.card
        conclusion = _template(CONCLUSION, draw.data_dir) if card.reasoning else None
        answer = card.reasoning or card.max_new_tokens
        path = assets.path_of("longbench-v2/data.json", draw.data_dir)
        for index, row in enumerate(islice(questions(path), draw.limit)):
            prompt = _fitted(filled(template, row), answer, draw)
            yield Prompt(
                f"{index:04d}", prompt.ids, answer, [row.answer], row.model_dump(include=EXTRAS, by_alias=True),
                cut=prompt.cut, skip=prompt.skip, decoding=draw.protocol.decoding,
                follow_up=_conclude(conclusion, row, card.max_new_tokens, draw) if conclusion else None,
            )  # fmt: skip

    def score(self, task: str, row: SampleRow, protocol: Protocol) -> float:
        return longbench_metrics.credit(row["prediction"], row["references"][0])

    def details(
        self, task: Task, rows: Sequence[SampleRow], protocol: Protocol
    ) -> dict[str, float]:
        """To one decimal, as upstream prints them."""
        found = longbench_metrics.report([_verdict(row["score"], row["extras"]) for row in rows])
        return {name: value for name, value in found.items() if name != "overall"}

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        """Not averages, but what its leaderboard shows: accuracy by difficulty and by length."""
        return {
            f"{task}, {part}": value
            for task, score in scores.items()
            for part, value in score.details.items()
        }


def _verdict(credit: float, extras: Mapping[str, Any]) -> longbench_metrics.Verdict:
    return longbench_metrics.Verdict(credit, extras["difficulty"], extras["length"])


def questions(path: Path) -> Iterator[Question]:
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


def _question(row: Any, where: str) -> Question:
    try:
        return Question.model_validate(row)
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


def _template(name: str, data_dir: Path | None) -> str:
    return assets.path_of(f"longbench-v2/{name}", data_dir).read_text(encoding="utf-8")


def filled(template: str, row: Question, reasoning: str = "") -> str:
    """A template with a question's parts, put in one after another, so that a text may hold marks of later ones."""
    parts = {"DOC": row.context, "Q": row.question, "C_A": row.choice_A, "C_B": row.choice_B}
    parts |= {"C_C": row.choice_C, "C_D": row.choice_D, "COT": reasoning}
    for mark, text in parts.items():
        template = template.replace(f"${mark}$", text.strip())
    return template


def _fitted(text: str, answer: int, draw: SampleRequest) -> FittedPrompt:
    """The tokens of one turn of the user."""
    if draw.protocol.cut == "ids":
        return fit_prompt(
            draw.tokenizer, draw.protocol, Message(text), length=draw.length, answer=answer
        )
    limit = draw.protocol.limit(draw.length, answer)
    text, cut = shortened(draw.tokenizer, text, limit)
    before, after = (
        template_affixes(draw.tokenizer, "") if draw.protocol.chat != "none" else ("", "")
    )
    return FittedPrompt(
        with_bos(draw.tokenizer, encode(draw.tokenizer, f"{before}{text}{after}")), cut
    )


def shortened(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> tuple[str, int]:
    """A text without its middle, decoded once as a whole, and how many tokens were taken out.

    Of an odd limit the last part has the token more, since ``-limit // 2`` rounds away from zero.
    """
    ids = encode_with_special_tokens(tokenizer, text)
    if len(ids) <= limit:
        return text, 0
    kept = ids[: limit // 2] + ids[-limit // 2 :]
    return str(tokenizer.decode(kept, skip_special_tokens=True)), len(ids) - len(kept)


def _conclude(template: str, row: Question, answer: int, draw: SampleRequest) -> FollowUp:
    """Asks for the letter that the reasoning comes to, without the text; the reasoning itself is not scored."""
    row = row.model_copy(update={"context": ""})

    def ask(reasoning: str) -> Prompt:
        prompt = _fitted(filled(template, row, reasoning), answer, draw)
        return Prompt(
            "conclusion",
            prompt.ids,
            answer,
            [row.answer],
            cut=prompt.cut,
            decoding=draw.protocol.decoding,
        )

    return FollowUp(ask, lambda _, conclusion: conclusion)
