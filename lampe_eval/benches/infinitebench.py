"""InfiniteBench: 12 tasks on texts of 100 thousand tokens and more.

Sources: arXiv 2402.13718 with `src/prompt.py`, `src/eval_utils.py` and `src/eval_yarn_mistral.py`
of OpenBMB/InfiniteBench at 88b3daa. Protocol `lampe` follows
`InfiniteBench/src/test_infbench_llama_cw.py` of scar-on/LaMPE at 4e3c91f, which runs seven tasks.

Every protocol uses the authors' prompts for models without a chat template
(`yarn_mistral_templates`), which end in the first words of the answer. Many answers may have only 3
to 12 tokens, so a model that begins in its own way is cut off before it says anything. Under
`fair` the chat template goes around the question and the same first words begin the assistant's
answer. All models read the same words, and no score depends on how a model likes to begin.

`fair` scores as LaMPE's and STRING's authors do. The official scorer gives 0 to every answer of
kv_retrieval, because the labels of the pinned data are lists; in code_debug 0 to the bare letter,
which is how its prompt is completed; and in longdialogue_qa_eng 0 to any name of two words. The
price is that scores under `fair` cannot be compared with published ones, which belong to prompts of
128K tokens in any case. `official` keeps the official scorer, with its 0 for kv_retrieval.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from lampe_eval import assets
from lampe_eval.benches import ready_prompts
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, Score, Task
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import FittedPrompt, encode_prompt, fit_prompt
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode_with_special_tokens
from lampe_eval.records import SampleRecord
from lampe_eval.scoring import infinitebench_metrics
from lampe_eval.texts.jsonl_rows import FaultyRow, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LETTERS = "ABCD"

# Tasks whose label is the text of an option and its letter.
CHOICE_TASKS = frozenset({"code_debug", "longbook_choice_eng"})

# How create_prompt of eval_utils.py finds the call and the number that a row asks for.
FUNCTION_CALL = re.compile(r"func_\d+\(-?\d+\)")
NUMBER_TO_FIND = re.compile(r"The .+ of")

# The last line or sentence of a template, unless it ends in a placeholder.
ANSWER_PREFIX = re.compile(r"(?:\n+|(?<=\.) )(?:(?!\. )[^\n])*[^\n}]$")


Answer = str | int | float


class InfiniteBenchRow(BaseModel):
    """Row of the data: a question on a text; those that are a choice have options."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: int | str
    context: str
    input: str
    answer: Answer | list[Answer]


class ChoiceRow(InfiniteBenchRow):
    """Row of a choice between four options."""

    options: list[str] = Field(min_length=len(LETTERS), max_length=len(LETTERS))


@dataclass(frozen=True)
class InfiniteBenchQuestion:
    """Question that a row asks.

    Attributes:
        id: the row's own number.
        fields: values of the template's placeholders.
        label: what the answer is scored against.
        document_sha256: hash of the text that it is about; several questions are about one book.
    """

    id: int | str
    fields: Mapping[str, str]
    label: Any
    document_sha256: str


class InfiniteBenchCard(TaskCard):
    """Card of a task of InfiniteBench.

    Attributes:
        max_new_tokens: tokens that the answer may have.
    """

    max_new_tokens: int


class InfiniteBench(Bench):
    """InfiniteBench: each task's own metric, in percent."""

    name: ClassVar[str] = "infinitebench"
    card: ClassVar[type[TaskCard]] = InfiniteBenchCard
    mirror: ClassVar[str] = "MaxJeblick/InfiniteBench"

    def has_task(self, task: Task, protocol: Protocol) -> bool:
        # Of a choice the mirror has the letter alone, and the scorers need its text as well.
        is_scored = protocol.prompts != "ready" or task.name not in CHOICE_TASKS
        return is_scored and super().has_task(task, protocol)

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        if protocol.prompts == "ready":
            return []
        # Only math_find builds a part of its prompt from sentences in upstream's code.
        code = ["infinitebench/eval_utils.py"] if task.name == "math_find" else []
        return ["infinitebench/prompt.py", *code, f"infinitebench/{task.name}.jsonl"]

    def user_files(self, task: Task, protocol: Protocol, data_dir: Path | None) -> list[Path]:
        if protocol.prompts != "ready":
            return []
        return ready_prompts.ready_files(task, task.name, data_dir)

    def rows(
        self, task: Task, request: SampleRequest
    ) -> Iterator[InfiniteBenchQuestion | ready_prompts.ReadyRow | FaultyRow]:
        if request.protocol.prompts == "ready":
            return self._ready_rows(task, request)
        return self._official_rows(task, request)

    def _ready_rows(
        self, task: Task, request: SampleRequest
    ) -> Iterator[ready_prompts.ReadyRow | FaultyRow]:
        files = self.user_files(task, request.protocol, request.data_dir)
        return ready_prompts.ready_rows(self.mirror, files, request.limit)

    def _official_rows(
        self, task: Task, request: SampleRequest
    ) -> Iterator[InfiniteBenchQuestion | FaultyRow]:
        path = assets.path_of(f"infinitebench/{task.name}.jsonl", request.data_dir)
        parse = partial(_parse_question, task.name, request.data_dir)
        return islice(read_rows(path, parse), request.limit)

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        if request.protocol.prompts == "ready":
            rows = self._ready_rows(task, request)
            return ready_prompts.ready_samples(rows, request, {})
        return self._official_samples(task, request)

    def _official_samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        card: InfiniteBenchCard = task.card
        template = _template(task.name, request.data_dir)
        for index, question in enumerate(self._official_rows(task, request)):
            if isinstance(question, FaultyRow):
                yield Prompt.of_faulty_row(f"{index:04d}", question)
                continue
            prompt = _fitted_prompt(template, question.fields, card.max_new_tokens, request)
            yield Prompt(
                id=f"{index:04d}",
                ids=prompt.ids,
                max_new_tokens=card.max_new_tokens,
                references=question.label,
                extras={"id": question.id},
                document_sha256=question.document_sha256,
                cut_tokens=prompt.cut_tokens,
                skip=prompt.skip,
                decoding=request.protocol.decoding,
            )

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        scorer: infinitebench_metrics.Scorer
        scorer = "lampe" if protocol.scorer == "lampe" else "official"
        return infinitebench_metrics.score(
            task, row["prediction"], row["references"], row["extras"], scorer
        )

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        if len(scores) < 2:
            return {}
        return {f"mean of {len(scores)} tasks": fmean(score.value for score in scores.values())}


def _template(task: str, data_dir: Path | None) -> str:
    path = assets.path_of("infinitebench/prompt.py", data_dir)
    template = assets.literal(path, "yarn_mistral_templates").get(task)
    if not isinstance(template, str):
        raise UserError(f"{path}: has no prompt for {task!r}; is it the official file?")
    return template


def _parse_question(task: str, data_dir: Path | None, value: Any) -> InfiniteBenchQuestion:
    """Return the question of a row.

    Raises:
        ValueError: for a row that lacks what its task needs.
    """
    schema = ChoiceRow if task in CHOICE_TASKS else InfiniteBenchRow
    row = schema.model_validate(value)
    fields = _template_fields(task, row, data_dir)
    return InfiniteBenchQuestion(row.id, fields, _label(row), sha256_of_text(row.context))


def _template_fields(task: str, row: InfiniteBenchRow, data_dir: Path | None) -> dict[str, str]:
    """Return the values of a template's placeholders, as create_prompt of eval_utils.py does.

    Raises:
        ValueError: for a row that lacks what its task's template needs.
    """
    fields = {"context": row.context, "input": row.input, "question": row.input}
    if isinstance(row, ChoiceRow):
        for letter, option in zip(LETTERS, row.options, strict=True):
            fields[f"OPTION_{letter}"] = option
    elif task == "code_run":
        call = _first_match(FUNCTION_CALL, row.input, "a call")
        fields |= {"func": call.partition("(")[0], "func_call": call}
    elif task == "math_find":
        match = _first_match(NUMBER_TO_FIND, row.input, "what to find")
        before, after = _math_find_question(data_dir)
        # Upstream drops the last three characters of the match, which are " of".
        fields["prefix"] = f"{before}{match.lower().removesuffix(' of')}{after}"
    return fields


def _first_match(pattern: re.Pattern[str], text: str, description: str) -> str:
    match = pattern.search(text)
    if not match:
        raise ValueError(f"the input does not say {description}")
    return match[0]


def _math_find_question(data_dir: Path | None) -> tuple[str, str]:
    """Return the parts of math_find's question before and after the number to find."""
    path = assets.path_of("infinitebench/eval_utils.py", data_dir)
    # Upstream builds the question in an f-string; it is the only string of `create_prompt` that
    # ends in a question mark.
    texts = assets.strings(path, "create_prompt")
    ends = [index for index, text in enumerate(texts) if text.endswith("?")]
    if len(ends) != 1 or ends[0] == 0:
        raise UserError(
            f"{path}: has {len(ends)} questions in 'create_prompt', expected 1; "
            "is it the pinned file?"
        )
    (end,) = ends
    return texts[end - 1], texts[end]


def _label(row: InfiniteBenchRow) -> Any:
    """Return the answer as the data has it; for a choice, the option's text and its letter.

    Raises:
        ValueError: for a choice that is none of the options.
    """
    answer = row.answer
    if not isinstance(row, ChoiceRow):
        return answer
    # The data has the text of an option, alone or in a list, or text and letter.
    parts = answer if isinstance(answer, list) else [answer]
    if len(parts) == 2 and parts[1] in list(LETTERS):
        return parts
    if len(parts) != 1 or parts[0] not in row.options:
        raise ValueError(f"the answer {answer!r} is none of the options")
    return [parts[0], LETTERS[row.options.index(str(parts[0]))]]


def _fitted_prompt(
    template: str, fields: Mapping[str, str], answer_tokens: int, request: SampleRequest
) -> FittedPrompt:
    tokenizer, protocol = request.tokenizer, request.protocol
    if protocol.truncate_as == "ids":
        question, answer_prefix = split_template(template)
        message = Message(question.format(**fields), answer_prefix=answer_prefix.format(**fields))
        return fit_prompt(
            tokenizer, protocol, message, length=request.length, answer_tokens=answer_tokens
        )
    limit = protocol.prompt_limit(request.length, answer_tokens)
    text, cut_tokens = truncate_as_text(tokenizer, template.format(**fields), limit)
    return FittedPrompt(encode_prompt(tokenizer, protocol, "", text, ""), cut_tokens)


def split_template(template: str) -> tuple[str, str]:
    """Split a template into the question and the first words of the answer, if it has any.

    The first words keep the white space before them. They are the last line or sentence, unless
    that ends in a placeholder.
    """
    match = ANSWER_PREFIX.search(template)
    return (template[: match.start()], match[0]) if match else (template, "")


def truncate_as_text(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> tuple[str, int]:
    """Return a text without its middle, and how many tokens were removed."""
    ids = encode_with_special_tokens(tokenizer, text, is_data=True)
    half = limit // 2
    # Unlike LongBench's script, those of InfiniteBench and LaMPE decode both halves at once, and
    # decode a text that fits as well; so the text always loses its BOS token.
    kept = ids if len(ids) <= limit else ids[:half] + ids[len(ids) - half :]
    return str(tokenizer.decode(kept, skip_special_tokens=True)), len(ids) - len(kept)
