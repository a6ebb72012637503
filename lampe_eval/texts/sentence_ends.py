"""Ends of sentences in any script, in text and in token ids.

Needles go between sentences. English prose ends them in `.`, `?` or `!`; other scripts have marks
of their own, and some texts have none at all. A needle that finds no end of a sentence near its
depth would lie far before it, so there any boundary between two tokens will do.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from lampe_eval.prompts.tokenization import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASCII_MARKS = (".", "?", "!")
OTHER_MARKS = "。！？｡．؟۔।॥။።՜՞։"
"""Marks of Chinese and Japanese, Arabic and Urdu, Hindi, Burmese, Amharic and Armenian."""
CLOSING = "\"')\\]\u201d\u2019\u300d\u300f\u3011\uff09\u300b"
"""Brackets and quotation marks that may follow a mark, for a regular expression."""

MAX_SENTENCE_TOKENS = 256
"""Tokens in which prose always has an end of a sentence; after as many, none is expected."""
PROSE_SENTENCE_TOKENS = 64
"""Mean tokens of a sentence up to which a text counts as prose without a look at its letters."""
PROSE_SENTENCE_LETTERS = 400
"""Mean letters of a sentence up to which a text counts as prose. English has about 120."""
MIN_TEXT_TOKENS = 64
"""Tokens of a text in which one sentence may be all there is."""
MAX_LETTER_TOKENS = 8
"""Tokens that one letter may take; a byte-level vocabulary needs up to four for most scripts."""


@dataclass(frozen=True)
class SentenceEnds:
    """Ends of sentences of a tokenizer's ids.

    Attributes:
        tokens: tokens whose text ends a sentence.
        sequences: marks that take several tokens, as byte-level vocabularies spell rare scripts.
        decode: returns the text of ids.
    """

    tokens: frozenset[int]
    sequences: tuple[tuple[int, ...], ...]
    decode: Callable[[Sequence[int]], str]

    def places(self, ids: Sequence[int], depths: Sequence[float]) -> list[int]:
        """Return the place of a needle for each depth: how many of the ids stand before it.

        It is the last end of a sentence at or before the depth. Where a text has no sentences, it
        is the last boundary between two letters.

        Args:
            ids: token ids of the haystack.
            depths: wanted depths, in percent of the ids.
        """
        boundaries = self._boundaries(ids)
        is_prose = self._is_prose(ids, boundaries)
        places = []
        for depth in depths:
            target = len(ids) * depth / 100
            place = boundaries[bisect_right(boundaries, target) - 1]
            if not is_prose or target - place > MAX_SENTENCE_TOKENS:
                place = self._letter_boundary(ids, place, int(target))
            places.append(place)
        return places

    def _boundaries(self, ids: Sequence[int]) -> list[int]:
        """Return 0 and every place after an end of a sentence, ascending."""
        found = {0}
        found.update(end for end, token in enumerate(ids, 1) if token in self.tokens)
        for sequence in self.sequences:
            found.update(_ends_of(ids, sequence))
        return sorted(found)

    def _is_prose(self, ids: Sequence[int], boundaries: Sequence[int]) -> bool:
        """Return whether a text has sentences of the length that prose has."""
        if len(ids) < MIN_TEXT_TOKENS or len(ids) <= PROSE_SENTENCE_TOKENS * len(boundaries):
            return True
        # Counted in letters, since a vocabulary of bytes or letters takes many tokens for a word.
        letters = len(self.decode(ids))
        return len(boundaries) > 1 and letters <= PROSE_SENTENCE_LETTERS * len(boundaries)

    def _letter_boundary(self, ids: Sequence[int], first: int, target: int) -> int:
        """Return the last place up to `target`, and not before `first`, that splits no letter."""
        for place in range(target, max(first, target - MAX_LETTER_TOKENS), -1):
            # A part of a letter is decoded as the replacement character.
            window = ids[place : place + MAX_LETTER_TOKENS]
            if not self.decode(window).startswith("\ufffd"):
                return place
        return target


def _ends_of(ids: Sequence[int], sequence: tuple[int, ...]) -> Iterator[int]:
    """Yield every place after an occurrence of a sequence of ids."""
    last = sequence[-1]
    for end, token in enumerate(ids, 1):
        if token == last and tuple(ids[max(0, end - len(sequence)) : end]) == sequence:
            yield end


@lru_cache(maxsize=4)
def sentence_ends(tokenizer: PreTrainedTokenizerBase, *, with_ascii: bool = True) -> SentenceEnds:
    """Return the ends of sentences in a vocabulary.

    Args:
        tokenizer: the tokenizer.
        with_ascii: whether a token that ends in `?`, `!`, a newline or letters with a full stop
            counts, or among ASCII ones only those that are nothing but a full stop, as in the
            original needle test.
    """
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    marks = (*ASCII_MARKS, "\n", *OTHER_MARKS) if with_ascii else tuple(OTHER_MARKS)
    tokens = set()
    for token, text in enumerate(texts):
        if text.rstrip(" ").endswith(marks) or (not with_ascii and text == "."):
            tokens.add(token)
    sequences = []
    for mark in OTHER_MARKS:
        # Encoded after a letter, as a mark stands in a text.
        letter = encode(tokenizer, "a", is_data=True)
        ids = encode(tokenizer, f"a{mark}", is_data=True)
        if ids[: len(letter)] == letter and len(ids) > len(letter) + 1:
            sequences.append(tuple(ids[len(letter) :]))

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids)))

    return SentenceEnds(frozenset(tokens), tuple(sequences), decode)


SENTENCE_END = re.compile(rf"(?:[.?!][\"')\]\u201d\u2019]*|[{OTHER_MARKS}][{CLOSING}]*)$")
"""Pattern of the last word of a sentence."""
_SENTENCE = re.compile(rf"[^{OTHER_MARKS}]*[{OTHER_MARKS}]+[{CLOSING}]*|[^{OTHER_MARKS}]+$")
"""Pattern of a sentence of a script without spaces, or of the rest after the last one."""

SPACELESS = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff01-\uff9f"
    "\U00020000-\U0003ffff]"
)
"""Letters of scripts that put no spaces between words, such as Chinese, Japanese and Thai."""
MAX_WORD_LETTERS = 256
"""Letters that a word of a script with spaces may have."""
CHUNK_LETTERS = 32
"""Letters of the parts into which a text without spaces is split."""
PROSE_SENTENCE_WORDS = 64
"""Mean words of a sentence up to which a text counts as prose; English has about 20."""
MAX_SENTENCE_WORDS = 256
"""Words in which prose always has an end of a sentence."""


def split_word(word: str) -> list[str]:
    """Return a word, or the parts of what has no spaces: its sentences in chunks of a few letters.

    A URL or a line of dashes is a word; a page of Chinese is none.
    """
    longest = CHUNK_LETTERS if SPACELESS.search(word) else MAX_WORD_LETTERS
    chunks = []
    for sentence in _SENTENCE.findall(word):
        if len(sentence) <= longest:
            chunks.append(sentence)
            continue
        starts = range(0, len(sentence), CHUNK_LETTERS)
        chunks += [sentence[start : start + CHUNK_LETTERS] for start in starts]
    return chunks


def sentence_starts(words: Sequence[str]) -> list[int]:
    """Return where sentences begin: 0, and each place after a word that ends one.

    A text without sentences has one at every word, so that a needle finds a place near its depth.
    """
    starts = [0, *[place for place, word in enumerate(words, 1) if SENTENCE_END.search(word)]]
    if starts[-1] == len(words):
        starts.pop()
    if len(words) > PROSE_SENTENCE_WORDS * max(1, len(starts)):
        return list(range(len(words)))
    filled: list[int] = []
    for start, stop in pairwise([*starts, len(words)]):
        is_run_on = stop - start > MAX_SENTENCE_WORDS
        filled += range(start, stop) if is_run_on else [start]
    return filled
