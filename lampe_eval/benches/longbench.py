"""LongBench and LongBench-E: 21 and 13 tasks with the authors' prompts and limits.

Sources: arXiv 2308.14508 with ``pred.py`` and ``config/`` of THUDM/LongBench at 2e00731; protocol ``lampe`` is
``longbench_eval/LongBench-main/pred.py`` of scar-on/LaMPE at 4e3c91f.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, TypeVar

from transformers import PreTrainedTokenizerBase

from lampe_eval import assets
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, SampleRow, Score, Task
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message, chat_family, template_affixes
from lampe_eval.prompts.prompt_fitting import FittedPrompt, fit_prompt, truncate_middle_as_text
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode, encode_with_special_tokens
from lampe_eval.scoring import longbench_metrics
from lampe_eval.texts.jsonl_rows import RowSchema, read_rows

T = TypeVar("T")

PROMPTS = "longbench/dataset2prompt.json"
LIMITS = "longbench/dataset2maxlen.json"
SCHEMA: RowSchema = {
    "input": str,
    "context": str,
    "answers": list,
    "length": int,
    "all_classes": (list, type(None)),
    "_id": str,
}

BARE = frozenset(
    task for kind in ("few-shot", "code") for task in longbench_metrics.CATEGORIES[kind]
)
"""Tasks whose prompts are no chat: they go on, they do not ask."""


class LongBench(Bench):
    """Each task's own metric, in percent."""

    name: ClassVar[str] = "longbench"
    suffix: ClassVar[str] = ""
    english: ClassVar[int] = 16

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        return [PROMPTS, LIMITS, self._rows(task)]

    def samples(self, task: Task, draw: SampleRequest) -> Iterator[Prompt]:
        template, answer = _prompt_and_limit(task.name, draw.data_dir)
        path = assets.path_of(self._rows(task), draw.data_dir)
        stops = (_newline(draw.tokenizer),) if task.name in draw.protocol.first_line else ()
        for index, row in enumerate(islice(read_rows(path, SCHEMA), draw.limit)):
            prompt = _prompt(task.name, template, row, answer, draw)
            extras = {"_id": row["_id"], "all_classes": row["all_classes"], "length": row["length"]}
            yield Prompt(
                f"{index:04d}", prompt.ids, answer, row["answers"], extras, cut=prompt.cut, skip=prompt.skip,
                stops=stops, decoding=draw.protocol.decoding,
            )  # fmt: skip

    def _rows(self, task: Task) -> str:
        return f"longbench/data.zip!/data/{task.name}{self.suffix}.jsonl"

    def score(self, task: str, row: SampleRow, protocol: Protocol) -> float:
        return longbench_metrics.score(task, row["prediction"], row["references"], row["extras"])

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        values = {task: score.value for task, score in scores.items()}
        if len(values) < 2:
            return {}
        if protocol.average == "tasks":
            return {f"mean of {len(values)} tasks": longbench_metrics.flat_mean(values)}
        chinese = longbench_metrics.CHINESE & values.keys()
        english = values.keys() - longbench_metrics.CHINESE
        code = len(english & {*longbench_metrics.CATEGORIES["code"]})
        means = {}
        if english:
            means[f"mean of categories, {len(english)} of {self.english} tasks"] = (
                longbench_metrics.category_mean(values)
            )
        if chinese:
            name = f"mean of categories, Chinese, {len(chinese) + code} of 7 tasks"
            means[name] = longbench_metrics.category_mean(values, chinese=True)
        return means


class LongBenchE(LongBench):
    """LongBench with as many short as long texts; the scores of three bands of length beside the mean."""

    name: ClassVar[str] = "longbench-e"
    protocols_of: ClassVar[str] = "longbench"
    suffix: ClassVar[str] = "_e"
    english: ClassVar[int] = 13

    def details(
        self, task: Task, rows: Sequence[SampleRow], protocol: Protocol
    ) -> dict[str, float]:
        return longbench_metrics.by_length(
            [row["score"] for row in rows], [row["extras"]["length"] for row in rows]
        )

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        whole = super().task_averages(scores, protocol)
        bands = dict.fromkeys(band for score in scores.values() for band in score.details)
        found = {
            band: [value for s in scores.values() if not math.isnan(value := s.details[band])]
            for band in bands
        }
        return whole | {
            f"{band}, {len(values)} tasks": fmean(values)
            for band, values in found.items()
            if values
        }


def _prompt_and_limit(task: str, data_dir: Path | None) -> tuple[str, int]:
    """A task's template and the most tokens of its answer, from the official files."""
    return _entry(PROMPTS, task, str, data_dir), _entry(LIMITS, task, int, data_dir)


def _entry(file: str, task: str, kind: type[T], data_dir: Path | None) -> T:
    path = assets.path_of(file, data_dir)
    value = json.loads(path.read_text(encoding="utf-8")).get(task)
    if not isinstance(value, kind):
        raise UserError(f"{path}: has no {task!r}; is it the official file?")
    return value


def _prompt(
    task: str, template: str, row: Mapping[str, Any], answer: int, draw: SampleRequest
) -> FittedPrompt:
    protocol, chat = draw.protocol, task not in BARE
    if protocol.cut == "ids":
        message = Message(template.format(**row))
        return fit_prompt(
            draw.tokenizer, protocol, message, length=draw.length, answer=answer, chat=chat
        )
    if protocol.prompts == "lampe":
        return _lampe_prompt(task, template, row, draw)
    limit = protocol.limit(draw.length, answer)
    text, cut = truncate_middle_as_text(draw.tokenizer, template.format(**row), limit)
    return FittedPrompt(
        encode_with_special_tokens(draw.tokenizer, wrapped(draw.tokenizer, text) if chat else text),
        cut,
    )


def wrapped(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A prompt as the authors wrap it: Llama-2's marks without spaces, other models' chat template."""
    if chat_family(tokenizer) == "llama2":
        return f"[INST]{text}[/INST]"
    before, after = template_affixes(tokenizer, "")
    return f"{before}{text}{after}"


def _lampe_prompt(
    task: str, template: str, row: Mapping[str, Any], draw: SampleRequest
) -> FittedPrompt:
    """LaMPE's own prompt. Its marks of turns are part of the text, so the tokenizer adds a second begin of text.

    What LaMPE reads is cut for narrativeqa alone, special tokens kept; what other methods read is cut wherever it is
    too long, and that takes the marks of turns out of it.
    """
    kind = chat_family(draw.tokenizer)
    text = (llama3_template(task, template) if kind == "llama3" else template).format(**row)
    cut = 0
    if not draw.release_prompts or task == "narrativeqa":
        text, cut = truncate_middle_as_text(
            draw.tokenizer, text, draw.protocol.limit(draw.length, 0), specials=draw.release_prompts
        )
    if task not in BARE and kind == "llama2":
        text = f"[INST]{text}[/INST]"
    elif task not in BARE and kind == "mistral":
        text = f"<s>[INST] {text} [/INST]</s>"
    return FittedPrompt(encode_with_special_tokens(draw.tokenizer, text), cut)


def llama3_template(task: str, template: str) -> str:
    """LaMPE's template for Llama-3: the first line is the system's turn, the last one begins the answer.

    Blank lines become line breaks. Of code tasks the answer begins with the whole cue, and the file is the user's turn.
    """
    template = template.replace("\n\n", "\n")
    first, _, rest = template.partition("\n")
    if task in longbench_metrics.CATEGORIES["code"]:
        middle, last = "{context}{input}", rest.rpartition("}")[2].lstrip("\n")
    else:
        middle, _, last = rest.rpartition("\n")
    turn = "<|eot_id|>"
    system, user, assistant = (
        f"<|start_header_id|>{role}<|end_header_id|>\n" for role in ("system", "user", "assistant")
    )
    return f"<|begin_of_text|>{system}{first}{turn}{user}{middle}{turn}{assistant}{last}"


def _newline(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that a line break ends with."""
    return encode(tokenizer, "\n")[-1]
