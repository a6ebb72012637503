"""HELMET: those of its tasks that need neither a judge nor another model.

`official` reads HELMET's own files (`helmet_items.py`), which exist for five lengths; the context
is cut at its end to what the length leaves. Under `fair` the JSON objects of its recall task are
made here at any length (`key_values.py`), and a value counts only with its hyphens, which
upstream's scorer deletes. Means are over tasks of this file and never HELMET's average, which is
over seven categories.

Classification in context (`helmet_labels.py`) and questions on novels (`helmet_novels.py`) read the
data sets that upstream loads from the hub.

Source: arXiv 2410.02694 with princeton-nlp/HELMET at 4526dfb.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar

from lampe_eval import assets
from lampe_eval.benches import helmet_items, needles
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, Score, Task
from lampe_eval.benches.helmet_items import HelmetItem
from lampe_eval.benches.helmet_labels import LabelledFiles
from lampe_eval.benches.helmet_novels import NovelFiles
from lampe_eval.benches.key_values import LEAST_ENTRIES, EntryTable, LookupSample
from lampe_eval.cards import TaskCard
from lampe_eval.file_io import sha256_of_text
from lampe_eval.prompts.chat_template import Message, message_affixes
from lampe_eval.prompts.prompt_fitting import encode_prompt, prompt_affixes
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode
from lampe_eval.records import SampleRecord
from lampe_eval.ruler.length_fitting import ScalableSample, fit_ids
from lampe_eval.ruler.piecewise_tokenizer import PiecewiseTokenizer
from lampe_eval.scoring import helmet_metrics
from lampe_eval.scoring.long_score import long_score
from lampe_eval.scoring.value_recall import recall
from lampe_eval.texts.jsonl_rows import FaultyRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CODE_FILE = "helmet/data.py"
TOKENIZER_FILE = "helmet/tokenizer.json"
"""Llama-2's tokenizer, by which upstream cuts novels for every model."""
DEPTHS = tuple(10.0 * step for step in range(11))
"""Depths of the asked entries of objects that are made here, in percent."""


class HelmetCard(TaskCard):
    """Card of a task.

    Attributes:
        kind: how its rows become prompts.
        upstream_metric: metric that HELMET reports.
        max_new_tokens: tokens that the answer may have.
        sizes: entries, passages or examples of a prompt, or tokens of its text, by length.
        file: file of the rows, with `{k}` for their size.
        demos: file of the demonstrations; empty for a task without one.
        label_field: field with the class of a text.
        classes: number of classes of texts.
        one_split: whether rows and demonstrations are of one split.
        own: whether its samples can be made here as well.
    """

    kind: helmet_items.Kind
    upstream_metric: str
    max_new_tokens: int
    sizes: Mapping[int, int]
    file: str
    demos: str = ""
    label_field: str = ""
    classes: int = 0
    one_split: bool = False
    own: bool = False


class Helmet(Bench):
    """HELMET: each task's own metric, in percent."""

    name: ClassVar[str] = "helmet"
    card: ClassVar[type[TaskCard]] = HelmetCard

    def has_task(self, task: Task, protocol: Protocol) -> bool:
        return task.card.own or protocol.prompts != "own"

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        return [] if protocol.prompts == "own" else [CODE_FILE]

    def files_by_length(self, task: Task, protocol: Protocol) -> dict[str, list[str]]:
        if protocol.prompts == "own":
            return {}
        card: HelmetCard = task.card
        files: dict[str, list[str]] = {}
        for length, size in card.sizes.items():
            names = (card.file.format(k=size), card.demos, _tokenizer_file(card))
            files[f"{length // 1024}k"] = list(dict.fromkeys(filter(None, names)))
        return files

    def rows(self, task: Task, request: SampleRequest) -> Iterator[HelmetItem | FaultyRow]:
        if request.protocol.prompts == "own":
            return iter(())
        # A length without files is refused here.
        self.files_of_length(task, request.protocol, request.length)
        return islice(_official_items(task, request), request.limit)

    def least_length(self, task: Task, request: SampleRequest) -> int:
        least = request.length
        if request.protocol.prompts != "own":
            return least
        for index in range(request.limit):
            sample, tokenizer, affixes = _lookup_sample(task, request, index)
            layout = sample.layout(LEAST_ENTRIES)
            parts = [*layout.start, *layout.end]
            tokens = len(tokenizer.encode_parts(parts)) + task.card.max_new_tokens
            tokens += sum(map(len, affixes))
            # Codes differ by some tokens: most lengths are far longer than any sample needs.
            if 2 * tokens <= request.length:
                break
            least = max(least, tokens)
        return least

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        self.check_length(task, request)
        if request.protocol.prompts == "own":
            return _own_samples(task, request)
        return _official_samples(task, self.rows(task, request), request)

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        if protocol.prompts == "own":
            return recall(row["prediction"].lower(), row["references"])
        extras = row["extras"]
        return helmet_metrics.score(
            extras["metric"], extras["kind"], extras["lead"] + row["prediction"], row["references"]
        )

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        if len(scores) < 2:
            return {}
        return {f"mean of {len(scores)} tasks": fmean(score.value for score in scores.values())}

    def length_averages(self, averages: Mapping[int, float]) -> dict[str, float]:
        return long_score(averages)


def _tokenizer_file(card: HelmetCard) -> str:
    return TOKENIZER_FILE if card.kind in ("novel_qa", "choice") else ""


def _official_items(task: Task, request: SampleRequest) -> Iterator[HelmetItem | FaultyRow]:
    """Yield the questions of a task in upstream's choice."""
    card: HelmetCard = task.card
    size = card.sizes[request.length]

    def path(name: str) -> Path:
        return assets.path_of(name, request.data_dir)

    code, data = path(CODE_FILE), path(card.file.format(k=size))
    if card.kind == "icl":
        train = path(card.demos)
        return LabelledFiles(code, data, train, card.label_field, card.classes).items(size)
    if card.kind in ("novel_qa", "choice"):
        return NovelFiles(card.kind, code, data, path(TOKENIZER_FILE)).items(size)
    demos = path(card.demos) if card.demos else None
    return helmet_items.items(card.kind, code, data, demos, one_split=card.one_split)


Affixes = tuple[list[int], list[int]]
"""Ids before and after a prompt that is made of ids."""


def _own_samples(task: Task, request: SampleRequest) -> Iterator[Prompt]:
    card: HelmetCard = task.card
    for index in range(request.limit):
        sample, tokenizer, (before, after) = _lookup_sample(task, request, index)
        budget = request.length - card.max_new_tokens - len(before) - len(after)
        fitted = fit_ids(tokenizer, sample, budget)
        assert fitted.ids is not None, "a prompt made of ids has them"
        yield Prompt(
            id=f"{request.length}/{index:04d}",
            ids=[*before, *fitted.ids.tolist(), *after],
            max_new_tokens=card.max_new_tokens,
            references=list(sample.outputs),
            meta=fitted.meta,
        )


def _lookup_sample(
    task: Task, request: SampleRequest, index: int
) -> tuple[ScalableSample, PiecewiseTokenizer, Affixes]:
    """Return a sample with the tokenizer of its pieces and the ids around it."""
    tokenizer, table = _entry_table(request.tokenizer, request.seed, request.length)
    count = len(DEPTHS)
    # As in niah: the first samples of any number are spread over the depths.
    depth = DEPTHS[needles.spread_order(count)[index % count]]
    # The version is part of every draw, so a changed task has other samples.
    seed = f"{task.name} {task.card.version} {request.seed} {index}"
    sample = LookupSample(table, seed, depth).scalable(tokenizer)
    message = Message("", answer_prefix=f"\n{sample.answer_prefix}")
    affixes = prompt_affixes(request.tokenizer, request.protocol, message)
    return sample, tokenizer, affixes


# Encoding the codes takes longer than all the rest.
@lru_cache(maxsize=2)
def _entry_table(
    tokenizer: PreTrainedTokenizerBase, seed: int, length: int
) -> tuple[PiecewiseTokenizer, EntryTable]:
    piecewise = PiecewiseTokenizer(tokenizer)
    return piecewise, EntryTable.draw(piecewise, seed, length)


def _official_samples(
    task: Task, rows: Iterator[HelmetItem | FaultyRow], request: SampleRequest
) -> Iterator[Prompt]:
    card: HelmetCard = task.card
    has_template = getattr(request.tokenizer, "chat_template", None)
    is_chat = bool(request.protocol.chat == "template" and has_template)
    for index, item in enumerate(rows):
        sample_id = f"{request.length}/{index:04d}"
        if isinstance(item, FaultyRow):
            yield Prompt.of_faulty_row(sample_id, item)
            continue
        # A chat leaves the cue out; a completion ends in it, and it is scored with the answer.
        lead = "" if is_chat else item.cue
        ids, cut_tokens = _official_ids(item, lead, card.max_new_tokens, request)
        yield Prompt(
            id=sample_id,
            ids=ids,
            max_new_tokens=card.max_new_tokens,
            references=item.references,
            extras={
                "id": item.id,
                "metric": card.upstream_metric,
                "kind": card.kind,
                "lead": lead,
            },
            document_sha256=sha256_of_text(item.context),
            cut_tokens=cut_tokens,
        )


def _official_ids(
    item: HelmetItem, lead: str, answer_tokens: int, request: SampleRequest
) -> tuple[list[int], int]:
    """Return the ids of a prompt whose context is cut at its end, and how many were cut."""
    tokenizer, protocol = request.tokenizer, request.protocol
    limit = protocol.prompt_limit(request.length, answer_tokens)
    message = Message("", answer_prefix=f"{item.separator}{lead}" if lead else "")
    before, after = message_affixes(tokenizer, protocol, message, chat=not lead)

    def encoded(context: str) -> list[int]:
        user = f"{item.before}{context}{item.after}"
        return encode_prompt(tokenizer, protocol, before, user, after)

    ids = encoded(item.context)
    excess = len(ids) - limit
    if excess <= 0:
        return ids, 0
    context_ids = encode(tokenizer, item.context, is_data=True)
    return encoded(str(tokenizer.decode(context_ids[: max(0, len(context_ids) - excess)]))), excess
