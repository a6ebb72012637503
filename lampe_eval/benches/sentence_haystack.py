"""Haystack of whole sentences, as token ids, of an exact number of tokens.

The sentences of a source are encoded once. A sample takes as many of them as fit, from a random
one on, and ends with further ones whose sizes fill what is left. Where no sizes do, full stops
close the gap. Facts and needles go between sentences, so that nothing is decoded or cut.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from lampe_eval.errors import UserError
from lampe_eval.ruler.piecewise_tokenizer import PieceTable, PiecewiseTokenizer, TokenIds
from lampe_eval.ruler.seeded_random import Indices
from lampe_eval.texts.documents import documents
from lampe_eval.texts.sentence_ends import sentence_starts, split_word

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAST_WORDS = 1 << 14
"""Words that a pool has at least, so that short samples do not all read the same sentences."""
CLOSING_TOKENS = 64
"""Tokens at the end of a haystack that sentences are chosen for by their sizes."""


@dataclass(frozen=True, eq=False)
class SentencePool:
    """Sentences of a source in their order.

    Attributes:
        tokenizer: tokenizer that encoded them.
        table: the sentences, each with the space before it.
        full_stop: id of the token that fills gaps.
    """

    tokenizer: PiecewiseTokenizer
    table: PieceTable
    full_stop: int

    def without(self, words: Collection[str]) -> Indices:
        """Return the numbers of the sentences without any of some words, nor their plurals.

        Raises:
            UserError: if there is none.
        """
        names = "|".join(map(re.escape, sorted(words)))
        pattern = re.compile(rf"(?<!\w)(?:{names})(?:s|es)?(?!\w)", re.IGNORECASE)
        numbers = [n for n, text in enumerate(self.table.texts) if not pattern.search(text)]
        if not numbers:
            raise UserError(
                "--haystack: every sentence of it names what is asked for, such as "
                f"{sorted(words)[0]!r}; use another text"
            )
        return np.array(numbers, dtype=np.int64)

    def draw(self, rng: Random, tokens: int, allowed: Indices) -> Haystack:
        """Return a haystack of exactly that many tokens.

        Args:
            rng: chooses where it begins, and the sentences at its end.
            tokens: number of tokens.
            allowed: numbers of the sentences that it may have.
        """
        order = np.roll(allowed, -rng.randrange(len(allowed)))
        sizes = self.table.sizes[order]
        # A source that is shorter is repeated.
        repeats = 1 + tokens // max(1, int(sizes.sum()))
        ends = np.cumsum(np.tile(sizes, repeats))
        count = int(np.searchsorted(ends, tokens - CLOSING_TOKENS, side="right"))
        first = np.resize(order, count)
        missing = tokens - int(ends[count - 1]) if count else tokens
        last = self._closing(rng, missing, allowed)
        missing -= int(self.table.sizes[last].sum())
        return Haystack(self, np.concatenate([first, last]), missing)

    def _closing(self, rng: Random, tokens: int, allowed: Indices) -> Indices:
        """Return sentences with as many tokens as possible, but no more than given."""
        by_size: dict[int, list[int]] = {}
        sizes = self.table.sizes[allowed].tolist()
        for number, size in zip(allowed.tolist(), sizes, strict=True):
            by_size.setdefault(size, []).append(number)
        numbers = [rng.choice(by_size[size]) for size in _sizes_of_sum(tokens, by_size)]
        return np.array(numbers, dtype=np.int64)


def _sizes_of_sum(total: int, sizes: Collection[int]) -> Iterator[int]:
    """Yield sizes, each as often as needed, whose sum is as near to a total as possible."""
    descending = sorted((size for size in sizes if 0 < size <= total), reverse=True)
    # A size by which each sum is reached; the largest, so that few sentences are repeated.
    last_sizes: dict[int, int] = {0: 0}
    for reached in range(1, total + 1):
        for size in descending:
            if reached - size in last_sizes:
                last_sizes[reached] = size
                break
    rest = max(last_sizes)
    while rest:
        yield last_sizes[rest]
        rest -= last_sizes[rest]


@dataclass(frozen=True, eq=False)
class Haystack:
    """Sentences of a sample.

    Attributes:
        pool: the pool that they are from.
        sentences: their numbers in the pool.
        full_stops: full stops at the end, which fill the last tokens.
    """

    pool: SentencePool
    sentences: Indices
    full_stops: int

    @property
    def ends(self) -> Indices:
        """Return the tokens before each gap: 0, and those up to the end of each sentence."""
        return np.concatenate([[0], np.cumsum(self.pool.table.sizes[self.sentences])])

    @property
    def sha256(self) -> str:
        """Return the hash of its sentences, which differ between samples of a longer source."""
        return sha256(self.pool.table.ids(self.sentences).tobytes()).hexdigest()

    def gap_at(self, depth: float) -> int:
        """Return the last gap at or before a depth in percent of the tokens."""
        ends = self.ends
        return int(np.searchsorted(ends, ends[-1] * depth / 100, side="right")) - 1

    def depth_of(self, gap: int) -> float:
        """Return the depth of a gap in percent of the tokens."""
        ends = self.ends
        return round(100 * float(ends[gap]) / max(1, int(ends[-1])), 2)

    def with_sentences(self, sentences: Sequence[str], gaps: Sequence[int]) -> TokenIds:
        """Return the ids with further sentences in gaps; those of one gap stay in their order.

        Args:
            sentences: the sentences, without a space before them.
            gaps: the gap of each, from 0 (before the first sentence) to their number.
        """
        placed = sorted(zip(gaps, range(len(gaps)), strict=True))
        encoded = self.pool.tokenizer.encode_pieces([f" {text}" for text in sentences])
        parts: list[TokenIds] = []
        start = 0
        for gap, number in placed:
            parts += [self.pool.table.ids(self.sentences[start:gap]), encoded[number]]
            start = gap
        parts.append(self.pool.table.ids(self.sentences[start:]))
        parts.append(np.full(self.full_stops, self.pool.full_stop, dtype=np.int32))
        return np.concatenate(parts)


@lru_cache(maxsize=2)
def sentence_pool(
    tokenizer: PreTrainedTokenizerBase, source: Path | None, data_dir: Path | None, words: int
) -> SentencePool:
    """Return the sentences of the first words of a source.

    Args:
        tokenizer: tokenizer of the model under test.
        source: the user's text, or None for texts of the pocket language.
        data_dir: folder with benchmark files, looked at before the cache.
        words: number of words; the pool has `LEAST_WORDS` at least, or all that the source has.
    """
    count = max(words, LEAST_WORDS)
    pieces: list[str] = []
    for text in documents(source, seed=0, words=count, data_dir=data_dir):
        for word in re.finditer(r"\S+", text):
            pieces += split_word(f" {word[0]}")
            if len(pieces) >= count:
                break
        if len(pieces) >= count:
            break
    starts = [*sentence_starts(pieces), len(pieces)]
    if len(starts) > 2 and len(pieces) >= count:
        starts.pop()  # the last sentence may have lost its end
    sentences = ["".join(pieces[start:stop]) for start, stop in pairwise(starts)]
    piecewise = PiecewiseTokenizer(tokenizer)
    full_stop = int(piecewise.encode_inside("a.")[-1])
    return SentencePool(piecewise, piecewise.build_table(sentences), full_stop)
