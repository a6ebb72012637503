"""Common words extraction: name the most frequent words of a numbered list, after a solved example.

Sources: arXiv 2404.06654, section 3; ``scripts/data/synthetic/common_words_extraction.py`` of
NVIDIA/RULER at c3f5e3b. An exact prompt continues the list with entries of words that are not
common.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from lampe_eval.assets import path_of
from lampe_eval.ruler import word_lists
from lampe_eval.ruler.length_fitting import PromptLayout, ScalableSample
from lampe_eval.ruler.piecewise_tokenizer import PieceRun, PieceTable, PromptPart
from lampe_eval.ruler.ruler_cards import CweParameters, Frequencies
from lampe_eval.ruler.ruler_wording import QuestionTemplate
from lampe_eval.ruler.sample_spec import SampleDraw
from lampe_eval.ruler.seeded_random import Indices, permutation

ENGLISH_WORDS = "ruler/english_words.json"
TOKENS_PER_ENTRY = 3
"""Fewest tokens that an entry such as " 17. word" is expected to take."""
SPARE_NUMBERS = 1_000
"""Numbers beyond those of a list whose entries all take that few tokens."""


@dataclass(frozen=True, eq=False)
class WordTable:
    """Words and the numbers of list entries in one table: words first, then " 1.", " 2." and so on.

    Attributes:
        table: the pieces, each with a space before it.
        numbers: places of the numbers in the table.
        number_tokens: element n is the number of tokens of the first n numbers.
    """

    table: PieceTable
    numbers: Indices
    number_tokens: Indices

    def numbered_list(self, words: Indices) -> list[PromptPart]:
        """Return the parts of a list such as "1. word 2. word"."""
        order = np.column_stack([self.numbers[: len(words)], words]).ravel()
        # every piece has a space before it, which a list must not begin with
        return ["1.", PieceRun(self.table, order[1:])]

    def word(self, number: int) -> str:
        """Return a word by its place in the table."""
        return self.table.texts[number].removeprefix(" ")


def common_words_sample(parameters: CweParameters, draw: SampleDraw) -> ScalableSample:
    """Return a sample; its units are the different words of the list."""
    # a short list has space for fewer entries, hence lower frequencies (as upstream)
    short = draw.spec.length < parameters.short_below
    times = parameters.short if short else parameters.long
    common = parameters.common
    template = draw.wording.templates["cwe"].fill(count=common, query="")
    words, order = _draw_words(draw, times.seldom)
    tokenizer = draw.corpora.tokenizer
    start = [*solved_example(draw, words, template, common, times), template.instruction]
    fixed_tokens = len(tokenizer.encode_parts(start)) + tokenizer.count_tokens(template.question)
    word_tokens = np.concatenate([[0], np.cumsum(words.table.sizes[order])])

    def entries(units: int) -> int:
        return common * times.often + (units - common) * times.seldom

    def estimate_tokens(units: int) -> int:
        common_tokens = times.often * word_tokens[common]
        other_tokens = times.seldom * (word_tokens[units] - word_tokens[common])
        number_tokens = words.number_tokens[entries(units)]
        return fixed_tokens + int(common_tokens + other_tokens + number_tokens)

    def layout(units: int) -> PromptLayout:
        listed = repeat_words(order[:units], common, times.often, times.seldom)
        # the shuffle depends on the number of units, so equal layouts are equal lists
        listed = listed[permutation(draw.rng("list", units), len(listed))]
        continuation = _further_entries(words, order[common:units], len(listed))
        return PromptLayout(
            [*start, *words.numbered_list(listed)], [template.question], continuation
        )

    entries_left = len(words.numbers) - common * times.often
    return ScalableSample(
        outputs=tuple(words.word(number) for number in order[:common].tolist()),
        answer_prefix=template.answer_prefix,
        min_units=common + 1,
        max_units=min(len(order), common + entries_left // times.seldom),
        estimate_tokens=estimate_tokens,
        layout=layout,
    )


def repeat_words(order: Indices, common: int, often: int, seldom: int) -> Indices:
    """Return the first ``common`` words ``often`` times each, the others ``seldom`` times each."""
    return np.concatenate([np.repeat(order[:common], often), np.repeat(order[common:], seldom)])


def solved_example(
    draw: SampleDraw, words: WordTable, template: QuestionTemplate, common: int, times: Frequencies
) -> list[PromptPart]:
    """Return the parts of the solved example, whose words are drawn from the pool."""
    random = draw.rng("demo")
    chosen = permutation(random, len(word_lists.word_pool()))[: times.demo_words]
    listed = repeat_words(chosen, common, times.demo_often, times.demo_seldom)
    listed = listed[permutation(random, len(listed))]
    answers = [
        f"{place}. {words.word(number)}" for place, number in enumerate(chosen[:common].tolist(), 1)
    ]
    answer = f"{template.question}{template.answer_prefix} {' '.join(answers)}\n"
    return [template.instruction, *words.numbered_list(listed), answer]


def _draw_words(draw: SampleDraw, seldom: int) -> tuple[WordTable, Indices]:
    """Return a table of words and the order in which the sample takes them.

    In our own wording the list continues with compound words after those of the pool. Upstream
    takes all words from its long list as soon as the pool does not fill the length; in 2024 its
    list ended with the pool.

    Args:
        draw: the sample.
        seldom: entries of each word that is not common.
    """
    pool_size = len(word_lists.word_pool())
    random = draw.rng("words")
    if draw.wording.is_own:
        # a list cannot have more different words than this, as each has `seldom` entries or more
        most_words = draw.max_prompt_tokens // (TOKENS_PER_ENTRY * seldom)
        extra = word_lists.compound_words(max(0, most_words - pool_size))
        order = [permutation(random, pool_size), pool_size + permutation(random, len(extra))]
        return _word_table(draw, extra, "made"), np.concatenate(order)
    words = _word_table(draw, (), "pool")
    fills_length = _pool_tokens(words, pool_size, seldom) > draw.max_prompt_tokens
    if draw.wording.is_2024 or fills_length:
        return words, permutation(random, pool_size)
    english = word_lists.english_words(path_of(ENGLISH_WORDS, draw.corpora.data_dir))
    words = _word_table(draw, english, "english")
    return words, pool_size + permutation(random, len(english))


def _pool_tokens(words: WordTable, pool_size: int, seldom: int) -> int:
    """Return the tokens of a list that has each word of the pool ``seldom`` times."""
    entries = min(seldom * pool_size, len(words.number_tokens) - 1)
    word_tokens = int(words.table.sizes[:pool_size].sum())
    return seldom * word_tokens + int(words.number_tokens[entries])


def _word_table(draw: SampleDraw, extra: Sequence[str], name: str) -> WordTable:
    """Return a table of the pool and further words, with the numbers of the longest list.

    Args:
        draw: the sample.
        extra: words after those of the pool.
        name: name of the further words, by which tables are cached.
    """
    number_count = draw.max_prompt_tokens // TOKENS_PER_ENTRY + SPARE_NUMBERS

    def build() -> WordTable:
        pieces = [f" {word}" for word in (*word_lists.word_pool(), *extra)]
        pieces += [f" {number}." for number in range(1, number_count + 1)]
        table = draw.corpora.tokenizer.build_table(pieces)
        numbers = np.arange(len(pieces) - number_count, len(pieces))
        number_tokens = np.concatenate([[0], np.cumsum(table.sizes[numbers])])
        return WordTable(table, numbers, number_tokens)

    return draw.corpora.cached(build, "words", name, len(extra), number_count)


def _further_entries(words: WordTable, others: Indices, entries: int) -> Iterator[str]:
    """Yield the pieces of entries that follow the first ``entries``, of words not common."""
    for i in count():
        yield f" {entries + i + 1}."
        yield words.table.texts[others[i % len(others)]]
