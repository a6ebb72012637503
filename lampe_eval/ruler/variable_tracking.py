"""Variable tracking: which variables hold a number, through assignments scattered over lines of filler.

Sources: arXiv 2404.06654, section 3; ``scripts/data/synthetic/variable_tracking.py`` of NVIDIA/RULER at c3f5e3b. A
solved example of its own names and number comes first, with the same number of filler lines in every sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from random import Random

import numpy as np

from lampe_eval.ruler.length_fitting import PromptLayout, ScalableSample
from lampe_eval.ruler.piecewise_tokenizer import PieceTable, PromptPart
from lampe_eval.ruler.ruler_cards import VtParameters
from lampe_eval.ruler.ruler_needles import interleaved
from lampe_eval.ruler.ruler_wording import QuestionTemplate, RulerWording, fill_slots
from lampe_eval.ruler.sample_spec import SampleDraw
from lampe_eval.ruler.seeded_random import capitals

NUMBERS = (10_000, 99_999)


@dataclass(frozen=True)
class Chains:
    """Chains of variables, each with the number it holds; the first is asked for."""

    names: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...]

    @classmethod
    def of(cls, random: Random, parameters: VtParameters, letters: int) -> "Chains":
        """Names of so many capital letters, and numbers of five digits."""
        size = parameters.hops + 1
        names = capitals(random, letters, parameters.chains * size)
        numbers = [str(number) for number in random.sample(range(*NUMBERS), parameters.chains)]
        return cls(
            tuple(tuple(names[i : i + size]) for i in range(0, len(names), size)), tuple(numbers)
        )

    def lines(self, wording: RulerWording) -> list[list[str]]:
        """The assignments of each chain."""
        return [
            _lines(wording, names, number)
            for names, number in zip(self.names, self.numbers, strict=True)
        ]

    def template(self, wording: RulerWording) -> QuestionTemplate:
        """Instruction and question."""
        return wording.templates["vt"].filled(query=self.numbers[0], num_v=len(self.names[0]))


@dataclass(frozen=True)
class Scene:
    """Chains with what stands around them."""

    chains: Chains
    lines: list[list[str]]
    template: QuestionTemplate
    join: str

    @classmethod
    def of(cls, chains: Chains, wording: RulerWording) -> "Scene":
        join = " " if wording.old else "\n"
        lines = [[line + join for line in one] for one in chains.lines(wording)]
        return cls(chains, lines, chains.template(wording), join)

    @property
    def tail(self) -> str:
        """The question; the last line brings its newline along."""
        return self.template.tail.removeprefix(self.join)

    def parts(self, random: Random, filler: PieceTable, units: int) -> list[PromptPart]:
        """The prompt with each chain's lines at random lines, in their order."""
        order = np.zeros(units, dtype=np.int64)
        places = chain.from_iterable(
            sorted(random.sample(range(units), len(one))) for one in self.lines
        )
        placed = sorted(
            zip(places, chain.from_iterable(self.lines), strict=True), key=lambda pair: pair[0]
        )
        spots, lines = [place for place, _ in placed], [line for _, line in placed]
        return [self.template.head, *interleaved(filler, order, spots, lines), self.tail]


def puzzle(parameters: VtParameters, draw: SampleDraw) -> ScalableSample:
    """A sample before its length is chosen."""
    wording, coder = draw.wording, draw.shelf.coder
    scene = Scene.of(Chains.of(draw.rng("chains"), parameters, letters=5), wording)
    filler = draw.shelf.table(
        lambda: [wording.filler + scene.join], "filler", wording.filler, scene.join
    )
    example = demo(parameters, draw, filler)
    least, each = parameters.hops + 1, max(1, int(filler.sizes[0]))
    lines = chain.from_iterable(scene.lines)
    fixed = len(coder.joined(example)) + coder.count(scene.template.head, *lines, scene.tail)
    spot = partial(draw.rng, "lines")

    def lay(units: int) -> PromptLayout:
        *before, tail = scene.parts(spot(units), filler, units)
        return PromptLayout(
            [*example, *before],
            [tail],
            more=filler.onward(np.zeros(1, dtype=np.int64), 0),
            close=scene.join,
        )

    return ScalableSample(
        outputs=scene.chains.names[0],
        prefix=scene.template.prefix,
        least=least,
        most=max(least, draw.budget // each),
        cost=lambda units: fixed + units * each,
        lay=lay,
    )


def demo(parameters: VtParameters, draw: SampleDraw, filler: PieceTable) -> list[PromptPart]:
    """The solved example: as many lines as fit its tokens, found once; names and number are of this sample.

    In 2024 they were the same in all samples; their places are so in every wording.
    """
    wording, coder = draw.wording, draw.shelf.coder
    budget = min(parameters.demo, draw.recipe.length // 8)

    def scene(*what: object) -> Scene:
        return Scene.of(Chains.of(draw.shared("demo", *what), parameters, letters=3), wording)

    def units() -> int:
        probe = scene()
        parts = [*probe.parts(draw.shared("demo"), filler, least), answer(probe)]
        spare = budget - len(coder.joined(parts))
        return least + max(0, spare // max(1, int(filler.sizes[0])))

    least = parameters.hops + 1
    lines = draw.shelf.once(units, "demo", draw.recipe.words, draw.recipe.seed, draw.task, budget)
    shown = scene() if wording.old else scene(draw.index)
    return [*shown.parts(draw.shared("demo"), filler, lines), answer(shown)]


def answer(scene: Scene) -> str:
    """The example's answer, and what parts it from the task."""
    gap = "\n\n" if scene.template.head.endswith("\n\n") else "\n"
    return f"{scene.template.prefix} {' '.join(scene.chains.names[0])}{gap}"


def _lines(wording: RulerWording, names: Sequence[str], number: str) -> list[str]:
    held = [number, *names]
    forms = [wording.assign, *[wording.copy] * (len(names) - 1)]
    return [
        fill_slots(form, name=name, value=value)
        for form, name, value in zip(forms, names, held, strict=False)
    ]
