"""What the samples of all tasks share and is made once: encoded words, essays, pools of needles, documents."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, cycle, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from lampe_eval.assets import path_of
from lampe_eval.errors import UserError
from lampe_eval.ruler.piecewise_tokenizer import PieceTable, PiecewiseTokenizer
from lampe_eval.ruler.seeded_random import Order

if TYPE_CHECKING:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer  # type: ignore[import-untyped]

T = TypeVar("T")
ESSAYS = "ruler/PaulGrahamEssays.json"
PUNKT = "ruler/punkt_tab.zip"


class SharedCorpora:
    """Shared parts of all samples for one tokenizer.

    Args:
        documents: texts of the haystack in our own wording, given how many words are wanted.
        data_dir: folder with the benchmark's files, looked at before the cache.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        documents: Callable[[int], Iterable[str]] | None = None,
        data_dir: Path | None = None,
    ) -> None:
        self.coder = PiecewiseTokenizer(tokenizer)
        self.documents = documents
        self.data_dir = data_dir
        self._made: dict[tuple[object, ...], object] = {}

    def once(self, make: Callable[[], T], *key: object) -> T:
        """What ``make`` returned when it was first asked for under this key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]

    def table(self, pieces: Callable[[], Iterable[str]], *key: object) -> PieceTable:
        """Pieces as a table, made once for the key."""
        return self.once(lambda: self.coder.table(list(pieces())), "table", *key)

    def essays(self, words: int, *, own: bool, old: bool) -> "Essays":
        """So many words of haystack; essays that are shorter are repeated, unless as of 2024."""
        return self.once(lambda: self._essays(words, own=own, old=old), "essays", words, own, old)

    def _essays(self, words: int, *, own: bool, old: bool) -> "Essays":
        if own:
            if self.documents is None:
                raise UserError("ruler: no texts for the haystack of essays were given")
            found = list(islice(_endless(self.documents, words), words))
            return Essays.of(self.coder, found, sentences(found))
        read = squeezed(path_of(ESSAYS, self.data_dir))
        found = read[:words] if old else list(islice(cycle(read), words))
        return Essays.of(self.coder, found, punkt(self.data_dir).tokenize(" ".join(found)))


@dataclass(frozen=True, eq=False)
class Essays:
    """A text as words, some of which a sentence ends within: they count as one, but come in two pieces.

    Attributes:
        first: its first piece.
        table: different pieces, each with a space before it.
        pieces: numbers in the table.
        ends: how many pieces the first n words have.
        costs: their tokens.
        starts: pieces with which sentences begin.
    """

    first: str
    table: PieceTable
    pieces: Order
    ends: Order
    costs: Order
    starts: Order

    @classmethod
    def of(cls, coder: PiecewiseTokenizer, words: list[str], sentences: list[str]) -> "Essays":
        split = [sentence.split() for sentence in sentences]
        pieces = list(chain.from_iterable(split))
        numbers = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
        table = coder.table([f" {piece}" for piece in numbers])
        order = np.array([numbers[piece] for piece in pieces], dtype=np.int64)
        # words and pieces have the same letters, so that both end where as many letters were read
        ends = np.searchsorted(_cumulated(map(len, pieces)), _cumulated(map(len, words)))
        costs = np.concatenate([[0], np.cumsum(table.sizes[order])])[ends]
        return cls(pieces[0], table, order, ends, costs, _cumulated(map(len, split))[:-1])


def _cumulated(sizes: Iterable[int]) -> Order:
    """Sums of none, the first, the first two, and so on."""
    return np.array(list(accumulate(sizes, initial=0)), dtype=np.int64)


def _endless(documents: Callable[[int], Iterable[str]], count: int) -> Iterator[str]:
    """The words of documents; when all were read, again."""
    while True:
        empty = True
        for text in documents(count):
            words = text.split()
            empty = empty and not words
            yield from words
        if empty:
            raise UserError("ruler: the texts for the haystack have no words")


def sentences(words: list[str]) -> list[str]:
    """Sentences of a text: one ends after each word that ends in a full stop, ``?`` or ``!``, quoted or not."""
    end = re.compile(r"[.?!][\"')\]\u201d\u2019]*$")
    ends = [i for i, word in enumerate(words[:-1], 1) if end.search(word)]
    return [" ".join(words[start:stop]) for start, stop in pairwise([0, *ends, len(words)])]


@lru_cache(maxsize=4)
def punkt(data_dir: Path | None) -> "PunktSentenceTokenizer":
    """NLTK's Punkt for English, as ``nltk.sent_tokenize`` uses it."""
    from nltk.tokenize.punkt import PunktSentenceTokenizer  # here, as it takes seconds

    def lines(name: str) -> list[str]:
        path = path_of(f"{PUNKT}!/punkt_tab/english/{name}", data_dir)
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")

    tokenizer = PunktSentenceTokenizer()
    tokenizer._params = punkt_parameters(lines)
    return tokenizer


def punkt_parameters(lines: Callable[[str], list[str]]) -> "PunktParameters":
    """Punkt's parameters, given the lines of each of its tables."""
    from nltk.tokenize.punkt import PunktParameters

    parameters = PunktParameters()
    parameters.collocations = {tuple(line.split("\t")) for line in lines("collocations.tab")}
    parameters.sent_starters = set(lines("sent_starters.txt"))
    parameters.abbrev_types = set(lines("abbrev_types.txt"))
    parameters.ortho_context.update(
        (word, int(bits))
        for word, bits in (line.split("\t") for line in lines("ortho_context.tab"))
    )
    return parameters


@lru_cache(maxsize=2)
def squeezed(path: Path) -> list[str]:
    """The words of the essays.

    Raises:
        UserError: for a file without ``text``.
    """
    try:
        text = json.loads(path.read_text(encoding="utf-8"))["text"]
        words: list[str] = text.split()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: must be a JSON object with a text ({type(error).__name__}: {error})"
        ) from None
    if not words:
        raise UserError(f"{path}: its text is empty")
    return words
