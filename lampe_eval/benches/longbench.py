"""LongBench and LongBench-E: 21 and 13 tasks with the authors' prompts and limits.

Sources: arXiv 2308.14508 with `pred.py` and `config/` of THUDM/LongBench at 2e00731. Protocol
`lampe` follows `longbench_eval/LongBench-main/pred.py` of scar-on/LaMPE at 4e3c91f.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, with_config

# pydantic reads typing's own TypedDict only from Python 3.12 on
from typing_extensions import TypedDict

from lampe_eval import assets
from lampe_eval.benches import ready_prompts
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, Score, Task, mean_scores
from lampe_eval.errors import UserError
from lampe_eval.file_io import read_json, sha256_of_text
from lampe_eval.prompts.chat_template import Message, chat_family, template_affixes
from lampe_eval.prompts.prompt_fitting import (
    FittedPrompt,
    encode_prompt,
    fit_prompt,
    truncate_middle_as_text,
)
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode, encode_with_special_tokens
from lampe_eval.records import SampleRecord
from lampe_eval.scoring import longbench_metrics
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.texts.jsonl_rows import FaultyRow, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

TEMPLATES_FILE = "longbench/dataset2prompt.json"
ANSWER_LIMITS_FILE = "longbench/dataset2maxlen.json"


@with_config(ConfigDict(strict=True))
class LongBenchRow(TypedDict):
    """Row of the data: a question on a text."""

    input: str
    context: str
    answers: list[str]
    length: int
    all_classes: list[str] | None
    _id: str


ROW = TypeAdapter(LongBenchRow)
EXTRAS: tuple[Literal["_id", "all_classes", "length"], ...] = ("_id", "all_classes", "length")

CODE_TASKS = frozenset(longbench_metrics.CATEGORIES["code"])
# pred.py has the same list: these prompts are texts to continue, not questions to a chat model.
NO_CHAT_TASKS = CODE_TASKS | frozenset(longbench_metrics.CATEGORIES["few-shot"])


class LongBench(Bench):
    """LongBench: each task's own metric, in percent.

    Attributes:
        file_suffix: what the name of a task's data file has behind the task's name.
        english_tasks: number of tasks that the English average is over.
    """

    name: ClassVar[str] = "longbench"
    file_suffix: ClassVar[str] = ""
    english_tasks: ClassVar[int] = 16
    mirror: ClassVar[str] = "Xnhyacinth/LongBench"

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        if protocol.prompts == "ready":
            return []
        return [TEMPLATES_FILE, ANSWER_LIMITS_FILE, self._data_file(task)]

    def user_files(self, task: Task, protocol: Protocol, data_dir: Path | None) -> list[Path]:
        if protocol.prompts != "ready":
            return []
        config = f"{task.name}{self.file_suffix}"
        return ready_prompts.ready_files(task, config, data_dir)

    def rows(
        self, task: Task, request: SampleRequest
    ) -> Iterator[LongBenchRow | ready_prompts.ReadyRow | FaultyRow]:
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
    ) -> Iterator[LongBenchRow | FaultyRow]:
        path = assets.path_of(self._data_file(task), request.data_dir)
        return islice(read_rows(path, ROW.validate_python), request.limit)

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        if request.protocol.prompts == "ready":
            rows = self._ready_rows(task, request)
            columns: dict[str, str] = {name: name for name in EXTRAS}
            chat = task.name not in NO_CHAT_TASKS
            return ready_prompts.ready_samples(rows, request, columns, chat=chat)
        return self._official_samples(task, request)

    def _official_samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        template = _task_entry(TEMPLATES_FILE, task.name, str, request.data_dir)
        answer_tokens = _task_entry(ANSWER_LIMITS_FILE, task.name, int, request.data_dir)
        stop_at_newline = task.name in request.protocol.stop_at_newline
        stop_token_ids = (_newline_token(request.tokenizer),) if stop_at_newline else ()
        for index, row in enumerate(self._official_rows(task, request)):
            if isinstance(row, FaultyRow):
                yield Prompt.of_faulty_row(f"{index:04d}", row)
                continue
            prompt = _fitted_prompt(task.name, template, row, answer_tokens, request)
            yield Prompt(
                id=f"{index:04d}",
                ids=prompt.ids,
                max_new_tokens=answer_tokens,
                references=row["answers"],
                extras={key: row[key] for key in EXTRAS},
                document_sha256=sha256_of_text(row["context"]),
                cut_tokens=prompt.cut_tokens,
                skip=prompt.skip,
                stop_token_ids=stop_token_ids,
                decoding=request.protocol.decoding,
            )

    def _data_file(self, task: Task) -> str:
        return f"longbench/data.zip!/data/{task.name}{self.file_suffix}.jsonl"

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        return longbench_metrics.score(task, row["prediction"], row["references"], row["extras"])

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        values = {task: score.value for task, score in scores.items()}
        if len(values) < 2:
            return {}
        if protocol.average == "tasks":
            return {f"mean of {len(values)} tasks": longbench_metrics.flat_mean(values)}
        chinese = longbench_metrics.CHINESE & values.keys()
        english = values.keys() - longbench_metrics.CHINESE
        averages = {}
        if english:
            name = f"mean of categories, {len(english)} of {self.english_tasks} tasks"
            averages[name] = longbench_metrics.category_mean(values)
        if chinese:
            # The two code tasks count in both languages' averages.
            count = len(chinese) + len(english & CODE_TASKS)
            name = f"mean of categories, Chinese, {count} of 7 tasks"
            averages[name] = longbench_metrics.category_mean(values, chinese=True)
        return averages


class LongBenchE(LongBench):
    """LongBench-E: as many short as long texts, with scores of three bands of length as details."""

    name: ClassVar[str] = "longbench-e"
    protocols_of: ClassVar[str] = "longbench"
    file_suffix: ClassVar[str] = "_e"
    english_tasks: ClassVar[int] = 13

    def details(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, float]:
        scores = [row["score"] for row in rows]
        return longbench_metrics.by_length(scores, [row["extras"]["length"] for row in rows])

    def detail_estimates(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, Estimate]:
        lengths = [row["extras"]["length"] for row in rows]
        return mean_scores(longbench_metrics.length_bands(rows, lengths))

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        """Return the average over tasks, and in each band over the tasks with samples in it."""
        averages = super().task_averages(scores, protocol)
        by_band: dict[str, list[float]] = {}
        for score in scores.values():
            for band, value in score.details.items():
                by_band.setdefault(band, []).append(value)
        for band, values in by_band.items():
            known = [value for value in values if not math.isnan(value)]
            if known:
                averages[f"{band}, {len(known)} tasks"] = fmean(known)
        return averages


def _task_entry(file: str, task: str, kind: type[T], data_dir: Path | None) -> T:
    """Return a task's entry in one of upstream's two configuration files."""
    path = assets.path_of(file, data_dir)
    entries = read_json(path)
    value = entries.get(task) if isinstance(entries, dict) else None
    if not isinstance(value, kind):
        raise UserError(f"{path}: has no {task!r}; is it the official file?")
    return value


def _fitted_prompt(
    task: str, template: str, row: Mapping[str, Any], answer_tokens: int, request: SampleRequest
) -> FittedPrompt:
    tokenizer, protocol = request.tokenizer, request.protocol
    chat = task not in NO_CHAT_TASKS
    if protocol.truncate_as == "ids":
        message = Message(template.format(**row))
        return fit_prompt(
            tokenizer,
            protocol,
            message,
            length=request.length,
            answer_tokens=answer_tokens,
            chat=chat,
        )
    if protocol.prompts == "lampe":
        return _lampe_prompt(task, template, row, request)
    limit = protocol.prompt_limit(request.length, answer_tokens)
    # pred.py cuts the prompt before it is wrapped, so the chat markers come on top of the limit.
    text, cut_tokens = truncate_middle_as_text(tokenizer, template.format(**row), limit)
    before, after = official_affixes(tokenizer) if chat else ("", "")
    # The tokenizer adds its BOS token as in pred.py, also to a chat template that has one.
    return FittedPrompt(encode_prompt(tokenizer, protocol, before, text, after), cut_tokens)


def official_affixes(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return the chat markers that the authors put before and after a prompt."""
    # `build_chat` in pred.py types Llama-2's markers without spaces; other models get their chat
    # template.
    if chat_family(tokenizer) == "llama2":
        return "[INST]", "[/INST]"
    return template_affixes(tokenizer, "")


def _lampe_prompt(
    task: str, template: str, row: Mapping[str, Any], request: SampleRequest
) -> FittedPrompt:
    """Return the prompt of LaMPE's pred.py, which treats its own method differently from others.

    Markers are typed into the text, so all of it is encoded with special tokens, data included: the
    published numbers are of these ids.
    """
    family = chat_family(request.tokenizer)
    if family == "llama3":
        template = llama3_template(task, template)
    text = template.format(**row)
    cut_tokens = 0
    # Prompts for LaMPE are truncated in narrativeqa alone, and special tokens survive that. Prompts
    # for other methods are truncated wherever they are too long, and lose the chat markers that are
    # special tokens.
    if not request.release_prompts or task == "narrativeqa":
        text, cut_tokens = truncate_middle_as_text(
            request.tokenizer,
            text,
            request.protocol.prompt_limit(request.length, 0),
            is_data=False,
            keep_special_tokens=request.release_prompts,
        )
    if task not in NO_CHAT_TASKS:
        if family == "llama2":
            text = f"[INST]{text}[/INST]"
        elif family == "mistral":
            # With an EOS token inside the prompt, as LaMPE's ``build_chat`` types it.
            text = f"<s>[INST] {text} [/INST]</s>"
    # The text begins with a typed BOS token, and the tokenizer adds a second one.
    return FittedPrompt(encode_with_special_tokens(request.tokenizer, text), cut_tokens)


def llama3_template(task: str, template: str) -> str:
    """Return LaMPE's template for Llama-3, made from the official template of a task.

    The first line becomes the system message and the last line the beginning of the answer; blank
    lines become line breaks. For code tasks the code is the user's message, and the answer begins
    with everything that the official template has after it. LaMPE's `dataset2prompt_llama3.json`
    holds exactly these templates; a test compares their hash.
    """
    template = template.replace("\n\n", "\n")
    first, _, rest = template.partition("\n")
    if task in CODE_TASKS:
        middle = "{context}{input}"
        last = rest.rpartition("}")[2].lstrip("\n")
    else:
        middle, _, last = rest.rpartition("\n")
    # One newline after a header, where Llama 3's own chat template has two.
    system, user, assistant = (
        f"<|start_header_id|>{role}<|end_header_id|>\n" for role in ("system", "user", "assistant")
    )
    end = "<|eot_id|>"
    return f"<|begin_of_text|>{system}{first}{end}{user}{middle}{end}{assistant}{last}"


def _newline_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the last token of an encoded line break, which pred.py takes as a stop token."""
    return encode(tokenizer, "\n")[-1]
