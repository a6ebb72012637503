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

from pydantic import BaseModel, ConfigDict, Field

from lampe_eval import assets
from lampe_eval.benches import ready_prompts
from lampe_eval.benches.bench import (
    Bench,
    FollowUp,
    Prompt,
    SampleRequest,
    Score,
    Task,
    mean_scores,
)
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text
from lampe_eval.json_arrays import array_items
from lampe_eval.prompts.chat_template import Message, template_affixes
from lampe_eval.prompts.prompt_fitting import FittedPrompt, encode_prompt, fit_prompt
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode_with_special_tokens
from lampe_eval.records import SampleRecord
from lampe_eval.scoring import longbench_metrics
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.texts.jsonl_rows import (
    NO_TEXT,
    FaultyRow,
    is_json_text,
    parse_value,
    with_one_good_row,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATES = {"direct": "0shot.txt", "cot": "0shot_cot.txt", "no-context": "0shot_no_context.txt"}
"""Template files by task."""

CONCLUSION_TEMPLATE = "0shot_cot_ans.txt"
"""Template that asks for the letter after the reasoning; it leaves the text out."""

EXTRAS = {"id", "domain", "difficulty", "length"}


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
    mirror: ClassVar[str] = "simonjegou/LongBench-v2"

    def has_task(self, task: Task, protocol: Protocol) -> bool:
        return protocol.prompts != "ready" or task.name == "direct"

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        if protocol.prompts == "ready":
            return []
        conclusion = [CONCLUSION_TEMPLATE] if task.card.reasoning else []
        return [f"{self.name}/{file}" for file in (TEMPLATES[task.name], *conclusion, "data.json")]

    def user_files(self, task: Task, protocol: Protocol, data_dir: Path | None) -> list[Path]:
        if protocol.prompts != "ready":
            return []
        return ready_prompts.ready_files(task, "0shot", data_dir)

    def rows(
        self, task: Task, request: SampleRequest
    ) -> Iterator[ChoiceQuestion | ready_prompts.ReadyRow | FaultyRow]:
        if request.protocol.prompts == "ready":
            return self._ready_rows(task, request)
        return self._official_rows(request)

    def _ready_rows(
        self, task: Task, request: SampleRequest
    ) -> Iterator[ready_prompts.ReadyRow | FaultyRow]:
        files = self.user_files(task, request.protocol, request.data_dir)
        return ready_prompts.ready_rows(self.mirror, files, request.limit)

    def _official_rows(self, request: SampleRequest) -> Iterator[ChoiceQuestion | FaultyRow]:
        path = assets.path_of("longbench-v2/data.json", request.data_dir)
        return islice(questions(path), request.limit)

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        if request.protocol.prompts == "ready":
            rows = self._ready_rows(task, request)
            columns = {"_id": "_id"} | {name: name for name in EXTRAS - {"id"}}
            return ready_prompts.ready_samples(rows, request, columns)
        return self._official_samples(task, request)

    def _official_samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        card: LongBenchV2Card = task.card
        template = _read_template(TEMPLATES[task.name], request.data_dir)
        conclusion = None
        if card.reasoning:
            conclusion = _read_template(CONCLUSION_TEMPLATE, request.data_dir)
        # The first answer is the reasoning where there is one; the second has the letter.
        answer_tokens = card.reasoning or card.max_new_tokens
        for index, row in enumerate(self._official_rows(request)):
            if isinstance(row, FaultyRow):
                yield Prompt.of_faulty_row(f"{index:04d}", row)
                continue
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
                document_sha256=sha256_of_text(row.context),
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

    def detail_estimates(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, Estimate]:
        groups: dict[str, list[SampleRecord]] = {}
        for row in rows:
            for key in ("difficulty", "length"):
                groups.setdefault(row["extras"][key], []).append(row)
        return mean_scores(groups)

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        """Return what the benchmark's leaderboard shows: accuracy by difficulty and by length."""
        shown: dict[str, float] = {}
        for task, score in scores.items():
            shown |= {f"{task}, {group}": value for group, value in score.details.items()}
        return shown


def _judged_answer(score: float, extras: Mapping[str, Any]) -> longbench_metrics.JudgedAnswer:
    return longbench_metrics.JudgedAnswer(score, extras["difficulty"], extras["length"])


def questions(path: Path) -> Iterator[ChoiceQuestion | FaultyRow]:
    """Yield the rows of the data file.

    Raises:
        UserError: if the file cannot be read or is no JSON array, or no row is without fault.
    """
    return with_one_good_row(_parsed_items(path), path)


def _parsed_items(path: Path) -> Iterator[ChoiceQuestion | FaultyRow]:
    try:
        for number, (source, value) in enumerate(array_items(path), 1):
            location = f"{path}: row {number}"
            if is_json_text(source, value):
                yield parse_value(value, location, ChoiceQuestion.model_validate)
            else:
                yield FaultyRow(location, NO_TEXT)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


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
    before, after = template_affixes(tokenizer, "") if protocol.chat != "none" else ("", "")
    return FittedPrompt(encode_prompt(tokenizer, protocol, before, text, after), cut_tokens)


def truncate_as_text(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> tuple[str, int]:
    """Return a text without its middle, and how many tokens were removed.

    Both parts are decoded at once, and a text that fits is left as it is (pred.py). Of an odd
    limit the last part has one token more.
    """
    ids = encode_with_special_tokens(tokenizer, text, is_data=True)
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
