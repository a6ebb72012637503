"""Length: as many units of haystack as fit, and the start of one more, so that a prompt has exactly the tokens it may.

A task draws a `Puzzle`: everything of a sample but its length. Its cost in tokens grows with its units, so the largest
number that fits is found by halving, never by building prompts. Upstream searches likewise, but stops at whole units.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from lampe_eval.errors import UserError
from lampe_eval.ruler.piecewise_tokenizer import Ids, PiecewiseTokenizer, PromptPart

TRIES = 32
"""Corrections of a number of units at most, where whole texts and pieces differ in tokens."""

PIECES = 8
"""Pieces for each token that is missing at most: a tokenizer may have none for some."""

NOTHING: Ids = np.empty(0, dtype=np.int32)


@dataclass(frozen=True)
class PromptLayout:
    """A prompt of so many units.

    Attributes:
        before: parts up to the end of the haystack.
        after: parts behind it.
        more: pieces with which the haystack would go on, endless or as many as there are.
        close: what ends the haystack if it goes on.
        meta: numbers about the sample.
    """

    before: Sequence[PromptPart]
    after: Sequence[PromptPart]
    more: Iterable[str] = ()
    close: str = ""
    meta: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScalableSample:
    """A sample before its length is chosen.

    Attributes:
        outputs: what the answer must contain.
        prefix: start of the answer.
        least: units at least.
        most: units at most.
        cost: tokens of a prompt of so many units, as pieces and without the prefix; close enough to start from.
        lay: the prompt of so many units, always the same.
    """

    outputs: tuple[str, ...]
    prefix: str
    least: int
    most: int
    cost: Callable[[int], int]
    lay: Callable[[int], PromptLayout]


@dataclass(frozen=True)
class FilledPrompt:
    """A prompt of its final length, as ids or as text, with its units and numbers about it."""

    ids: Ids | None
    text: str | None
    units: int
    meta: Mapping[str, float]


class TooShort(UserError):
    """A length that not even the least sample fits into.

    Attributes:
        short: tokens that are missing.
    """

    def __init__(self, short: int) -> None:
        super().__init__(f"{short} tokens are missing")
        self.short = short


def largest(cost: Callable[[int], int], least: int, most: int, budget: int) -> int:
    """The largest number of units from ``least`` to ``most`` that costs no more than the budget, else ``least``."""
    low, high = least, max(least, most)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle - 1)
    return low


def exact(coder: PiecewiseTokenizer, puzzle: ScalableSample, budget: int) -> FilledPrompt:
    """A prompt of exactly the budget, as ids: whole units, and the first tokens of more.

    Raises:
        TooShort: where the least one takes more.
    """
    units = largest(puzzle.cost, puzzle.least, puzzle.most, budget)
    for _ in range(TRIES):
        layout = puzzle.lay(units)
        before, after = coder.joined(layout.before), coder.joined(layout.after, begun=True)
        missing = budget - len(before) - len(after)
        if missing >= 0:
            ids = np.concatenate([before, _first(coder, layout, missing), after])
            return FilledPrompt(ids, None, units, layout.meta)
        if units == puzzle.least:
            break
        units = _fewer(puzzle, units, -missing)
    raise TooShort(-missing)


def whole(coder: PiecewiseTokenizer, puzzle: ScalableSample, budget: int) -> FilledPrompt:
    """A prompt of whole units whose text and prefix together take no more than the budget, as upstream counts them.

    Raises:
        TooShort: where the least one takes more.
    """
    units = largest(puzzle.cost, puzzle.least, puzzle.most, budget - coder.count(puzzle.prefix))
    for _ in range(TRIES):
        layout = puzzle.lay(units)
        text = coder.text([*layout.before, *layout.after])
        excess = len(coder.first(text + puzzle.prefix)) - budget
        if excess <= 0:
            return FilledPrompt(None, text, units, layout.meta)
        if units == puzzle.least:
            break
        units = _fewer(puzzle, units, excess)
    raise TooShort(excess)


def _fewer(puzzle: ScalableSample, units: int, excess: int) -> int:
    """Units without so many as take the excess, one at least."""
    each = max(1, puzzle.cost(units) - puzzle.cost(units - 1))
    return max(puzzle.least, units - max(1, excess // each))


def _first(coder: PiecewiseTokenizer, layout: PromptLayout, missing: int) -> Ids:
    """The first tokens of what the haystack would go on with, closed if there is room for that."""
    close = coder.ids(layout.close) if layout.close else NOTHING
    if missing < len(close):
        close = NOTHING
    wanted = missing - len(close)
    found, size = [NOTHING], 0
    for piece in islice(layout.more, PIECES * wanted):
        found.append(coder.ids(piece))
        size += len(found[-1])
        if size >= wanted:
            break
    return np.concatenate([np.concatenate(found)[:wanted], close])
