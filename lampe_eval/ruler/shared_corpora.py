"""Parts that the samples of all tasks share: encoded pieces, essays, pools of needles."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lampe_eval.assets import path_of
from lampe_eval.errors import UserError
from lampe_eval.file_io import read_json, sha256_of_text
from lampe_eval.ruler.piecewise_tokenizer import PieceTable, PiecewiseTokenizer
from lampe_eval.ruler.seeded_random import Indices
from lampe_eval.texts.sentence_ends import sentence_starts, split_word

if TYPE_CHECKING:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer  # type: ignore[import-untyped]
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
ESSAYS = "ruler/PaulGrahamEssays.json"
PUNKT = "ruler/punkt_tab.zip"


class SharedCorpora:
    """Tokenizer and texts of all samples, with a cache of what is computed from them.

    Args:
        tokenizer: tokenizer of the model under test.
        documents: function from a number of words to the texts that are the haystack in our own
            wording; together they may have fewer words.
        data_dir: folder with the benchmark's files, read before the cache of downloads.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        documents: Callable[[int], Iterable[str]] | None = None,
        data_dir: Path | None = None,
    ) -> None:
        self.tokenizer = PiecewiseTokenizer(tokenizer)
        self.documents = documents
        self.data_dir = data_dir
        self._cache: dict[tuple[object, ...], object] = {}

    def cached(self, compute: Callable[[], T], *key: object) -> T:
        """Return the value of ``compute()``, which is called once for each key."""
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]  # type: ignore[return-value]

    def piece_table(self, pieces: Callable[[], Iterable[str]], *key: object) -> PieceTable:
        """Return the table of the pieces that ``pieces()`` yields, built once for each key."""
        return self.cached(lambda: self.tokenizer.build_table(list(pieces())), "table", *key)

    def essays(self, words: int, *, from_documents: bool, repeat: bool) -> Essays:
        """Return the first ``words`` words of a haystack of essays.

        Args:
            words: number of words.
            from_documents: whether the text is that of ``documents``, which always repeats. It is
                upstream's essays otherwise.
            repeat: whether upstream's essays start again where they have fewer words.
        """
        return self.cached(
            lambda: self._read_essays(words, from_documents, repeat),
            *("essays", words, from_documents, repeat),
        )

    def _read_essays(self, count: int, from_documents: bool, repeat: bool) -> Essays:
        if from_documents:
            if self.documents is None:
                raise UserError("ruler: no texts for the haystack of essays were given")
            words = list(islice(_repeated_words(self.documents, count), count))
            return Essays.from_pieces(self.tokenizer, words, sentence_starts(words))
        source = read_essay_words(path_of(ESSAYS, self.data_dir))
        words = list(islice(cycle(source), count)) if repeat else source[:count]
        sentences = punkt(self.data_dir).tokenize(" ".join(words))
        return Essays.from_words(self.tokenizer, words, sentences)


@dataclass(frozen=True, eq=False)
class Essays:
    """Text in words and sentences, with the tokens of its first n words for every n.

    Upstream counts words and inserts needles between sentences. A sentence may end inside a word
    ("two.[1]"), which then consists of two pieces.

    Attributes:
        first_piece: the first piece, without a space before it.
        table: the different pieces, each with a space before it.
        pieces: the text as numbers of pieces in the table.
        piece_counts: element n is the number of pieces of the first n words.
        token_counts: element n is the number of tokens of the first n words.
        sentence_starts: places in ``pieces`` where sentences begin.
        sha256: hash of the text.
    """

    first_piece: str
    table: PieceTable
    pieces: Indices
    piece_counts: Indices
    token_counts: Indices
    sentence_starts: Indices
    sha256: str

    @classmethod
    def from_pieces(
        cls, tokenizer: PiecewiseTokenizer, words: list[str], sentence_starts: list[int]
    ) -> Essays:
        """Return the essays with these words, each with the space before it, if it has any."""
        numbers = {word: i for i, word in enumerate(dict.fromkeys(words))}
        table = tokenizer.build_table(list(numbers))
        order = np.array([numbers[word] for word in words], dtype=np.int64)
        token_counts = np.concatenate([[0], np.cumsum(table.sizes[order])])
        starts = np.array(sentence_starts, dtype=np.int64)
        first = words[0].removeprefix(" ")
        piece_counts = np.arange(len(words) + 1)
        digest = sha256_of_text("".join(words))
        return cls(first, table, order, piece_counts, token_counts, starts, digest)

    @classmethod
    def from_words(
        cls, tokenizer: PiecewiseTokenizer, words: list[str], sentences: list[str]
    ) -> Essays:
        """Return the essays with these words, which the sentences split further where necessary."""
        pieces_of_sentences = [sentence.split() for sentence in sentences]
        pieces = list(chain.from_iterable(pieces_of_sentences))
        numbers = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
        table = tokenizer.build_table([f" {piece}" for piece in numbers])
        order = np.array([numbers[piece] for piece in pieces], dtype=np.int64)
        # Words and pieces have the same letters in the same order, so a word ends with the piece
        # at which as many letters were read.
        letters_of_pieces = _cumulative(map(len, pieces))
        piece_counts = np.searchsorted(letters_of_pieces, _cumulative(map(len, words)))
        token_counts = np.concatenate([[0], np.cumsum(table.sizes[order])])[piece_counts]
        sentence_starts = _cumulative(map(len, pieces_of_sentences))[:-1]
        digest = sha256_of_text(" ".join(words))
        return cls(pieces[0], table, order, piece_counts, token_counts, sentence_starts, digest)


def _cumulative(sizes: Iterable[int]) -> Indices:
    """Return the sums of the first 0, 1, 2, ... sizes."""
    return np.array(list(accumulate(sizes, initial=0)), dtype=np.int64)


def _repeated_words(documents: Callable[[int], Iterable[str]], count: int) -> Iterator[str]:
    """Yield the words of documents with a space before each, again and again.

    A page of Chinese has no spaces; its parts follow each other without one.
    """
    while True:
        empty = True
        for text in documents(count):
            # One after another: a text may have megabytes more than a prompt needs.
            for word in re.finditer(r"\S+", text):
                empty = False
                yield from split_word(f" {word[0]}")
        if empty:
            raise UserError("ruler: the texts for the haystack have no words")


@lru_cache(maxsize=4)
def punkt(data_dir: Path | None) -> PunktSentenceTokenizer:
    """Return NLTK's Punkt for English, as ``nltk.sent_tokenize`` uses it."""
    from nltk.tokenize.punkt import PunktSentenceTokenizer  # imported here, as it takes seconds

    def lines(name: str) -> list[str]:
        path = path_of(f"{PUNKT}!/punkt_tab/english/{name}", data_dir)
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")

    tokenizer = PunktSentenceTokenizer()
    tokenizer._params = punkt_parameters(lines)
    return tokenizer


def punkt_parameters(lines: Callable[[str], list[str]]) -> PunktParameters:
    """Return Punkt's parameters.

    Args:
        lines: function from the name of a table to its lines.
    """
    from nltk.tokenize.punkt import PunktParameters

    parameters = PunktParameters()
    parameters.collocations = {tuple(line.split("\t")) for line in lines("collocations.tab")}
    parameters.sent_starters = set(lines("sent_starters.txt"))
    parameters.abbrev_types = set(lines("abbrev_types.txt"))
    for line in lines("ortho_context.tab"):
        word, bits = line.split("\t")
        parameters.ortho_context[word] = int(bits)
    return parameters


@lru_cache(maxsize=2)
def read_essay_words(path: Path) -> list[str]:
    """Return the words of upstream's file of essays.

    Raises:
        UserError: if the file has no ``text``.
    """
    try:
        text = read_json(path)["text"]
        words: list[str] = text.split()
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: must be a JSON object with a text ({type(error).__name__}: {error})"
        ) from None
    if not words:
        raise UserError(f"{path}: its text is empty")
    return words
