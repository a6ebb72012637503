"""Fitting a prompt to its exact length: as many units of haystack as fit, then part of one more.

A task describes a sample as a `ScalableSample`: everything but its number of units. The tokens of
a prompt grow with its units, and the tokens of its pieces are known. So the largest number of units
that fits is found by bisection, without building a prompt. Upstream searches likewise, but its
prompts consist of whole units and are a little shorter than the length.

To reach the exact length, a prompt made of ids continues its haystack with the first tokens of
further units, and a closing piece where there is space for it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from lampe_eval.errors import UserError
from lampe_eval.ruler.piecewise_tokenizer import PiecewiseTokenizer, PromptPart, TokenIds

MAX_CORRECTIONS = 32
"""Largest number of times that the units are reduced because the estimate was too low."""

MAX_PIECES_PER_TOKEN = 8
"""Pieces that are tried for each missing token.

The number is limited because a tokenizer may give no token at all for some pieces.
"""

NO_IDS: TokenIds = np.empty(0, dtype=np.int32)


@dataclass(frozen=True)
class PromptLayout:
    """Parts of a prompt with a given number of units.

    Attributes:
        start: parts up to the end of the haystack.
        end: parts after the haystack.
        continuation: pieces that would continue the haystack, possibly without end.
        closing: text that ends a haystack that was continued.
        meta: numbers about the sample.
    """

    start: Sequence[PromptPart]
    end: Sequence[PromptPart]
    continuation: Iterable[str] = ()
    closing: str = ""
    meta: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScalableSample:
    """Sample whose haystack can have any number of units (lines, words or documents).

    Attributes:
        outputs: texts that the answer must contain.
        answer_prefix: start of the answer.
        min_units: smallest number of units.
        max_units: largest number of units.
        estimate_tokens: function from a number of units to the tokens of the prompt, counted piece
            by piece and without the start of the answer. It never decreases.
        layout: function from a number of units to the prompt; the same number always gives the
            same prompt.
        document_sha256: hash of the text that other samples may share; empty if there is none.
    """

    outputs: tuple[str, ...]
    answer_prefix: str
    min_units: int
    max_units: int
    estimate_tokens: Callable[[int], int]
    layout: Callable[[int], PromptLayout]
    document_sha256: str = ""


@dataclass(frozen=True)
class FittedSample:
    """Prompt of its final length, as ids or as text.

    Attributes:
        ids: token ids, or None.
        text: text, or None.
        units: units of the haystack.
        meta: numbers about the sample.
    """

    ids: TokenIds | None
    text: str | None
    units: int
    meta: Mapping[str, float]


class LengthTooShort(UserError):
    """Length that not even the smallest sample fits into.

    Attributes:
        missing_tokens: tokens by which the smallest sample is too long.
    """

    def __init__(self, missing_tokens: int) -> None:
        super().__init__(f"{missing_tokens} tokens are missing")
        self.missing_tokens = missing_tokens


def largest_fitting(
    tokens_of: Callable[[int], int], min_units: int, max_units: int, budget: int
) -> int:
    """Return the largest number of units that takes no more tokens than the budget.

    Args:
        tokens_of: tokens of a number of units; must not decrease.
        min_units: smallest number of units, returned if not even that fits.
        max_units: largest number of units.
        budget: tokens.
    """
    low, high = min_units, max(min_units, max_units)
    while low < high:
        middle = (low + high + 1) // 2  # rounded up, so that low always rises
        if tokens_of(middle) <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def fit_ids(tokenizer: PiecewiseTokenizer, sample: ScalableSample, budget: int) -> FittedSample:
    """Return a prompt of exactly ``budget`` tokens, made of ids.

    Raises:
        LengthTooShort: if the smallest prompt takes more.
    """
    units = largest_fitting(sample.estimate_tokens, sample.min_units, sample.max_units, budget)
    for _ in range(MAX_CORRECTIONS):
        # The estimate may be a few tokens off, as the layout decides which piece begins a text;
        # what counts is the joined ids.
        layout = sample.layout(units)
        start = tokenizer.encode_parts(layout.start)
        end = tokenizer.encode_parts(layout.end, at_beginning=False)
        missing = budget - len(start) - len(end)
        if missing >= 0:
            ids = np.concatenate([start, _continue_haystack(tokenizer, layout, missing), end])
            return FittedSample(ids, None, units, layout.meta)
        if units == sample.min_units:
            break
        units = _fewer_units(sample, units, -missing)
    raise LengthTooShort(-missing)


def fit_text(tokenizer: PiecewiseTokenizer, sample: ScalableSample, budget: int) -> FittedSample:
    """Return a prompt of whole units as text, at most ``budget`` tokens with the answer's start.

    Raises:
        LengthTooShort: if the smallest prompt takes more.
    """
    prefix_tokens = tokenizer.count_tokens(sample.answer_prefix)
    units = largest_fitting(
        sample.estimate_tokens, sample.min_units, sample.max_units, budget - prefix_tokens
    )
    for _ in range(MAX_CORRECTIONS):
        layout = sample.layout(units)
        text = tokenizer.join_text([*layout.start, *layout.end])
        # Encoded as a whole, because upstream counts its tokens that way.
        excess = len(tokenizer.encode_beginning(text + sample.answer_prefix)) - budget
        if excess <= 0:
            return FittedSample(None, text, units, layout.meta)
        if units == sample.min_units:
            break
        units = _fewer_units(sample, units, excess)
    raise LengthTooShort(excess)


def _fewer_units(sample: ScalableSample, units: int, excess: int) -> int:
    """Return a smaller number of units, reduced by about ``excess`` tokens and at least by one."""
    tokens_per_unit = max(1, sample.estimate_tokens(units) - sample.estimate_tokens(units - 1))
    return max(sample.min_units, units - max(1, excess // tokens_per_unit))


def _continue_haystack(
    tokenizer: PiecewiseTokenizer, layout: PromptLayout, missing: int
) -> TokenIds:
    """Return the ``missing`` tokens that fill a prompt, from pieces that continue its haystack."""
    closing = tokenizer.encode_inside(layout.closing) if layout.closing else NO_IDS
    if missing < len(closing):
        closing = NO_IDS
    needed = missing - len(closing)
    ids, size = [NO_IDS], 0
    for piece in islice(layout.continuation, MAX_PIECES_PER_TOKEN * needed):
        ids.append(tokenizer.encode_inside(piece))
        size += len(ids[-1])
        if size >= needed:
            break
    # the last piece is cut inside, so its last word may have tokens of its own
    return np.concatenate([np.concatenate(ids)[:needed], closing])
