"""Tokenizer that encodes prompts piece by piece, each distinct piece once.

A haystack repeats few pieces (a line of filler, a word, a document) in many orders, in hundreds of
prompts. Encoding every prompt as a whole would tokenize the same text again and again; looking up
the ids of its pieces and joining them takes milliseconds.

Joined ids of pieces equal the ids of the joined text if no token of the tokenizer spans a cut.
Pieces are therefore cut where common tokenizers split a text anyway: before the space in front of
a word, and after a newline.

A tokenizer may treat the ends of a text differently from its inside. A piece is therefore encoded
in context, and the ids of the context are removed again:

* A newline (or a letter, if the piece begins with a newline) stands before it, because
  sentencepiece tokenizers add a space to the beginning of a text.
* A letter stands after a piece that ends with a newline, because tokenizers with GPT-2's pattern
  split a newline at the end of a text differently from one before a letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lampe_eval.ruler.seeded_random import Indices

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TokenIds = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class PieceTable:
    """Pieces of text with their token ids, all in one flat array.

    The ids of piece i are ``flat_ids[starts[i] : starts[i] + sizes[i]]``.

    Attributes:
        texts: the pieces.
        flat_ids: ids of all pieces, one after the other.
        starts: for each piece, where its ids begin.
        sizes: for each piece, its number of tokens.
    """

    texts: tuple[str, ...]
    flat_ids: TokenIds
    starts: Indices
    sizes: Indices

    def ids(self, order: Indices) -> TokenIds:
        """Return the ids of the pieces with the given numbers, one piece after the other."""
        sizes = self.sizes[order]
        ends = np.cumsum(sizes)
        total = ends[-1] if len(ends) else 0
        # Piece k of the order fills the output from ends[k] - sizes[k] on. Adding this shift to an
        # output index gives the index in flat_ids; a loop over pieces would be slow in Python.
        shifts = np.repeat(self.starts[order] - (ends - sizes), sizes)
        ids: TokenIds = self.flat_ids[np.arange(total) + shifts]
        return ids

    def text(self, order: Indices) -> str:
        """Return the text of the pieces with the given numbers."""
        return "".join(self.texts[number] for number in order.tolist())

    def cycle_from(self, order: Indices, start: int) -> Iterator[str]:
        """Return the texts of an order from place ``start`` on, repeating the order without end."""
        return (self.texts[order[place % len(order)]] for place in count(start))


@dataclass(frozen=True, eq=False)
class PieceRun:
    """Pieces of a table in an order.

    Attributes:
        table: table of the pieces.
        order: numbers of the pieces.
    """

    table: PieceTable
    order: Indices


PromptPart = str | PieceRun


class PiecewiseTokenizer:
    """Tokenizer that remembers the ids of every piece it has encoded.

    Args:
        tokenizer: called with a list of texts. Pieces are data, so what spells a special token
            is encoded as the letters that it is.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._ids_of_piece: dict[str, TokenIds] = {}
        self._newline_ids = self._encode("\n")
        self._letter_ids = self._encode("a")
        # The ids of "T" after a newline, which may differ from those at the beginning of a text.
        self._following_ids = self._encode("\nT")[len(self._newline_ids) :]

    def encode_beginning(self, text: str) -> TokenIds:
        """Return the ids of a text that begins a prompt."""
        return np.array(self._encode(text), dtype=np.int32)

    def encode_inside(self, piece: str) -> TokenIds:
        """Return the ids of a piece that stands after other text."""
        return self.encode_pieces([piece])[0]

    def encode_pieces(self, pieces: Sequence[str]) -> list[TokenIds]:
        """Return the ids of each piece; new pieces are encoded together in one batch."""
        new = list(dict.fromkeys(piece for piece in pieces if piece not in self._ids_of_piece))
        encoded = self._encode_batch([_with_context(piece) for piece in new])
        for piece, ids in zip(new, encoded, strict=True):
            self._ids_of_piece[piece] = np.array(self._without_context(piece, ids), dtype=np.int32)
        return [self._ids_of_piece[piece] for piece in pieces]

    def build_table(self, pieces: Sequence[str]) -> PieceTable:
        """Return a table of pieces."""
        ids = self.encode_pieces(pieces)
        sizes = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        flat_ids = np.concatenate([*ids, np.empty(0, dtype=np.int32)])
        return PieceTable(tuple(pieces), flat_ids, np.cumsum(sizes) - sizes, sizes)

    def count_tokens(self, *pieces: str) -> int:
        """Return the number of tokens of pieces that stand after other text."""
        return sum(map(len, self.encode_pieces(pieces)))

    def encode_parts(self, parts: Sequence[PromptPart], *, at_beginning: bool = True) -> TokenIds:
        """Return the joined ids of parts of a prompt.

        Args:
            parts: texts and runs of pieces.
            at_beginning: whether the first part begins the prompt.
        """
        ids = [np.empty(0, dtype=np.int32)]
        for number, part in enumerate(parts):
            if isinstance(part, PieceRun):
                ids.append(part.table.ids(part.order))
            elif at_beginning and number == 0:
                ids.append(self.encode_beginning(part))
            else:
                ids.append(self.encode_inside(part))
        return np.concatenate(ids)

    def join_text(self, parts: Sequence[PromptPart]) -> str:
        """Return the joined text of parts of a prompt."""
        texts = [part if isinstance(part, str) else part.table.text(part.order) for part in parts]
        return "".join(texts)

    def _encode(self, text: str) -> list[int]:
        return self._encode_batch([text])[0] if text else []

    def _encode_batch(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded: list[list[int]]
        encoded = self.tokenizer(
            texts, add_special_tokens=False, verbose=False, split_special_tokens=True
        )["input_ids"]
        return encoded

    def _without_context(self, piece: str, ids: list[int]) -> list[int]:
        """Return the ids of a piece, given its ids together with those of its context."""
        before = self._letter_ids if piece.startswith("\n") else self._newline_ids
        after = self._following_ids if piece.endswith("\n") else []
        end = len(ids) - len(after)
        if len(before) <= end and ids[: len(before)] == before and ids[end:] == after:
            return ids[len(before) : end]
        # Where a token spans the edge between piece and context, the ids of the piece alone are the
        # best there is.
        return self._encode(piece)


def _with_context(piece: str) -> str:
    """Return a piece between the characters that make it an inner part of a text."""
    before = "a" if piece.startswith("\n") else "\n"
    after = "T" if piece.endswith("\n") else ""
    return before + piece + after
