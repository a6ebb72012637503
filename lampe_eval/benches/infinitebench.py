"""InfiniteBench: 12 tasks on texts of 100 thousand tokens and more.

Sources: arXiv 2402.13718 with ``src/prompt.py``, ``src/eval_utils.py`` and ``src/eval_yarn_mistral.py`` of
OpenBMB/InfiniteBench at 88b3daa; protocol ``lampe`` is ``InfiniteBench/src/test_infbench_llama_cw.py`` of scar-on/LaMPE
at 4e3c91f, which runs seven tasks.

Every protocol takes the authors' prompts for models that are no chat models (``yarn_mistral_templates``), which end in
the first words of the answer. Many answers have room for 3 to 12 tokens, so a model that may begin as it likes is cut
off before it says anything. Under ``fair`` a chat template goes around the question, and the same first words begin the
turn of the answer: all models read the same words, and no score depends on how a model likes to begin.

``fair`` scores as LaMPE's and STRING's authors do. The official scorer gives kv_retrieval 0 for every answer, as the
labels of the pinned data are lists; code_debug 0 for the bare letter, which is how its prompt is completed; and
longdialogue_qa_eng 0 for any name of two words. What is lost are published numbers to compare with, and those belong to
prompts of 128K tokens anyway. ``official`` keeps the official scorer, with its 0 for kv_retrieval.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from lampe_eval import assets
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, SampleRow, Score, Task
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import FittedPrompt, fit_prompt
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode_with_special_tokens
from lampe_eval.scoring import infinitebench_metrics
from lampe_eval.texts.jsonl_rows import RowSchema, read_rows

SCHEMA: RowSchema = {
    "id": (int, str),
    "context": str,
    "input": str,
    "answer": (list, str, int, float),
}
CHOICE_SCHEMA: RowSchema = {**SCHEMA, "options": list}
LETTERS = "ABCD"

CHOICE = frozenset({"code_debug", "longbook_choice_eng"})
"""Tasks whose label is the text of an option and its letter."""

LAMPE = frozenset(
    "longbook_choice_eng kv_retrieval longbook_qa_eng longbook_sum_eng code_debug passkey number_string".split()
)
"""Tasks that LaMPE's authors run."""

CALL = re.compile(r"func_\d+\(-?\d+\)")
WANTED = re.compile(r"The .+ of")
LEAD = re.compile(r"(?:\n+|(?<=\.) )(?:(?!\. )[^\n])*[^\n}]$")


class InfiniteBenchCard(TaskCard):
    """A task of InfiniteBench, with the most tokens of its answer."""

    max_new_tokens: int


class InfiniteBench(Bench):
    """Each task's own metric, in percent."""

    name: ClassVar[str] = "infinitebench"
    card: ClassVar[type[TaskCard]] = InfiniteBenchCard

    def has_task(self, task: Task, protocol: Protocol) -> bool:
        return protocol.prompts != "lampe" or task.name in LAMPE

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        code = ["infinitebench/eval_utils.py"] if task.name == "math_find" else []
        return ["infinitebench/prompt.py", *code, f"infinitebench/{task.name}.jsonl"]

    def samples(self, task: Task, draw: SampleRequest) -> Iterator[Prompt]:
        card: InfiniteBenchCard = task.card
        template = _template(task.name, draw.data_dir)
        path = assets.path_of(f"infinitebench/{task.name}.jsonl", draw.data_dir)
        schema = CHOICE_SCHEMA if task.name in CHOICE else SCHEMA
        for index, row in enumerate(islice(read_rows(path, schema), draw.limit)):
            try:
                fields, label = _fields(task.name, row, draw.data_dir), _label(task.name, row)
            except ValueError as error:
                raise UserError(
                    f"{path}: row {index + 1}: {error}; is it the official file?"
                ) from None
            prompt = _prompt(template, fields, card.max_new_tokens, draw)
            yield Prompt(
                f"{index:04d}", prompt.ids, card.max_new_tokens, label, {"id": row["id"]},
                cut=prompt.cut, skip=prompt.skip, decoding=draw.protocol.decoding,
            )  # fmt: skip

    def score(self, task: str, row: SampleRow, protocol: Protocol) -> float:
        return infinitebench_metrics.score(
            task, row["prediction"], row["references"], row["extras"], protocol.scorer
        )

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        return (
            {f"mean of {len(scores)} tasks": fmean(s.value for s in scores.values())}
            if len(scores) > 1
            else {}
        )


def _template(task: str, data_dir: Path | None) -> str:
    path = assets.path_of("infinitebench/prompt.py", data_dir)
    template = assets.literal(path, "yarn_mistral_templates").get(task)
    if not isinstance(template, str):
        raise UserError(f"{path}: has no prompt for {task!r}; is it the official file?")
    return template


def _fields(task: str, row: Mapping[str, Any], data_dir: Path | None) -> dict[str, str]:
    """What fills a template.

    Raises:
        ValueError: for a row that lacks what its task takes out of it.
    """
    fields = {"context": row["context"], "input": row["input"], "question": row["input"]}
    if task in CHOICE:
        if len(row["options"]) != len(LETTERS):
            raise ValueError(f"{len(row['options'])} options, expected {len(LETTERS)}")
        return fields | {
            f"OPTION_{letter}": text for letter, text in zip(LETTERS, row["options"], strict=True)
        }
    if task == "code_run":
        call = _first(CALL, row["input"], "a call")
        return fields | {"func": call.partition("(")[0], "func_call": call}
    if task == "math_find":
        wanted = _first(WANTED, row["input"], "what to find").lower().removesuffix(" of")
        before, after = _list_question(data_dir)
        return fields | {"prefix": f"{before}{wanted}{after}"}
    return fields


def _first(pattern: re.Pattern[str], text: str, what: str) -> str:
    found = pattern.search(text)
    if not found:
        raise ValueError(f"the input does not say {what}")
    return found[0]


def _list_question(data_dir: Path | None) -> tuple[str, str]:
    """What stands before and after what is to be found: in the code, the one text that ends as a question does."""
    path = assets.path_of("infinitebench/eval_utils.py", data_dir)
    texts = assets.strings(path, "create_prompt")
    ends = [at for at, text in enumerate(texts) if text.endswith("?")]
    if len(ends) != 1 or ends[0] == 0:
        raise UserError(
            f"{path}: has {len(ends)} questions in 'create_prompt', expected 1; is it the pinned file?"
        )
    return texts[ends[0] - 1], texts[ends[0]]


def _label(task: str, row: Mapping[str, Any]) -> Any:
    """The answer as the data holds it; of a choice its text and its letter.

    Raises:
        ValueError: for a choice that is none of the options.
    """
    answer = row["answer"]
    if task not in CHOICE:
        return answer
    known = answer if isinstance(answer, list) else [answer]
    if len(known) == 2 and known[1] in LETTERS:
        return known
    if len(known) != 1 or known[0] not in row["options"]:
        raise ValueError(f"the answer {answer!r} is none of the options")
    return [known[0], LETTERS[row["options"].index(known[0])]]


def _prompt(
    template: str, fields: Mapping[str, str], answer: int, draw: SampleRequest
) -> FittedPrompt:
    if draw.protocol.cut == "ids":
        user, lead = parted(template)
        message = Message(user.format(**fields), lead=lead.format(**fields))
        return fit_prompt(draw.tokenizer, draw.protocol, message, length=draw.length, answer=answer)
    limit = draw.protocol.limit(draw.length, answer)
    text, cut = cut_as_text(draw.tokenizer, template.format(**fields), limit)
    return FittedPrompt(encode_with_special_tokens(draw.tokenizer, text), cut)


def parted(template: str) -> tuple[str, str]:
    """A template's question and the first words of the answer with the white space before them, if it has any.

    Those are the last line or sentence, unless it ends in what is filled in.
    """
    lead = LEAD.search(template)
    return (template[: lead.start()], lead[0]) if lead else (template, "")


def cut_as_text(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> tuple[str, int]:
    """A text decoded again without special tokens, and how many tokens were taken out of its middle.

    Unlike LongBench's, these scripts decode both halves at once, and also what was not cut.
    """
    ids = encode_with_special_tokens(tokenizer, text)
    half = limit // 2
    kept = ids if len(ids) <= limit else ids[:half] + ids[len(ids) - half :]
    return str(tokenizer.decode(kept, skip_special_tokens=True)), len(ids) - len(kept)
