"""Frequent words extraction: name the most frequent invented words of a text.

The frequency of a word falls with its rank. Sources: arXiv 2404.06654, section 3;
``scripts/data/synthetic/freq_words_extraction.py`` of NVIDIA/RULER at c3f5e3b. The most frequent
word is noise, three dots; an exact prompt is filled with more of them.
"""

from functools import cache
from itertools import repeat
from math import ceil
from string import ascii_lowercase

import numpy as np
import numpy.typing as npt

from lampe_eval.ruler.length_fitting import PromptLayout, ScalableSample
from lampe_eval.ruler.piecewise_tokenizer import PieceRun, PromptPart
from lampe_eval.ruler.ruler_cards import FweParameters
from lampe_eval.ruler.sample_spec import SampleDraw
from lampe_eval.ruler.seeded_random import Indices, distinct_strings, permutation

NOISE = "..."


def frequent_words_sample(parameters: FweParameters, draw: SampleDraw) -> ScalableSample:
    """Return a sample; its units are the words of the text."""
    tokenizer = draw.corpora.tokenizer
    ranks = _rank_count(parameters, draw)
    shares = rank_shares(parameters.alpha, ranks)
    invented = distinct_strings(draw.rng("words"), ascii_lowercase, parameters.letters, ranks - 1)
    template = draw.wording.templates["fwe"].fill(count=parameters.asked, query="")
    # Where the instruction ends with a space, the space belongs to the first word, as pieces are
    # cut before spaces.
    spaced = template.instruction.endswith(" ")
    instruction = template.instruction.removesuffix(" ")
    table = tokenizer.build_table([f" {word}" for word in (NOISE, *invented)])
    fixed_tokens = len(tokenizer.encode_beginning(instruction))
    fixed_tokens += tokenizer.count_tokens(template.question)

    def layout(units: int) -> PromptLayout:
        # rank 0 is noise, rank k the k-th invented word; the last ranks may not occur at all
        order = np.repeat(np.arange(ranks), rank_counts(shares, units))
        order = order[permutation(draw.rng("text", units), len(order))]
        words: list[PromptPart]
        if spaced:
            words = [PieceRun(table, order)]
        else:
            words = [table.texts[order[0]].removeprefix(" "), PieceRun(table, order[1:])]
        return PromptLayout(
            [instruction, *words], [template.question], continuation=repeat(table.texts[0])
        )

    return ScalableSample(
        outputs=tuple(invented[: parameters.asked]),
        answer_prefix=template.answer_prefix,
        # below this many words the last word asked for is not more frequent than the next
        min_units=_min_words(shares, parameters.asked),
        max_units=draw.max_prompt_tokens,
        estimate_tokens=lambda units: fixed_tokens + int(rank_counts(shares, units) @ table.sizes),
        layout=layout,
    )


def rank_shares(alpha: float, ranks: int) -> npt.NDArray[np.float64]:
    """Return the share of each rank in a text: rank to the power of -alpha, by zeta(alpha)."""
    return np.array([rank**-alpha / zeta(alpha) for rank in range(1, ranks + 1)])


def rank_counts(shares: npt.NDArray[np.float64], words: int) -> Indices:
    """Return how often each rank occurs in a text of ``words`` words, rounded down."""
    return np.floor(shares * words).astype(np.int64)


@cache
def zeta(alpha: float, terms: int = 1_000) -> float:
    """Return Riemann's zeta function for ``alpha`` above 1."""
    # The first terms are summed, the rest follows from the Euler-Maclaurin formula.
    first = sum(float(k) ** -alpha for k in range(1, terms))
    last = float(terms)
    integral = last ** (1 - alpha) / (alpha - 1)
    return float(first + integral + last**-alpha / 2 + alpha * last ** (-alpha - 1) / 12)


def _rank_count(parameters: FweParameters, draw: SampleDraw) -> int:
    """Return the number of different words, noise included.

    It is one for every ``vocabulary`` tokens, but no more than can occur in the text, and at least
    two more than the words asked for: noise, and one word that is less frequent.
    """
    length = draw.spec.length - draw.answer_tokens
    zeta_of_alpha = zeta(parameters.alpha)
    occurring = ceil((draw.max_prompt_tokens / zeta_of_alpha) ** (1 / parameters.alpha))
    return int(max(parameters.asked + 2, min(length // parameters.vocabulary, occurring)))


def _min_words(shares: npt.NDArray[np.float64], asked: int) -> int:
    """Return from how many words on the last word asked for is more frequent than the next one."""
    return ceil(1 / float(shares[asked] - shares[asked + 1]))
