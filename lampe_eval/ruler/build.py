"""A sample of any task: drawn, fitted to its length, and ready to be framed.

Sample ``index`` is a function of task, version, seed, index, length, tokenizer and wording (and of the text of the
haystack, where it is essays): of nothing that was made before it. What is asked is the same at every length.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lampe_eval.errors import UserError
from lampe_eval.ruler import cwe, fill, fwe, niah, qa, vt
from lampe_eval.ruler.cards import (
    CweParameters,
    FweParameters,
    NiahParameters,
    QaParameters,
    RulerCard,
    VtParameters,
)
from lampe_eval.ruler.coder import Coder, Ids
from lampe_eval.ruler.fill import Puzzle, TooShort
from lampe_eval.ruler.recipe import Draw, Recipe


@dataclass(frozen=True)
class Built:
    """A sample.

    Attributes:
        text: the prompt without the start of the answer, where it was made as text.
        ids: the same, where it was made as ids.
        answer_prefix: start of the answer.
        outputs: what the answer must contain: all of it, in QA any.
        units: of the haystack: lines, words, different words or documents.
        before: ids of the frame before the prompt.
        after: ids of the frame behind it, the start of the answer among them.
        meta: numbers about it, such as the depth of the first needle asked for.
    """

    text: str | None
    ids: Ids | None
    answer_prefix: str
    outputs: tuple[str, ...]
    units: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    meta: Mapping[str, float] = field(default_factory=dict)


def build(name: str, card: RulerCard, recipe: Recipe, index: int) -> Built:
    """A sample of a task.

    Raises:
        UserError: for a length that is too short, with the least one that does; for files that are missing or corrupt.
    """
    try:
        return _sample(name, card, recipe, index)
    except TooShort:
        least = _least(name, card, recipe, index)
    raise UserError(f"a length of {recipe.length} is too short, it takes at least {least} tokens")


def _sample(name: str, card: RulerCard, recipe: Recipe, index: int) -> Built:
    draw = Draw(recipe, f"{name} {card.version}", card.max_new_tokens, index)
    puzzle, coder = _puzzle(card, draw), recipe.shelf.coder
    before, after = _frame(coder, recipe, puzzle.prefix) if recipe.exact else ((), ())
    fit = fill.exact if recipe.exact else fill.whole
    filled = fit(coder, puzzle, draw.budget - len(before) - len(after))
    return Built(
        filled.text,
        filled.ids,
        puzzle.prefix,
        puzzle.outputs,
        filled.units,
        before,
        after,
        filled.meta,
    )


def _least(name: str, card: RulerCard, recipe: Recipe, index: int) -> int:
    """The least length of a sample; at more length it may have more to it, so what is missing is asked for again."""
    length = max(recipe.length, card.max_new_tokens + recipe.overhead)
    for _ in range(fill.TRIES):
        try:
            _sample(name, card, replace(recipe, length=length), index)
            break
        except TooShort as error:
            length += error.short
    return length


def _puzzle(card: RulerCard, draw: Draw) -> Puzzle:
    match card.parameters:
        case NiahParameters() as parameters:
            return niah.puzzle(parameters, draw)
        case VtParameters() as parameters:
            return vt.puzzle(parameters, draw)
        case CweParameters() as parameters:
            return cwe.puzzle(parameters, draw)
        case FweParameters() as parameters:
            return fwe.puzzle(parameters, draw)
        case QaParameters() as parameters:
            return qa.puzzle(parameters, draw)


def _frame(coder: Coder, recipe: Recipe, prefix: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if recipe.frame is None:
        return (), tuple(coder.ids(prefix).tolist())
    before, after = recipe.frame(prefix)
    return tuple(before), tuple(after)
