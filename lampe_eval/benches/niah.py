"""Needle in a haystack: facts hidden at known depths of a long text and asked for at its end.

The prompt and the tokens of its answer together have exactly the length of the cell, as in RULER.
Samples cycle through all depths before the first depth comes again. Within a cycle the depths come
in an order of which every beginning is spread out (`needles.spread_order`), so that any limit
covers them evenly and a larger limit adds samples to those of a smaller one. The wording is our own
or, with `prompts: official`, that of the original test (`niah_original.py`). The original has a
single needle, so it gives one sample for each depth, whatever the seed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from random import Random
from statistics import fmean
from typing import ClassVar

from lampe_eval.benches import needles, niah_original
from lampe_eval.benches.bench import (
    Bench,
    Prompt,
    SampleRequest,
    Score,
    Task,
    mean_scores,
)
from lampe_eval.cards import TaskCard
from lampe_eval.file_io import sha256_of_text
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import prompt_affixes
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode, encode_start
from lampe_eval.records import SampleRecord
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.scoring.value_recall import recall
from lampe_eval.texts.documents import documents
from lampe_eval.texts.sentence_ends import sentence_ends


class NiahCard(TaskCard):
    """Card of a needle task.

    Attributes:
        needle: sentence that is hidden, with `{key}` and `{value}`.
        question: question at the end, with `{key}`, and `{count}` for how many values a key has.
        answer: sentence of the answer; the prompt ends where its first value would begin.
        keys: number of keys in the haystack.
        values: number of values of each key in the question.
        queries: number of keys in the question.
        digits: digits of a value.
        depths: depths of the first needle in the question, in percent of the haystack.
        max_new_tokens: tokens that the answer may have.
        original_max_new_tokens: the same for the original wording; None for tasks without it.
        filler: text that is repeated as the haystack; the text of the source if empty.
        stratified_depths: whether each of as many equal parts of the haystack as there are needles
            has one needle, anywhere in it, whatever `depths` says.
        required_values: number of values that make an answer right; 0 to score the share of values.
    """

    needle: str
    question: str
    answer: str
    keys: int
    values: int
    queries: int
    digits: int
    depths: tuple[float, ...]
    max_new_tokens: int
    original_max_new_tokens: int | None = None
    filler: str = ""
    stratified_depths: bool = False
    required_values: int = 0

    @property
    def spec(self) -> needles.NeedleSpec:
        """Return the specification of the task's samples."""
        wording = needles.NeedleWording(self.needle, self.question, self.answer)
        return needles.NeedleSpec(wording, self.keys, self.values, self.queries, self.digits)


class Niah(Bench):
    """Needle in a haystack: recall of the values, or of the original's keywords, in percent."""

    name: ClassVar[str] = "niah"
    card: ClassVar[type[TaskCard]] = NiahCard
    source_option: ClassVar[str | None] = "haystack"

    def has_task(self, task: Task, protocol: Protocol) -> bool:
        return protocol.prompts == "own" or task.card.original_max_new_tokens is not None

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        if protocol.prompts == "own":
            return []
        essays = [] if source else [niah_original.ESSAYS_FILE]
        return [*niah_original.WORDING_FILES, *essays]

    def least_length(self, task: Task, request: SampleRequest) -> int:
        card: NiahCard = task.card
        least = request.length
        # The original's samples have one needle and question, so that each refuses the same length.
        if request.protocol.prompts != "own":
            return least
        for *_, question in _questions(card, request):
            tokens = _least_length(card, request, question)
            # Keys and values differ by some tokens: most lengths are far longer than any needs.
            if 2 * tokens <= request.length:
                break
            least = max(least, tokens)
        return least

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        self.check_length(task, request)
        if request.protocol.prompts == "own":
            return _own_samples(task.card, request)
        return _original_samples(task.card, request)

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        share = recall(row["prediction"].lower(), row["references"])
        required = row["extras"].get("required_values")
        if not required:
            return share
        # The share is a fraction; rounding gives the whole number of values behind it.
        return float(round(share * len(row["references"])) >= required)

    def detail_estimates(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, Estimate]:
        """Return the mean score at each depth."""
        return mean_scores(_rows_by_depth(rows))

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        if len(scores) < 2:
            return {}
        return {f"mean of {len(scores)} tasks": fmean(score.value for score in scores.values())}


def _rows_by_depth(rows: Sequence[SampleRecord]) -> dict[str, list[SampleRecord]]:
    """Return rows by the name of their depth, lowest depth first, without those that have none."""
    by_depth: dict[float, list[SampleRecord]] = {}
    for row in rows:
        depth = row.get("meta", {}).get("depth")
        if depth is not None:
            by_depth.setdefault(depth, []).append(row)
    return {f"depth {depth:g}": by_depth[depth] for depth in sorted(by_depth)}


def _own_samples(card: NiahCard, request: SampleRequest) -> Iterator[Prompt]:
    for index, depth, question in _questions(card, request):
        placed = _placed_prompt(card, request, question, _haystack(card, request, index))
        yield Prompt(
            id=f"{request.length}/{depth:g}/{index}",
            ids=placed.ids,
            max_new_tokens=card.max_new_tokens,
            references=question.values,
            extras={"required_values": card.required_values} if card.required_values else {},
            # With a needle in each part of the haystack, no depth stands for the sample.
            meta={} if card.stratified_depths else _depths(depth, placed.depths[0]),
            document_sha256=_haystack_sha256(placed),
        )


def _questions(
    card: NiahCard, request: SampleRequest
) -> Iterator[tuple[int, float, needles.NeedleQuestion]]:
    """Yield index, depth and question of each sample."""
    count = len(card.depths)
    order = needles.spread_order(count)
    for number in range(request.limit):
        # The index, not the order, decides what is drawn: it is part of the id.
        index = number - number % count + order[number % count]
        depth = card.depths[index % count]
        question = needles.draw_question(card.spec, request.seed, index, depth)
        if card.stratified_depths:
            # The seed string is part of the samples: do not change it.
            question = _stratify(question, Random(f"spread {request.seed} {index}"))
        yield index, depth, question


def _haystack_sha256(placed: needles.PlacedPrompt) -> str:
    """Return the hash of a haystack's token ids.

    Pocket texts differ between samples; a text of the user's own is the same for all of them.
    """
    return sha256_of_text(repr(list(placed.haystack)))


def _depths(wanted: float, placed: float) -> dict[str, float]:
    """Return the depths of a needle, wanted and real, in percent of the haystack."""
    return {"depth": wanted, "placed_depth": round(placed, 2)}


def _stratify(question: needles.NeedleQuestion, rng: Random) -> needles.NeedleQuestion:
    """Return the question with one needle in each of equal parts of the haystack."""
    parts = len(question.depths)
    depths = tuple(100 * (part + rng.random()) / parts for part in range(parts))
    return replace(question, depths=depths)


def _original_samples(card: NiahCard, request: SampleRequest) -> Iterator[Prompt]:
    wording = niah_original.original_wording(request.data_dir)
    answer_tokens = card.original_max_new_tokens
    assert answer_tokens, "only tasks with the original wording get here"
    for place in needles.spread_order(len(card.depths))[: request.limit]:
        depth = card.depths[place]
        placed = niah_original.original_prompt(request, wording, depth, answer_tokens)
        yield Prompt(
            id=f"{request.length}/{depth:g}",
            ids=placed.ids,
            max_new_tokens=answer_tokens,
            references=wording.keywords,
            meta=_depths(depth, placed.depths[0]),
            document_sha256=_haystack_sha256(placed),
        )


def _least_length(card: NiahCard, request: SampleRequest, question: needles.NeedleQuestion) -> int:
    """Return the tokens that a sample has without any haystack, those of its answer included."""
    prefix, suffix = _affixes(request, question)
    return needles.shortest_length(question, _encode(request), prefix, suffix) + card.max_new_tokens


def _placed_prompt(
    card: NiahCard,
    request: SampleRequest,
    question: needles.NeedleQuestion,
    haystack: list[int],
) -> needles.PlacedPrompt:
    prefix, suffix = _affixes(request, question)
    return needles.place_needles(
        question,
        haystack,
        _encode(request),
        # Prompt plus answer make the length, as in RULER: a prompt as long as the window would
        # push the answer past it, and every method would be blamed for that.
        request.length - card.max_new_tokens,
        sentence_ends(request.tokenizer).places,
        prefix,
        suffix,
    )


def _affixes(
    request: SampleRequest, question: needles.NeedleQuestion
) -> tuple[list[int], list[int]]:
    message = Message(question.question_text, answer_prefix=question.answer_prefix)
    return prompt_affixes(request.tokenizer, request.protocol, message)


def _encode(request: SampleRequest) -> needles.Encode:
    return partial(encode, request.tokenizer, continuation=True, is_data=True)


def _haystack(card: NiahCard, request: SampleRequest, index: int) -> list[int]:
    """Return at least as many tokens of text as the cell is long.

    A source that is shorter is repeated.
    """
    if card.filler:
        texts: Iterator[str] = repeat(card.filler)
    else:
        texts = documents(
            request.source,
            # Every sample has a haystack of its own, up to 1,000 samples per seed.
            seed=1_000 * request.seed + index,
            words=request.length,
            data_dir=request.data_dir,
        )
    ids: list[int] = []
    for text in texts:
        ids += encode_start(request.tokenizer, text + "\n", request.length)
        if len(ids) >= request.length:
            return ids
    return ids * (request.length // len(ids) + 1)
