"""Common words extraction: which words of a numbered list stand in it most often, after a solved example.

Sources: arXiv 2404.06654, section 3; ``scripts/data/synthetic/common_words_extraction.py`` of NVIDIA/RULER at c3f5e3b.
An exact prompt is filled up with further entries of words that are not common.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count

import numpy as np

from lampe_eval.assets import path_of
from lampe_eval.ruler import word_lists
from lampe_eval.ruler.length_fitting import PromptLayout, ScalableSample
from lampe_eval.ruler.piecewise_tokenizer import PieceRun, PieceTable, PromptPart
from lampe_eval.ruler.ruler_cards import CweParameters, Frequencies
from lampe_eval.ruler.ruler_wording import QuestionTemplate
from lampe_eval.ruler.sample_spec import SampleDraw
from lampe_eval.ruler.seeded_random import Order, permutation

ENGLISH = "ruler/english_words.json"
SPARE = 1_000
"""Numbers beyond those that a list can have if each of its entries takes three tokens."""


@dataclass(frozen=True, eq=False)
class Book:
    """Words and numbers in one table: words first, then " 1.", " 2." and so on.

    Attributes:
        numbers: of the table's pieces that are numbers.
        number_costs: tokens of the first n numbers.
    """

    table: PieceTable
    numbers: Order
    number_costs: Order

    def listed(self, entries: Order) -> list[PromptPart]:
        """ "1. word 2. word"."""
        order = np.column_stack([self.numbers[: len(entries)], entries]).ravel()
        return ["1.", PieceRun(self.table, order[1:])]

    def word(self, number: int) -> str:
        return self.table.texts[number].removeprefix(" ")


def puzzle(parameters: CweParameters, draw: SampleDraw) -> ScalableSample:
    """A sample before its length is chosen."""
    times = parameters.short if draw.recipe.length < parameters.short_below else parameters.long
    common, template = (
        parameters.common,
        draw.wording.templates["cwe"].filled(count=parameters.common, query=""),
    )
    book, order = _words(draw, times.seldom)
    coder, spot = draw.shelf.coder, draw.rng
    before = [*demo(draw, book, template, common, times), template.head]
    fixed = len(coder.joined(before)) + coder.count(template.tail)
    costs = np.concatenate([[0], np.cumsum(book.table.sizes[order])])

    def entries(units: int) -> int:
        return common * times.often + (units - common) * times.seldom

    def cost(units: int) -> int:
        words_cost = times.often * costs[common] + times.seldom * (costs[units] - costs[common])
        return fixed + int(words_cost + book.number_costs[entries(units)])

    def lay(units: int) -> PromptLayout:
        listed = repeated(order[:units], common, times.often, times.seldom)
        listed = listed[permutation(spot("list", units), len(listed))]
        more = _entries(book, order[common:units], len(listed))
        return PromptLayout([*before, *book.listed(listed)], [template.tail], more)

    return ScalableSample(
        outputs=tuple(book.word(number) for number in order[:common].tolist()),
        prefix=template.prefix,
        least=common + 1,
        most=min(len(order), common + (len(book.numbers) - common * times.often) // times.seldom),
        cost=cost,
        lay=lay,
    )


def repeated(order: Order, common: int, often: int, seldom: int) -> Order:
    """The first words so often, the others so seldom."""
    return np.concatenate([np.repeat(order[:common], often), np.repeat(order[common:], seldom)])


def demo(
    draw: SampleDraw, book: Book, template: QuestionTemplate, common: int, times: Frequencies
) -> list[PromptPart]:
    """The solved example of this sample, from the words of the pool."""
    random = draw.rng("demo")
    chosen = permutation(random, len(word_lists.pool()))[: times.demo_words]
    listed = repeated(chosen, common, times.demo_often, times.demo_seldom)
    listed = listed[permutation(random, len(listed))]
    answers = " ".join(
        f"{i}. {book.word(number)}" for i, number in enumerate(chosen[:common].tolist(), 1)
    )
    return [template.head, *book.listed(listed), f"{template.tail}{template.prefix} {answers}\n"]


def _words(draw: SampleDraw, seldom: int) -> tuple[Book, Order]:
    """The words of a sample in the order in which it takes them: those of the pool, then more if there can be more.

    Our own wording goes on with made words. Upstream's takes all words from its long list instead as soon as the pool
    does not fill the length, and ended with the pool in 2024.
    """
    pool, random = len(word_lists.pool()), draw.rng("words")
    if draw.wording.own:
        extra = word_lists.made(max(0, draw.budget // (3 * seldom) - pool))
        order = [permutation(random, pool), pool + permutation(random, len(extra))]
        return _book(draw, extra, "made"), np.concatenate(order)
    book = _book(draw, (), "pool")
    if draw.wording.old or _least_cost(book, pool, seldom) > draw.budget:
        return book, permutation(random, pool)
    english = word_lists.english(path_of(ENGLISH, draw.shelf.data_dir))
    return _book(draw, english, "english"), pool + permutation(random, len(english))


def _least_cost(book: Book, pool: int, seldom: int) -> int:
    """Tokens of a list in which each word of the pool stands so seldom."""
    costs = book.number_costs
    return seldom * int(book.table.sizes[:pool].sum()) + int(
        costs[min(seldom * pool, len(costs) - 1)]
    )


def _book(draw: SampleDraw, extra: Sequence[str], name: str) -> Book:
    """The pool and more words, with numbers for the longest list."""
    count = draw.budget // 3 + SPARE

    def pieces() -> Iterator[str]:
        return chain(
            (f" {word}" for word in (*word_lists.pool(), *extra)),
            (f" {i}." for i in range(1, count + 1)),
        )

    def make() -> Book:
        table = draw.shelf.coder.table(list(pieces()))
        numbers = np.arange(len(table.texts) - count, len(table.texts))
        return Book(table, numbers, np.concatenate([[0], np.cumsum(table.sizes[numbers])]))

    return draw.shelf.once(make, "book", name, len(extra), count)


def _entries(book: Book, unasked: Order, done: int) -> Iterator[str]:
    """Further entries of the list."""
    for i in count():
        yield f" {done + i + 1}."
        yield book.table.texts[unasked[i % len(unasked)]]
