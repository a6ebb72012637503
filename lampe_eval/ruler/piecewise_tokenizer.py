"""Text to token ids, piece by piece: every piece is encoded once, however often it stands in however many prompts.

Joined ids of pieces equal those of the joined text where no token of the tokenizer reaches over a cut. So pieces are
cut where usual tokenizers cut anyway: before the space of a word, and after a newline. A piece is encoded with a letter
or newline before it and, if it ends a line, a letter after it, and these are taken off again: so a sentencepiece
tokenizer adds no space to it, and one with GPT-2's pattern splits its newlines as it does inside a text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from lampe_eval.ruler.seeded_random import Order

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class PieceTable:
    """Pieces with their ids: those of piece i are ``flat[starts[i] : starts[i] + sizes[i]]``."""

    texts: tuple[str, ...]
    flat: Ids
    starts: Order
    sizes: Order

    def ids(self, order: Order) -> Ids:
        """Ids of pieces one after the other."""
        sizes = self.sizes[order]
        ends = np.cumsum(sizes)
        steps = np.arange(ends[-1] if len(ends) else 0)
        found: Ids = self.flat[steps + np.repeat(self.starts[order] - ends + sizes, sizes)]
        return found

    def text(self, order: Order) -> str:
        """Their text."""
        return "".join(self.texts[i] for i in order.tolist())

    def onward(self, order: Order, done: int) -> Iterator[str]:
        """The pieces of an order that follow the first ``done``, then all of them again and again."""
        return (self.texts[order[i % len(order)]] for i in count(done))


@dataclass(frozen=True, eq=False)
class PieceRun:
    """Pieces of a table in an order."""

    table: PieceTable
    order: Order


PromptPart = str | PieceRun


class PiecewiseTokenizer:
    """A tokenizer with a memory.

    Args:
        tokenizer: called with a list of texts, ``add_special_tokens=False`` and ``verbose=False``.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, Ids] = {}
        self._newline, self._letter = self._plain("\n"), self._plain("a")
        self._after = self._plain("\nT")[len(self._newline) :]

    def first(self, text: str) -> Ids:
        """Ids of a text with nothing before it."""
        return np.array(self._plain(text), dtype=np.int32)

    def ids(self, piece: str) -> Ids:
        """Ids of a piece that stands after another."""
        return self.many([piece])[0]

    def many(self, pieces: Sequence[str]) -> list[Ids]:
        """Ids of pieces, those that are new encoded together."""
        new = list({piece: None for piece in pieces if piece not in self._known})
        for piece, ids in zip(new, self._batch([_framed(piece) for piece in new]), strict=True):
            self._known[piece] = np.array(self._bare(piece, ids), dtype=np.int32)
        return [self._known[piece] for piece in pieces]

    def table(self, pieces: Sequence[str]) -> PieceTable:
        """Pieces as a table."""
        ids = self.many(pieces)
        sizes = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        flat = np.concatenate([*ids, np.empty(0, dtype=np.int32)])
        return PieceTable(tuple(pieces), flat, np.cumsum(sizes) - sizes, sizes)

    def count(self, *pieces: str) -> int:
        """Tokens of pieces."""
        return sum(map(len, self.many(pieces)))

    def joined(self, parts: Sequence[PromptPart], *, begun: bool = False) -> Ids:
        """Ids of the parts of a prompt; before the first stands nothing, unless the prompt has begun."""
        ids = [self._part(part, first=i == 0 and not begun) for i, part in enumerate(parts)]
        return np.concatenate([np.empty(0, dtype=np.int32), *ids])

    def text(self, parts: Sequence[PromptPart]) -> str:
        """Text of the parts of a prompt."""
        return "".join(
            part if isinstance(part, str) else part.table.text(part.order) for part in parts
        )

    def _part(self, part: PromptPart, *, first: bool) -> Ids:
        if isinstance(part, PieceRun):
            return part.table.ids(part.order)
        return self.first(part) if first else self.ids(part)

    def _plain(self, text: str) -> list[int]:
        return self._batch([text])[0] if text else []

    def _batch(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded: list[list[int]] = self.tokenizer(texts, add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return encoded

    def _bare(self, piece: str, ids: list[int]) -> list[int]:
        """Ids without those of the frame; where a token reaches over its edge, the ids of the piece alone."""
        before = self._letter if piece.startswith("\n") else self._newline
        after = self._after if piece.endswith("\n") else []
        end = len(ids) - len(after)
        if ids[: len(before)] == before and ids[end:] == after and len(before) <= end:
            return ids[len(before) : end]
        return self._plain(piece)


def _framed(piece: str) -> str:
    before = "a" if piece.startswith("\n") else "\n"
    return before + piece + ("T" if piece.endswith("\n") else "")
