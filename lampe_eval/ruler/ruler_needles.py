"""Needles in a haystack: facts under names, among lines of filler, in essays, or among more of their kind.

Sources: arXiv 2404.06654, section 3; ``scripts/data/synthetic/niah.py`` of NVIDIA/RULER at c3f5e3b. Needles that nobody
asks for come from a pool that is drawn once for a seed, so that their tokens are known; a sample takes each once.
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
from lampe_eval.ruler.seeded_random import Order, distinct, permutation, seeded_rng
from lampe_eval.ruler.shared_corpora import Essays

DEPTHS = tuple(round(100 * step / 39) for step in range(40))
"""Where needles in essays may lie, in percent of the sentences: 40 even steps, rounded."""


@dataclass(frozen=True)
class RulerNeedles:
    """What is hidden and what is asked.

    Attributes:
        keys: what values are hidden under, asked for or not.
        needles: sentences in the order of the text.
        asked: the place among them of the first one asked for.
        outputs: values asked for.
        template: with everything but the context.
    """

    keys: tuple[str, ...]
    needles: tuple[str, ...]
    asked: int
    outputs: tuple[str, ...]
    template: QuestionTemplate


def puzzle(parameters: NiahParameters, draw: SampleDraw) -> ScalableSample:
    """A sample before its length is chosen."""
    hidden = riddle(parameters, draw)
    match parameters.haystack:
        case "essay":
            return _in_essays(hidden, draw)
        case "noise":
            filler = draw.shelf.table(
                lambda: [f"{draw.wording.filler}\n"], "filler", draw.wording.filler
            )
            return _among_lines(hidden, draw, filler, np.zeros(max(1, draw.budget), dtype=np.int64))
        case "needle":
            return _among_lines(hidden, draw, *_distractors(parameters, hidden, draw))


def riddle(parameters: NiahParameters, draw: SampleDraw) -> RulerNeedles:
    """Keys with their values, in random order; the same at every length."""
    random, wording = draw.rng("riddle"), draw.wording
    count = max(parameters.num_keys, parameters.num_queries)
    keys = distinct(random, parameters.keys, count)
    values = iter(distinct(random, parameters.values, count * parameters.num_values))
    facts = [(key, next(values)) for key in keys for _ in range(parameters.num_values)]
    random.shuffle(facts)
    queried = random.sample(keys, parameters.num_queries)
    one = parameters.num_queries * parameters.num_values == 1
    return RulerNeedles(
        keys=tuple(keys),
        needles=tuple(needle(wording, parameters, *fact) for fact in facts),
        asked=min(i for i, (key, _) in enumerate(facts) if key in queried),
        outputs=tuple(value for asked in queried for key, value in facts if key == asked),
        template=template(wording, parameters, queried, one=one),
    )


def needle(wording: RulerWording, parameters: NiahParameters, key: str, value: str) -> str:
    """The sentence that gives a key's value."""
    kind = parameters.values.removesuffix("s") if wording.own else parameters.values
    return fill_slots(wording.needle, type_needle_v=kind, key=key, value=value)


def template(
    wording: RulerWording, parameters: NiahParameters, keys: Sequence[str], *, one: bool
) -> QuestionTemplate:
    """Instruction and question for keys; ``one`` where a single value is asked for."""
    kind = parameters.values.removesuffix("s") if one else parameters.values
    return wording.templates["niah_one" if one else "niah"].filled(
        type_needle_v=kind, query=listed(keys)
    )


def listed(keys: Sequence[str]) -> str:
    """ "a", "a, and b", "a, b, and c"."""
    return ", ".join(keys[:-1]) + ", and " + keys[-1] if len(keys) > 1 else keys[0]


def _among_lines(
    hidden: RulerNeedles, draw: SampleDraw, table: PieceTable, order: Order
) -> ScalableSample:
    """Needles at random lines of a haystack of lines; the last line is never a needle."""
    coder, template, needles = (
        draw.shelf.coder,
        hidden.template,
        [f"{line}\n" for line in hidden.needles],
    )
    tail = template.tail.removeprefix("\n")
    costs = np.concatenate([[0], np.cumsum(table.sizes[order])])
    fixed = len(coder.first(template.head)) + coder.count(*needles, tail)

    def lay(units: int) -> PromptLayout:
        places = sorted(draw.rng("lines", units).sample(range(units), len(needles)))
        return PromptLayout(
            before=[template.head, *interleaved(table, order[:units], places, needles)],
            after=[tail],
            more=table.onward(order, units),
            close="\n",
            meta={"depth": 100 * places[hidden.asked] / units},
        )

    return ScalableSample(
        hidden.outputs,
        template.prefix,
        len(needles),
        len(order),
        lambda units: fixed + int(costs[units]),
        lay,
    )


def interleaved(
    table: PieceTable, order: Order, places: Sequence[int], inserted: Sequence[str]
) -> Iterator[PromptPart]:
    """Pieces of a table with other pieces before those at the places, which rise."""
    done = 0
    for place, piece in zip(places, inserted, strict=True):
        yield PieceRun(table, order[done:place])
        yield piece
        done = place
    yield PieceRun(table, order[done:])


def _distractors(
    parameters: NiahParameters, hidden: RulerNeedles, draw: SampleDraw
) -> tuple[PieceTable, Order]:
    """Pool of needles that nobody asks for, and the order in which this sample takes those of other keys."""
    size = max(1024, draw.recipe.length // 8)
    seed, kinds = draw.recipe.seed, (parameters.keys, parameters.values)

    def pool() -> list[tuple[str, str]]:
        random = seeded_rng("pool", seed, *kinds)
        return list(
            zip(distinct(random, kinds[0], size), distinct(random, kinds[1], size), strict=True)
        )

    def lines() -> Iterator[str]:
        return (f"{needle(draw.wording, parameters, *fact)}\n" for fact in facts)

    facts = draw.shelf.once(pool, "pool", seed, size, *kinds)
    table = draw.shelf.table(lines, "pool", draw.recipe.words, seed, size, *kinds)
    order = permutation(draw.rng("distractors"), size)
    known = [number for number, (key, _) in enumerate(facts) if key in hidden.keys]
    return table, order[~np.isin(order, known)]


def _in_essays(hidden: RulerNeedles, draw: SampleDraw) -> ScalableSample:
    """Needles between sentences of a text that always begins at its beginning."""
    coder, template, wording = draw.shelf.coder, hidden.template, draw.wording
    essays = draw.shelf.essays(max(1, draw.budget), own=wording.own, old=wording.old)
    depths = sorted(draw.rng("depths").sample(DEPTHS, len(hidden.needles)))
    fixed = len(coder.first(template.head)) + coder.count(
        *(f" {line}" for line in hidden.needles), template.tail
    )

    def lay(units: int) -> PromptLayout:
        return PromptLayout(
            before=[
                template.head,
                *planted(essays, units, depths, hidden.needles, spaced=not wording.own),
            ],
            after=[template.tail],
            more=essays.table.onward(essays.pieces, int(essays.ends[units])),
            meta={"depth": depths[hidden.asked]},
        )

    def cost(units: int) -> int:
        return fixed + int(essays.costs[units])

    return ScalableSample(hidden.outputs, template.prefix, 1, len(essays.ends) - 1, cost, lay)


def planted(
    essays: Essays, units: int, depths: Sequence[float], needles: Sequence[str], *, spaced: bool
) -> Iterator[PromptPart]:
    """The first words with needles at depths in percent of their sentences.

    Args:
        spaced: whether groups of sentences are joined by spaces even where one is empty, as upstream joins them.
    """
    end = int(essays.ends[units])
    sentences = bisect_left(essays.starts, end)
    ends = [*essays.starts[:sentences].tolist(), end]
    done, begun = 0, False
    for depth, line in [*zip(depths, needles, strict=True), (100, "")]:
        place = ends[int(sentences * depth / 100)]
        if place > done:
            if not begun:
                yield essays.first
            yield PieceRun(essays.table, essays.pieces[done + (not begun) : place])
        elif spaced and begun:
            yield " "
        if line:
            yield f" {line}" if begun or place > done or spaced else line
        done, begun = place, True
