"""Needles in a haystack of noise lines, of essays, or of further needles.

Sources: arXiv 2404.06654, section 3; ``scripts/data/synthetic/niah.py`` of NVIDIA/RULER at c3f5e3b.
A haystack of needles takes them from a pool that is drawn once for a seed, so that their tokens are
known; a sample takes each needle at most once.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lampe_eval.ruler.length_fitting import PromptLayout, ScalableSample
from lampe_eval.ruler.piecewise_tokenizer import PieceRun, PieceTable, PromptPart
from lampe_eval.ruler.ruler_cards import NiahParameters
from lampe_eval.ruler.ruler_wording import QuestionTemplate, RulerWording, fill_slots
from lampe_eval.ruler.sample_spec import SampleDraw
from lampe_eval.ruler.seeded_random import Indices, distinct_values, permutation, seeded_rng
from lampe_eval.ruler.shared_corpora import Essays

DEPTHS = tuple(round(100 * step / 39) for step in range(40))
"""Depths of needles in essays, in percent of the sentences: 40 even steps, rounded."""


@dataclass(frozen=True)
class RulerNeedles:
    """Needles of a sample and the question about them.

    Attributes:
        keys: keys of all needles, queried or not.
        needles: sentences in the order of the text.
        first_queried: place among the needles of the first one whose key is queried.
        outputs: values of the queried keys.
        template: instruction, question and start of the answer.
    """

    keys: tuple[str, ...]
    needles: tuple[str, ...]
    first_queried: int
    outputs: tuple[str, ...]
    template: QuestionTemplate


def needle_sample(parameters: NiahParameters, draw: SampleDraw) -> ScalableSample:
    """Return a sample; its units are lines, or words of essays."""
    needles = draw_needles(parameters, draw)
    match parameters.haystack:
        case "essay":
            return _sample_in_essays(needles, draw)
        case "noise":
            filler = draw.wording.filler
            table = draw.corpora.piece_table(lambda: [f"{filler}\n"], "filler", filler)
            # one piece, repeated at most once for each token of the prompt
            order = np.zeros(max(1, draw.max_prompt_tokens), dtype=np.int64)
            return _sample_in_lines(needles, draw, table, order)
        case "needle":
            return _sample_in_lines(needles, draw, *_distractors(parameters, needles, draw))


def draw_needles(parameters: NiahParameters, draw: SampleDraw) -> RulerNeedles:
    """Return the needles of a sample in random order; they are the same at every length."""
    # The name is part of the draw: renaming it would change every sample. Keys, values and query
    # come from one generator that does not know the length, so they are the same at every length.
    random, wording = draw.rng("riddle"), draw.wording
    key_count = max(parameters.num_keys, parameters.num_queries)
    keys = distinct_values(random, parameters.keys, key_count)
    values = distinct_values(random, parameters.values, key_count * parameters.num_values)
    keys_of_values = np.repeat(keys, parameters.num_values).tolist()
    facts = list(zip(keys_of_values, values, strict=True))
    random.shuffle(facts)
    queried = random.sample(keys, parameters.num_queries)
    outputs: list[str] = []
    for queried_key in queried:
        outputs += [value for key, value in facts if key == queried_key]
    return RulerNeedles(
        keys=tuple(keys),
        needles=tuple(needle_sentence(wording, parameters, *fact) for fact in facts),
        first_queried=min(place for place, (key, _) in enumerate(facts) if key in queried),
        outputs=tuple(outputs),
        template=question_template(wording, parameters, queried),
    )


def needle_sentence(wording: RulerWording, parameters: NiahParameters, key: str, value: str) -> str:
    """Return the sentence that states the value of a key."""
    # Upstream's sentence names the kind in the plural, although it states a single value.
    kind = parameters.values.removesuffix("s") if wording.is_own else parameters.values
    return fill_slots(wording.needle, type_needle_v=kind, key=key, value=value)


def question_template(
    wording: RulerWording, parameters: NiahParameters, queried: Sequence[str]
) -> QuestionTemplate:
    """Return instruction, question and start of the answer for the queried keys."""
    if parameters.num_queries * parameters.num_values == 1:
        name, kind = "niah_one", parameters.values.removesuffix("s")
    else:
        name, kind = "niah", parameters.values
    return wording.templates[name].fill(type_needle_v=kind, query=join_keys(queried))


def join_keys(keys: Sequence[str]) -> str:
    """Return keys as a phrase: "a", "a, and b" or "a, b, and c"."""
    return ", ".join(keys[:-1]) + ", and " + keys[-1] if len(keys) > 1 else keys[0]


def _sample_in_lines(
    needles: RulerNeedles, draw: SampleDraw, table: PieceTable, order: Indices
) -> ScalableSample:
    """Return a sample with its needles before random lines of a haystack of lines.

    The last line of the haystack is therefore never a needle.
    """
    tokenizer, template = draw.corpora.tokenizer, needles.template
    needle_lines = [f"{line}\n" for line in needles.needles]
    question = template.question.removeprefix("\n")  # the line before it ends with the newline
    line_tokens = np.concatenate([[0], np.cumsum(table.sizes[order])])
    fixed_tokens = len(tokenizer.encode_beginning(template.instruction))
    fixed_tokens += tokenizer.count_tokens(*needle_lines, question)

    def layout(units: int) -> PromptLayout:
        # drawn again for each number of units, so that a layout depends on nothing but its units
        places = sorted(draw.rng("lines", units).sample(range(units), len(needle_lines)))
        haystack = insert_pieces(table, order[:units], places, needle_lines)
        return PromptLayout(
            start=[template.instruction, *haystack],
            end=[question],
            continuation=table.cycle_from(order, units),
            closing="\n",
            meta={"depth": 100 * places[needles.first_queried] / units},
        )

    return ScalableSample(
        outputs=needles.outputs,
        answer_prefix=template.answer_prefix,
        min_units=len(needle_lines),
        max_units=len(order),
        estimate_tokens=lambda units: fixed_tokens + int(line_tokens[units]),
        layout=layout,
    )


def insert_pieces(
    table: PieceTable, order: Indices, places: Sequence[int], inserted: Sequence[str]
) -> Iterator[PromptPart]:
    """Yield the pieces of a table with other pieces inserted.

    Args:
        table: table of the pieces.
        order: numbers of the pieces.
        places: for each inserted piece, the place in ``order`` that it stands before; increasing.
        inserted: the pieces to insert.
    """
    done = 0
    for place, piece in zip(places, inserted, strict=True):
        yield PieceRun(table, order[done:place])
        yield piece
        done = place
    yield PieceRun(table, order[done:])


def _distractors(
    parameters: NiahParameters, needles: RulerNeedles, draw: SampleDraw
) -> tuple[PieceTable, Indices]:
    """Return the pool of needles that are never queried, and a sample's order of them."""
    size = max(1024, draw.spec.length // 8)
    seed, kinds = draw.spec.seed, (parameters.keys, parameters.values)

    def draw_pool() -> list[tuple[str, str]]:
        random = seeded_rng("pool", seed, *kinds)
        keys = distinct_values(random, parameters.keys, size)
        values = distinct_values(random, parameters.values, size)
        return list(zip(keys, values, strict=True))

    def lines() -> Iterator[str]:
        return (f"{needle_sentence(draw.wording, parameters, *fact)}\n" for fact in facts)

    # the pool depends on seed and size only, so its pieces are encoded once for all samples
    facts = draw.corpora.cached(draw_pool, "pool", seed, size, *kinds)
    table = draw.corpora.piece_table(lines, "pool", draw.spec.wording_name, seed, size, *kinds)
    order = permutation(draw.rng("distractors"), size)
    # The order leaves out needles that happen to have a key of the sample.
    same_key = [number for number, (key, _) in enumerate(facts) if key in needles.keys]
    return table, order[~np.isin(order, same_key)]


def _sample_in_essays(needles: RulerNeedles, draw: SampleDraw) -> ScalableSample:
    """Return a sample with its needles between sentences of a text that always begins alike."""
    tokenizer, template, wording = draw.corpora.tokenizer, needles.template, draw.wording
    essays = draw.corpora.essays(
        max(1, draw.max_prompt_tokens), from_documents=wording.is_own, repeat=not wording.is_2024
    )
    # without the number of units: a needle keeps its depth at every length
    depths = sorted(draw.rng("depths").sample(DEPTHS, len(needles.needles)))
    # an estimate: the first needle may have no space, which the fitting corrects
    needle_pieces = [f" {line}" for line in needles.needles]
    fixed_tokens = len(tokenizer.encode_beginning(template.instruction))
    fixed_tokens += tokenizer.count_tokens(*needle_pieces, template.question)

    def layout(units: int) -> PromptLayout:
        haystack = insert_in_essays(
            essays, units, depths, needles.needles, join_empty=not wording.is_own
        )
        return PromptLayout(
            start=[template.instruction, *haystack],
            end=[template.question],
            continuation=essays.table.cycle_from(essays.pieces, int(essays.piece_counts[units])),
            meta={
                "depth": depths[needles.first_queried],
                "placed_depth": placed_depth(essays, units, depths[needles.first_queried]),
            },
        )

    return ScalableSample(
        outputs=needles.outputs,
        answer_prefix=template.answer_prefix,
        min_units=1,
        max_units=len(essays.piece_counts) - 1,
        estimate_tokens=lambda units: fixed_tokens + int(essays.token_counts[units]),
        layout=layout,
        document_sha256=essays.sha256,
    )


def needle_places(essays: Essays, words: int, depths: Sequence[float]) -> list[int]:
    """Return for each depth the pieces of the first words of essays that stand before a needle.

    Args:
        essays: the text.
        words: number of words.
        depths: depths in percent of the sentences.
    """
    end = int(essays.piece_counts[words])
    sentences = bisect_left(essays.sentence_starts, end)
    boundaries = [*essays.sentence_starts[:sentences].tolist(), end]
    return [boundaries[int(sentences * depth / 100)] for depth in depths]


def placed_depth(essays: Essays, words: int, depth: float) -> float:
    """Return where a needle really lies, in percent of the tokens of the haystack's words.

    Args:
        essays: the text.
        words: number of words.
        depth: wanted depth in percent of the sentences.
    """
    (place,) = needle_places(essays, words, [depth])
    tokens = essays.table.sizes[essays.pieces]
    before = int(tokens[:place].sum())
    return round(100 * before / max(1, int(essays.token_counts[words])), 2)


def insert_in_essays(
    essays: Essays,
    words: int,
    depths: Sequence[float],
    needles: Sequence[str],
    *,
    join_empty: bool,
) -> Iterator[PromptPart]:
    """Yield the first words of essays with needles between sentences.

    Args:
        essays: the text.
        words: number of words.
        depths: depth of each needle in percent of the sentences, increasing.
        needles: the sentences to insert.
        join_empty: whether groups of sentences are joined by spaces even where one of them is
            empty, as upstream joins them. A needle at depth 0 then begins with a space.
    """
    done, begun = 0, False
    # the pair at the end yields the sentences after the last needle
    places = needle_places(essays, words, [*depths, 100])
    for place, needle in zip(places, [*needles, ""], strict=True):
        has_sentences = place > done
        if has_sentences:
            if not begun:
                yield essays.first_piece  # the only piece without a space before it
            yield PieceRun(essays.table, essays.pieces[done + (not begun) : place])
        elif join_empty and begun:
            yield " "
        if needle:
            yield f" {needle}" if begun or has_sentences or join_empty else needle
        done, begun = place, True
