"""Frequent words extraction: which invented words of a text stand in it most often, where frequency falls with rank.

Sources: arXiv 2404.06654, section 3; ``scripts/data/synthetic/freq_words_extraction.py`` of NVIDIA/RULER at c3f5e3b.
The most frequent word is noise, three dots; an exact prompt is filled up with more of them.
"""

from functools import cache
from itertools import repeat
from math import ceil

import numpy as np
import numpy.typing as npt

from lampe_eval.ruler.length_fitting import PromptLayout, ScalableSample
from lampe_eval.ruler.piecewise_tokenizer import PieceRun
from lampe_eval.ruler.ruler_cards import FweParameters
from lampe_eval.ruler.sample_spec import SampleDraw
from lampe_eval.ruler.seeded_random import Order, letters_of, permutation

NOISE = "..."
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def puzzle(parameters: FweParameters, draw: SampleDraw) -> ScalableSample:
    """A sample before its length is chosen."""
    coder, asked = draw.shelf.coder, parameters.asked
    ranks = _ranks(parameters, draw)
    shares = frequencies(parameters.alpha, ranks)
    invented = letters_of(draw.rng("words"), LETTERS, parameters.letters, ranks - 1)
    template = draw.wording.templates["fwe"].filled(count=asked, query="")
    head, gap = (template.head[:-1], " ") if template.head.endswith(" ") else (template.head, "")
    table = coder.table([f" {word}" for word in (NOISE, *invented)])
    fixed = len(coder.first(head)) + coder.count(template.tail)

    def lay(units: int) -> PromptLayout:
        times = counts(shares, units)
        order = np.repeat(np.arange(ranks), times)
        order = order[permutation(draw.rng("text", units), len(order))]
        begin = (
            [PieceRun(table, order)]
            if gap
            else [table.texts[order[0]].removeprefix(" "), PieceRun(table, order[1:])]
        )
        return PromptLayout([head, *begin], [template.tail], more=repeat(table.texts[0]))

    return ScalableSample(
        outputs=tuple(invented[:asked]),
        prefix=template.prefix,
        least=_least(shares, asked),
        most=draw.budget,
        cost=lambda units: fixed + int(counts(shares, units) @ table.sizes),
        lay=lay,
    )


def frequencies(alpha: float, ranks: int) -> npt.NDArray[np.float64]:
    """Shares of the ranks: k to the power of -alpha, divided by zeta(alpha)."""
    return np.array([rank**-alpha / zeta(alpha) for rank in range(1, ranks + 1)])


def counts(shares: npt.NDArray[np.float64], total: int) -> Order:
    """How often each rank stands in a text of so many words, rounded down; the last ranks may not at all."""
    return np.floor(shares * total).astype(np.int64)


@cache
def zeta(alpha: float, terms: int = 1_000) -> float:
    """Riemann's function above 1: its first terms, and the rest by Euler and Maclaurin's formula."""
    head = sum(float(k) ** -alpha for k in range(1, terms))
    last = float(terms)
    return float(
        head
        + last ** (1 - alpha) / (alpha - 1)
        + last**-alpha / 2
        + alpha * last ** (-alpha - 1) / 12
    )


def _ranks(parameters: FweParameters, draw: SampleDraw) -> int:
    """Different words: one for every so many tokens of the length, but no more than can occur, and two unasked."""
    length = draw.recipe.length - draw.room
    occurring = ceil((draw.budget / zeta(parameters.alpha)) ** (1 / parameters.alpha))
    return int(max(parameters.asked + 2, min(length // parameters.vocabulary, occurring)))


def _least(shares: npt.NDArray[np.float64], asked: int) -> int:
    """Words from which on the last word asked for stands more often than the next."""
    return ceil(1 / float(shares[asked] - shares[asked + 1]))
