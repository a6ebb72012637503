"""Latent needles: facts whose question shares no content word with them.

"Noor keeps three hives behind the shed" answers "Who works with insects?". Finding the sentence
takes what it means, where other needle tests take the words of the question. The needles are our
own (`tasks/latent/needles.yaml`); the idea is NoLiMa's (arXiv 2502.05167).

Every haystack holds decoys, further needles with other names: else the only foreign name of a text
would give the answer away, and chance is one in eight. Sentences that could answer the question,
or have one of the names, are left out. Needle, name, decoys and haystack of a sample are the same
in all tasks, so that `literal`, whose question repeats the needle, is a control of each.

Protocol `official` reads a user's own copy of NoLiMa (`nolima_files.py`). Its lengths are those of
the haystack alone, as upstream's: needle, question and instructions come on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

from lampe_eval.benches import nolima_files
from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, Score, Task, mean_scores
from lampe_eval.benches.needles import spread_order
from lampe_eval.benches.scattered_sentences import ScatteredPrompts
from lampe_eval.benches.sentence_haystack import Haystack, SentencePool
from lampe_eval.cards import Card, TaskCard, read_card, shipped_folder
from lampe_eval.errors import UserError
from lampe_eval.file_io import sha256_of_text
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import fit_prompt
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode_start
from lampe_eval.records import SampleRecord
from lampe_eval.ruler.seeded_random import Indices
from lampe_eval.scoring import latent_metrics
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.texts.documents import read_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DISTRACTOR_DISTANCE = 20
"""Least distance of the distractor from the needle, in percent of the haystack."""
BOOK_MARGIN = 4096
"""Tokens of a book behind twice a length in which a line ends."""
GAP = "..."
"""What stands for the name in the question of the control."""


class LatentNeedle(Card):
    """Needle with its questions.

    Attributes:
        id: name of the needle.
        needle: the sentence, with `{name}`.
        inverted: the same with the name behind what tells.
        one_hop: question that takes one thing that one has to know.
        two_hop: question that takes two of them.
        avoid: words of sentences that could answer the questions as well.
        clash: needles that could answer them as well.
        topic: what the questions are about, for the distractor.
    """

    id: str
    needle: str
    inverted: str
    one_hop: str
    two_hop: str
    avoid: tuple[str, ...]
    clash: tuple[str, ...] = ()
    topic: str

    def question(self, kind: str) -> str:
        """Return the question of a kind: "one_hop", "two_hop" or "literal"."""
        if kind == "literal":
            return f'Who is meant by the gap in "{self.needle.format(name=GAP)}"?'
        return self.one_hop if kind == "one_hop" else self.two_hop


class NeedleSet(Card):
    """Needles of our own.

    Attributes:
        instruction: text before the haystack.
        distractor: sentence with `{topic}` that answers no question.
        names: people; no name is an English word or part of another name.
        needles: the needles.
    """

    instruction: str
    distractor: str
    names: tuple[str, ...]
    needles: tuple[LatentNeedle, ...]


class LatentCard(TaskCard):
    """Card of a task of latent needles.

    Attributes:
        question: kind of the question; "official" for those of NoLiMa's files.
        distractor: whether the distractor is in the haystack.
        decoys: number of decoys.
        depths: depths of the needle in percent of the haystack.
        max_new_tokens: tokens that the answer may have.
    """

    question: Literal["one_hop", "two_hop", "literal", "official"]
    distractor: bool = False
    decoys: int = 0
    depths: tuple[float, ...]
    max_new_tokens: int


class Latent(Bench):
    """Latent needles: share of answers that name the right person alone, in percent."""

    name: ClassVar[str] = "latent"
    card: ClassVar[type[TaskCard]] = LatentCard
    source_option: ClassVar[str | None] = "haystack"

    def has_task(self, task: Task, protocol: Protocol) -> bool:
        is_official: bool = task.card.question == "official"
        return is_official == (protocol.prompts == "official")

    def required_files(
        self, task: Task, protocol: Protocol, source: Path | None = None
    ) -> list[str]:
        if source and protocol.prompts == "official":
            raise UserError("--haystack: NoLiMa has books of its own; leave it out")
        return []

    def user_files(self, task: Task, protocol: Protocol, data_dir: Path | None) -> list[Path]:
        return nolima_files.find_files(data_dir).all if protocol.prompts == "official" else []

    def least_length(self, task: Task, request: SampleRequest) -> int:
        if request.protocol.prompts == "official":
            return request.length
        prompts = _prompts(task.card, request)
        draws = _draws(task.card, request)
        least = (prompts.least_length(draw.sentences, draw.question) for draw in draws)
        return max(request.length, *least)

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        self.check_length(task, request)
        if request.protocol.prompts == "official":
            return _official_samples(task.card, request)
        prompts = _prompts(task.card, request)
        return (_sample(task.card, request, prompts, draw) for draw in _draws(task.card, request))

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        scorer = latent_metrics.SCORERS[protocol.scorer]
        return float(scorer(row["prediction"], row["references"], needle_set().names))

    def detail_estimates(
        self, task: Task, rows: Sequence[SampleRecord], protocol: Protocol
    ) -> dict[str, Estimate]:
        """Return the mean score at each depth."""
        by_depth: dict[float, list[SampleRecord]] = {}
        for row in rows:
            by_depth.setdefault(row["meta"]["depth"], []).append(row)
        return mean_scores({f"depth {depth:g}": by_depth[depth] for depth in sorted(by_depth)})

    def task_averages(self, scores: Mapping[str, Score], protocol: Protocol) -> dict[str, float]:
        """Return the mean of the tasks without the control."""
        latent = [score.value for task, score in scores.items() if task != "literal"]
        return {f"mean of {len(latent)} tasks": fmean(latent)} if len(latent) > 1 else {}


@cache
def _needle_set(path: Path) -> NeedleSet:
    return read_card(path, NeedleSet)


def needle_set() -> NeedleSet:
    """Return the needles of our own."""
    return _needle_set(shipped_folder("tasks") / "latent" / "needles.yaml")


@dataclass(frozen=True)
class LatentDraw:
    """Needle, decoys and question of a sample.

    Attributes:
        index: number that it is drawn from.
        needle: the needle that is asked for.
        name: the answer.
        question: the question.
        sentences: the needle, the decoys, and the distractor where the task has one.
        depths: wanted depth of each, in percent of the haystack.
    """

    index: int
    needle: LatentNeedle
    name: str
    question: str
    sentences: tuple[str, ...]
    depths: tuple[float, ...]


def draw_needles(card: LatentCard, seed: int, index: int) -> LatentDraw:
    """Return what a sample is made of, whatever its length."""
    content = needle_set()
    order = Random(f"latent needles {seed}").sample(content.needles, len(content.needles))
    needle = order[index % len(order)]
    depth = card.depths[index % len(card.depths)]
    rng = Random(f"latent {seed} {index}")
    others = [one for one in content.needles if not _clash(one, needle)]
    asked, *decoys = (needle, *rng.sample(others, card.decoys))
    names = rng.sample(content.names, len(decoys) + 1)
    sentences = []
    for one, name in zip((asked, *decoys), names, strict=True):
        wording = rng.choice((one.needle, one.inverted))
        sentences.append(wording.format(name=name))
    depths = [depth, *(rng.uniform(0, 100) for _ in decoys)]
    if card.distractor:
        sentences.append(content.distractor.format(topic=needle.topic))
        depths.append(_distant_depth(rng, depth))
    question = needle.question(card.question)
    return LatentDraw(index, needle, names[0], question, tuple(sentences), tuple(depths))


def _clash(one: LatentNeedle, other: LatentNeedle) -> bool:
    """Return whether one needle is the other, or could answer its questions."""
    return one.id == other.id or one.id in other.clash or other.id in one.clash


def _distant_depth(rng: Random, depth: float) -> float:
    """Return a depth in percent, uniform among those that are far from another one."""
    below = max(0.0, depth - DISTRACTOR_DISTANCE)
    above = max(0.0, 100 - depth - DISTRACTOR_DISTANCE)
    place = rng.uniform(0, below + above)
    return place if place < below else depth + DISTRACTOR_DISTANCE + place - below


def _draws(card: LatentCard, request: SampleRequest) -> Iterator[LatentDraw]:
    """Yield what each sample is made of; any limit covers the depths evenly."""
    count = len(card.depths)
    order = spread_order(count)
    for number in range(request.limit):
        # The index, not the order, decides what is drawn: it is part of the id.
        index = number - number % count + order[number % count]
        yield draw_needles(card, request.seed, index)


def _prompts(card: LatentCard, request: SampleRequest) -> ScatteredPrompts:
    return ScatteredPrompts(request, needle_set().instruction, card.max_new_tokens)


def _sample(
    card: LatentCard, request: SampleRequest, prompts: ScatteredPrompts, draw: LatentDraw
) -> Prompt:
    def choose_gaps(haystack: Haystack) -> Sequence[int]:
        return [haystack.gap_at(depth) for depth in draw.depths]

    prompt = prompts.build(
        draw.sentences,
        draw.question,
        rng=Random(f"latent haystack {request.seed} {draw.index}"),
        allowed=_allowed(prompts.pool, draw.needle.avoid),
        choose_gaps=choose_gaps,
    )
    return Prompt(
        id=f"{request.length}/{draw.depths[0]:g}/{draw.index}",
        ids=prompt.ids,
        max_new_tokens=card.max_new_tokens,
        references=[draw.name],
        extras={"needle": draw.needle.id},
        meta={"depth": draw.depths[0], "placed_depth": prompt.depths[0]},
        document_sha256=prompt.haystack_sha256,
        decoding=request.protocol.decoding,
    )


def _official_samples(card: LatentCard, request: SampleRequest) -> Iterator[Prompt]:
    """Yield samples of NoLiMa's tests; any limit covers the depths, then tests and books."""
    files = nolima_files.find_files(request.data_dir)
    tests = files.tests()
    order = spread_order(len(card.depths))
    for number in range(min(request.limit, len(order) * len(tests) * len(files.books))):
        turn, place = divmod(number, len(order))
        # Shifted at each depth, so that a small limit has many tests.
        test = tests[(turn + place) % len(tests)]
        book = files.books[turn // len(tests)]
        depth = card.depths[order[place]]
        needle, references = test.drawn(Random(f"nolima {request.seed} {test.name} {depth:g}"))
        texts = _book_tokens(request.tokenizer, book, request.length)
        haystack = nolima_files.place_needle(texts, needle, request.length, depth / 100)
        text = test.template.replace("{haystack}", haystack).replace("{question}", test.question)
        prompt = fit_prompt(
            request.tokenizer,
            request.protocol,
            Message(text, test.system_prompt),
            # The haystack alone has the length of the cell, and nothing is cut.
            length=request.length + card.max_new_tokens,
            answer_tokens=card.max_new_tokens,
        )
        yield Prompt(
            id=f"{request.length}/{book.stem}/{test.name}/{depth:g}",
            ids=prompt.ids,
            max_new_tokens=card.max_new_tokens,
            references=references,
            extras={"needle": test.name},
            meta={"depth": depth},
            document_sha256=sha256_of_text(book.name),
            decoding=request.protocol.decoding,
        )


@lru_cache(maxsize=8)
def _book_tokens(tokenizer: PreTrainedTokenizerBase, book: Path, length: int) -> list[str]:
    """Return the texts of a book's first tokens, up to well behind a length."""
    text = read_text(book)
    ids = encode_start(tokenizer, text, 2 * length + BOOK_MARGIN)
    return [str(piece) for piece in tokenizer.batch_decode([[token] for token in ids])]


@lru_cache(maxsize=64)
def _allowed(pool: SentencePool, avoid: tuple[str, ...]) -> Indices:
    """Return the sentences that name nobody, and do not have the words of a needle to avoid."""
    return pool.without({*needle_set().names, *avoid})
