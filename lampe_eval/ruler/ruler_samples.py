"""A sample of any task: drawn, fitted to its length, and ready to be framed.

Sample ``index`` is a function of task, version, seed, index, length, tokenizer and wording (and of the text of the
haystack, where it is essays): of nothing that was made before it. What is asked is the same at every length.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lampe_eval.errors import UserError
from lampe_eval.ruler import (
    common_words,
    document_questions,
    frequent_words,
    length_fitting,
    ruler_needles,
    variable_tracking,
)
from lampe_eval.ruler.length_fitting import ScalableSample, TooShort
from lampe_eval.ruler.piecewise_tokenizer import Ids, PiecewiseTokenizer
from lampe_eval.ruler.ruler_cards import (
    CweParameters,
    FweParameters,
    NiahParameters,
    QaParameters,
    RulerCard,
    VtParameters,
)
from lampe_eval.ruler.sample_spec import SampleDraw, SampleSpec


@dataclass(frozen=True)
class RulerSample:
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


def build_sample(name: str, card: RulerCard, recipe: SampleSpec, index: int) -> RulerSample:
    """A sample of a task.

    Raises:
        UserError: for a length that is too short, with the least one that does; for files that are missing or corrupt.
    """
    try:
        return _sample(name, card, recipe, index)
    except TooShort:
        least = _least(name, card, recipe, index)
    raise UserError(f"a length of {recipe.length} is too short, it takes at least {least} tokens")


def _sample(name: str, card: RulerCard, recipe: SampleSpec, index: int) -> RulerSample:
    draw = SampleDraw(recipe, f"{name} {card.version}", card.max_new_tokens, index)
    puzzle, coder = _puzzle(card, draw), recipe.shelf.coder
    before, after = _frame(coder, recipe, puzzle.prefix) if recipe.exact else ((), ())
    fit = length_fitting.exact if recipe.exact else length_fitting.whole
    filled = fit(coder, puzzle, draw.budget - len(before) - len(after))
    return RulerSample(
        filled.text,
        filled.ids,
        puzzle.prefix,
        puzzle.outputs,
        filled.units,
        before,
        after,
        filled.meta,
    )


def _least(name: str, card: RulerCard, recipe: SampleSpec, index: int) -> int:
    """The least length of a sample; at more length it may have more to it, so what is missing is asked for again."""
    length = max(recipe.length, card.max_new_tokens + recipe.overhead)
    for _ in range(length_fitting.TRIES):
        try:
            _sample(name, card, replace(recipe, length=length), index)
            break
        except TooShort as error:
            length += error.short
    return length


def _puzzle(card: RulerCard, draw: SampleDraw) -> ScalableSample:
    match card.parameters:
        case NiahParameters() as parameters:
            return ruler_needles.puzzle(parameters, draw)
        case VtParameters() as parameters:
            return variable_tracking.puzzle(parameters, draw)
        case CweParameters() as parameters:
            return common_words.puzzle(parameters, draw)
        case FweParameters() as parameters:
            return frequent_words.puzzle(parameters, draw)
        case QaParameters() as parameters:
            return document_questions.puzzle(parameters, draw)


def _frame(
    coder: PiecewiseTokenizer, recipe: SampleSpec, prefix: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if recipe.frame is None:
        return (), tuple(coder.ids(prefix).tolist())
    before, after = recipe.frame(prefix)
    return tuple(before), tuple(after)
