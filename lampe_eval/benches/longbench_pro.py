"""LongBench Pro: 23 kinds of questions on English and Chinese texts of 8k to 256k tokens.

Each kind is a task with its metric; the two kinds of summaries are left out, since an embedding
model compares them. Answers are greedy and given once, where upstream takes the mean of three that
are sampled.

Source: `LongBench-Pro` of caskcsg/longcontext at 88fbeb8. No fixed version of the data is known, so
that they are read from a folder of the user's.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from lampe_eval import assets
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, Score, Task, mean_scores
from lampe_eval.benches.longbench_v2 import truncate_as_text
from lampe_eval.cards import TaskCard
from lampe_eval.file_io import sha256_of_text
from lampe_eval.prompts.chat_template import Message, template_affixes
from lampe_eval.prompts.prompt_fitting import FittedPrompt, encode_prompt, fit_prompt
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.records import SampleRecord
from lampe_eval.scoring import longbench_pro_metrics
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.texts.jsonl_rows import FaultyRow, read_container

DATA_FILE = "longbench-pro/longbench_pro.json"
EXTRAS = {"id", "language", "token_length", "difficulty", "contextual_requirement"}


class LongBenchProCard(TaskCard):
    """Card of a task.

    Attributes:
        kind: number of the kind of question, such as "T1.1".
        upstream_metric: name of its metric in upstream's code.
        max_new_tokens: tokens that the answer may have.
    """

    kind: str
    upstream_metric: str
    max_new_tokens: int


class LongBenchProRow(BaseModel):
    """Row of the data: a question on a text, and the right lines."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: str | int
    context: str
    language: Literal["English", "Chinese"]
    token_length: str
    secondary_task: str
    contextual_requirement: Literal["Full", "Partial"]
    question_nonthinking: str
    answer: list[str]
    difficulty: str


class LongBenchPro(Bench):
    """LongBench Pro: each task's own metric, in percent, with scores by language and size."""

    name: ClassVar[str] = "longbench-pro"
    card: ClassVar[type[TaskCard]] = LongBenchProCard

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        return [DATA_FILE]

    def rows(self, task: Task, request: SampleRequest) -> Iterator[LongBenchProRow | FaultyRow]:
        path = assets.path_of(DATA_FILE, request.data_dir)
        rows = read_container(path, LongBenchProRow.model_validate)
        return islice((row for row in rows if _is_of_kind(row, task.card.kind)), request.limit)

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        card: LongBenchProCard = task.card
        for index, row in enumerate(self.rows(task, request)):
            if isinstance(row, FaultyRow):
                yield Prompt.of_faulty_row(f"{index:04d}", row)
                continue
            text = f"{row.context}\n\n\n\n{row.question_nonthinking}"
            prompt = _fitted_prompt(text, card.max_new_tokens, request)
            yield Prompt(
                id=f"{index:04d}",
                ids=prompt.ids,
                max_new_tokens=card.max_new_tokens,
                references=row.answer,
                extras=row.model_dump(include=EXTRAS) | {"metric": card.upstream_metric},
                document_sha256=sha256_of_text(row.context),
                cut_tokens=prompt.cut_tokens,
                skip=prompt.skip,
            )

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        metric = row["extras"]["metric"]
        return longbench_pro_metrics.score(metric, row["prediction"], row["references"])

    def detail_estimates(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, Estimate]:
        """Return the mean scores of each language and of each size that texts are made for."""
        groups: dict[str, list[SampleRecord]] = {}
        for row in rows:
            for key in ("language", "token_length"):
                groups.setdefault(row["extras"][key], []).append(row)
        return mean_scores(groups)

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        if len(scores) < 2:
            return {}
        # Upstream averages over questions, so that tasks of more questions weigh more.
        weights = [score.n for score in scores.values()]
        mean = fmean([score.value for score in scores.values()], weights=weights)
        return {f"mean of questions of {len(scores)} of 25 tasks": mean}


def _is_of_kind(row: LongBenchProRow | FaultyRow, kind: str) -> bool:
    """Return whether a row is of a kind; a faulty one is of the kind that it names, if any."""
    name = row.secondary_task if isinstance(row, LongBenchProRow) else _named_kind(row)
    return name.split(" ")[0] == kind


def _named_kind(row: FaultyRow) -> str:
    return str(row.value.get("secondary_task")) if isinstance(row.value, dict) else ""


def _fitted_prompt(text: str, answer_tokens: int, request: SampleRequest) -> FittedPrompt:
    """Return the token ids of one user message, truncated as the protocol says."""
    tokenizer, protocol = request.tokenizer, request.protocol
    if protocol.truncate_as == "ids":
        return fit_prompt(
            tokenizer, protocol, Message(text), length=request.length, answer_tokens=answer_tokens
        )
    limit = protocol.prompt_limit(request.length, answer_tokens)
    text, cut_tokens = truncate_as_text(tokenizer, text.strip(), limit)
    before, after = template_affixes(tokenizer, "")
    return FittedPrompt(encode_prompt(tokenizer, protocol, before, text, after), cut_tokens)
