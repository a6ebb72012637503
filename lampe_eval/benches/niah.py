"""Needle in a haystack: facts hidden at known depths of a long text and asked for at its end.

A prompt and the room for its answer make exactly the length of the cell, as in RULER. Depths are walked before seeds,
so that any limit spreads over all of them. The wording is our own, or with ``prompts: official`` that of the original
test (``kamradt.py``), which has one needle: one sample a depth, whatever the seed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import repeat
from pathlib import Path
from random import Random
from statistics import fmean
from typing import ClassVar

from transformers import PreTrainedTokenizerBase

from lampe_eval.benches import needles, niah_original
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, SampleRow, Task
from lampe_eval.cards import TaskCard
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import prompt_affixes
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode
from lampe_eval.scoring.value_recall import recall
from lampe_eval.texts.documents import documents


class NiahCard(TaskCard):
    """A needle task.

    Attributes:
        needle: sentence that is hidden; ``{key}`` and ``{value}`` are filled in.
        question: what is asked at the end; ``{key}``, and ``{count}`` for how many values a key has.
        answer: sentence that answers; the prompt ends where its first value would begin.
        keys: keys in the haystack.
        values: values of each key that is asked.
        queries: keys that are asked.
        digits: of a value.
        depths: where the first needle asked for lies, in percent of the haystack.
        max_new_tokens: room for the answer.
        original_max_new_tokens: the same for the original needle (``kamradt.py``), in tasks that have it.
        filler: sentences that are repeated for a haystack; the source's text where there are none.
        spread: whether each equal part of the haystack has one needle, anywhere in it, whatever ``depths`` says.
        enough: values that make an answer right; the share of all of them counts where it is 0.
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
    spread: bool = False
    enough: int = 0

    @property
    def recipe(self) -> needles.NeedleSpec:
        wording = needles.NeedleWording(self.needle, self.question, self.answer)
        return needles.NeedleSpec(wording, self.keys, self.values, self.queries, self.digits)


class Niah(Bench):
    """Recall of the values, or of the official needle's keywords, in percent."""

    name: ClassVar[str] = "niah"
    card: ClassVar[type[TaskCard]] = NiahCard
    source_option: ClassVar[str | None] = "haystack"

    def has_task(self, task: Task, protocol: Protocol) -> bool:
        return protocol.prompts == "own" or task.card.original_max_new_tokens is not None

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        if protocol.prompts != "official":
            return []
        return [*niah_original.SENTENCES, *([] if source else [niah_original.ESSAYS_FILE])]

    def samples(self, task: Task, draw: SampleRequest) -> Iterator[Prompt]:
        return (
            _official(task.card, draw)
            if draw.protocol.prompts == "official"
            else _own(task.card, draw)
        )

    def score(self, task: str, row: SampleRow, protocol: Protocol) -> float:
        share, enough = (
            recall(row["prediction"].lower(), row["references"]),
            row["extras"].get("enough"),
        )
        return float(round(share * len(row["references"])) >= enough) if enough else share

    def details(
        self, task: Task, rows: Sequence[SampleRow], protocol: Protocol
    ) -> dict[str, float]:
        """The means of each depth."""
        return {name: 100 * fmean(row["score"] for row in at) for name, at in _depths(rows).items()}

    def detail_counts(self, rows: Sequence[SampleRow]) -> dict[str, int]:
        return {name: len(at) for name, at in _depths(rows).items()}


def _depths(rows: Sequence[SampleRow]) -> dict[str, list[SampleRow]]:
    """Rows by the name of their depth, from the beginning on; those of no one depth are left out."""
    by_depth: dict[float, list[SampleRow]] = {}
    for row in rows:
        depth = row.get("meta", {}).get("depth")
        if depth is not None:
            by_depth.setdefault(depth, []).append(row)
    return {f"depth {depth:g}": by_depth[depth] for depth in sorted(by_depth)}


def _own(card: NiahCard, draw: SampleRequest) -> Iterator[Prompt]:
    for index in range(draw.limit):
        depth = card.depths[index % len(card.depths)]
        riddle = needles.draw_question(card.recipe, draw.seed, index, depth)
        if card.spread:
            riddle = _spread(riddle, Random(f"spread {draw.seed} {index}"))
        ids = _prompt(card, draw, riddle, _haystack(card, draw, index))
        meta = {} if card.spread else {"depth": depth}
        extras = {"enough": card.enough} if card.enough else {}
        yield Prompt(
            f"{draw.length}/{depth:g}/{index}",
            ids,
            card.max_new_tokens,
            riddle.values,
            extras,
            meta,
        )


def _spread(riddle: needles.NeedleQuestion, rng: Random) -> needles.NeedleQuestion:
    parts = len(riddle.depths)
    return replace(
        riddle, depths=tuple(100 * (part + rng.random()) / parts for part in range(parts))
    )


def _official(card: NiahCard, draw: SampleRequest) -> Iterator[Prompt]:
    wording, room = niah_original.original_wording(draw.data_dir), card.original_max_new_tokens
    assert room, "the task has the original needle"
    for depth in card.depths[: draw.limit]:
        ids = niah_original.original_prompt(draw, wording, depth, room)
        meta = {"depth": depth}
        yield Prompt(f"{draw.length}/{depth:g}", ids, room, wording.keywords, meta=meta)


def _prompt(
    card: NiahCard, draw: SampleRequest, riddle: needles.NeedleQuestion, haystack: list[int]
) -> list[int]:
    head, tail = prompt_affixes(
        draw.tokenizer, draw.protocol, Message(riddle.query, lead=riddle.lead)
    )
    ends = _sentence_ends(draw.tokenizer)
    room = draw.length - card.max_new_tokens
    try:
        return needles.assemble_prompt(
            riddle, haystack, partial(encode, draw.tokenizer, inside=True), room, ends, head, tail
        )
    except ValueError as error:
        raise UserError(
            f"niah at length {draw.length}: {error} (the answer takes {card.max_new_tokens} more); use longer --lengths"
        ) from None


def _haystack(card: NiahCard, draw: SampleRequest, index: int) -> list[int]:
    """At least as many tokens of text as the cell is long; a source that is shorter is repeated."""
    ids: list[int] = []
    seed = 1_000 * draw.seed + index
    source = documents(draw.source, seed=seed, words=draw.length, data_dir=draw.data_dir)
    for text in repeat(card.filler) if card.filler else source:
        ids += encode(draw.tokenizer, text + "\n")
        if len(ids) >= draw.length:
            return ids
    return ids * (draw.length // len(ids) + 1)


@lru_cache(maxsize=4)
def _sentence_ends(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end a sentence: all whose text ends in a full stop, ``?``, ``!`` or a newline."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return frozenset(
        token
        for token, text in enumerate(texts)
        if text.rstrip(" ").endswith((".", "?", "!", "\n"))
    )
