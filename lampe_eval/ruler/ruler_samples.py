"""Samples of any RULER task: drawn, fitted to their length, and surrounded by the caller's ids.

Sample ``index`` is a function of task, version, seed, index, length, tokenizer and wording (and of
the text of the haystack, where it is essays), not of samples that were built before it. Question
and answer are the same at every length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lampe_eval.errors import UserError
from lampe_eval.ruler.common_words import common_words_sample
from lampe_eval.ruler.document_questions import document_question_sample
from lampe_eval.ruler.frequent_words import frequent_words_sample
from lampe_eval.ruler.length_fitting import (
    MAX_CORRECTIONS,
    LengthTooShort,
    ScalableSample,
    fit_ids,
    fit_text,
)
from lampe_eval.ruler.piecewise_tokenizer import TokenIds
from lampe_eval.ruler.ruler_cards import (
    CweParameters,
    FweParameters,
    NiahParameters,
    QaParameters,
    RulerCard,
    VtParameters,
)
from lampe_eval.ruler.ruler_needles import needle_sample
from lampe_eval.ruler.sample_spec import SampleDraw, SampleSpec
from lampe_eval.ruler.variable_tracking import variable_tracking_sample

MAX_LEAST_LENGTH_RATIO = 4
"""Most that the least length of a task's samples can be, as a multiple of the first sample's.

They differ by a tenth, and in question answering by the lengths of the documents that are needed.
"""


@dataclass(frozen=True)
class RulerSample:
    """Finished sample, either as text or as ids.

    Attributes:
        text: the prompt without the start of the answer, or None.
        ids: token ids of the same, or None.
        answer_prefix: start of the answer.
        outputs: texts that the answer must contain: all of them, or any one in question answering.
        units: units of the haystack: lines, words, different words or documents.
        before: ids that the caller puts before the prompt.
        after: ids that the caller puts after the prompt, with the start of the answer.
        meta: numbers about the sample, such as the depth of the first queried needle.
        document_sha256: hash of the text that other samples may share: the documents that answer
            the question, or the essays; empty in tasks of drawn lines and words.
    """

    text: str | None
    ids: TokenIds | None
    answer_prefix: str
    outputs: tuple[str, ...]
    units: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    meta: Mapping[str, float] = field(default_factory=dict)
    document_sha256: str = ""


def build_sample(name: str, card: RulerCard, spec: SampleSpec, index: int) -> RulerSample:
    """Return one sample of a task.

    Args:
        name: name of the task.
        card: card of the task.
        spec: settings of the cell.
        index: number of the sample.

    Raises:
        UserError: if the length is too short, with the shortest length that is enough; if files are
            missing or corrupt.
    """
    try:
        return _build(name, card, spec, index)
    except LengthTooShort:
        least = _least_length(name, card, spec, [index])
    raise UserError(f"a length of {spec.length} is too short, it takes at least {least} tokens")


def least_length(name: str, card: RulerCard, spec: SampleSpec, samples: int) -> int:
    """Return a length that a task's first samples fit into: the spec's own or a longer one.

    Args:
        name: name of the task.
        card: card of the task.
        spec: settings of the cell.
        samples: number of samples.
    """
    # Most lengths are so long that not all samples must be built to know that they fit.
    shorter = replace(spec, length=spec.length // MAX_LEAST_LENGTH_RATIO)
    if not _missing_tokens(name, card, shorter, 0):
        return spec.length
    return _least_length(name, card, spec, range(samples))


def _build(name: str, card: RulerCard, spec: SampleSpec, index: int) -> RulerSample:
    # The version is part of every draw, so a changed task has other samples.
    draw = SampleDraw(spec, f"{name} {card.version}", card.max_new_tokens, index)
    sample = _scalable_sample(card, draw)
    before, after = _affixes(spec, sample.answer_prefix)
    fit = fit_ids if spec.exact else fit_text
    budget = draw.max_prompt_tokens - len(before) - len(after)
    prompt = fit(spec.corpora.tokenizer, sample, budget)
    return RulerSample(
        text=prompt.text,
        ids=prompt.ids,
        answer_prefix=sample.answer_prefix,
        outputs=sample.outputs,
        units=prompt.units,
        before=before,
        after=after,
        meta=prompt.meta,
        document_sha256=sample.document_sha256,
    )


def _least_length(name: str, card: RulerCard, spec: SampleSpec, indices: Sequence[int]) -> int:
    """Return the least length, that of the spec or a longer one, which samples all fit into."""
    length = spec.length
    # The smallest sample of a longer length may be larger (its example has more lines, for
    # instance), so the missing tokens are added repeatedly until all samples fit.
    for _ in range(MAX_CORRECTIONS):
        before = length
        for index in indices:
            missing = _missing_tokens(name, card, replace(spec, length=length), index)
            if missing:
                length = max(length, card.max_new_tokens + spec.overhead) + missing
        if length == before:
            break
    return length


def _missing_tokens(name: str, card: RulerCard, spec: SampleSpec, index: int) -> int:
    """Return how many tokens a sample lacks at the length of the spec, 0 if it fits."""
    try:
        _build(name, card, spec, index)
    except LengthTooShort as error:
        return error.missing_tokens
    return 0


def _scalable_sample(card: RulerCard, draw: SampleDraw) -> ScalableSample:
    match card.parameters:
        case NiahParameters() as parameters:
            return needle_sample(parameters, draw)
        case VtParameters() as parameters:
            return variable_tracking_sample(parameters, draw)
        case CweParameters() as parameters:
            return common_words_sample(parameters, draw)
        case FweParameters() as parameters:
            return frequent_words_sample(parameters, draw)
        case QaParameters() as parameters:
            return document_question_sample(parameters, draw)


def _affixes(spec: SampleSpec, answer_prefix: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids before and after a prompt; a prompt made as text has none."""
    if not spec.exact:
        return (), ()
    if spec.affixes is None:
        return (), tuple(spec.corpora.tokenizer.encode_inside(answer_prefix).tolist())
    before, after = spec.affixes(answer_prefix)
    return tuple(before), tuple(after)
