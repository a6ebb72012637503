"""Variable tracking: name the variables that hold a number, through assignments among filler lines.

Sources: arXiv 2404.06654, section 3; ``scripts/data/synthetic/variable_tracking.py`` of
NVIDIA/RULER at c3f5e3b. A solved example with names and a number of its own comes first; it has the
same number of filler lines in every sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from random import Random
from string import ascii_uppercase

import numpy as np

from lampe_eval.ruler.length_fitting import PromptLayout, ScalableSample
from lampe_eval.ruler.piecewise_tokenizer import PieceTable, PromptPart
from lampe_eval.ruler.ruler_cards import VtParameters
from lampe_eval.ruler.ruler_needles import insert_pieces
from lampe_eval.ruler.ruler_wording import QuestionTemplate, RulerWording, fill_slots
from lampe_eval.ruler.sample_spec import SampleDraw
from lampe_eval.ruler.seeded_random import distinct_strings

# As upstream draws them: from 10000 to 99998.
NUMBERS = range(10_000, 99_999)
TASK_LETTERS = 5
EXAMPLE_LETTERS = 3
"""Letters of a variable's name; those of the example are shorter, so no name occurs in both."""


@dataclass(frozen=True)
class VariableChains:
    """Chains of variables, each with the number it holds; the question is about the first chain.

    Attributes:
        names: names of the variables of each chain, in the order of their assignments.
        numbers: number of each chain.
    """

    names: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...]

    @classmethod
    def draw(cls, random: Random, parameters: VtParameters, letters: int) -> "VariableChains":
        """Return chains with names of ``letters`` capitals and numbers of five digits."""
        size = parameters.hops + 1
        names = distinct_strings(random, ascii_uppercase, letters, parameters.chains * size)
        numbers = [str(number) for number in random.sample(NUMBERS, parameters.chains)]
        chains = [tuple(names[first : first + size]) for first in range(0, len(names), size)]
        return cls(tuple(chains), tuple(numbers))

    def lines(self, wording: RulerWording) -> list[list[str]]:
        """Return the assignments of each chain, without what joins lines."""
        return [
            _assignments(wording, names, number)
            for names, number in zip(self.names, self.numbers, strict=True)
        ]

    def template(self, wording: RulerWording) -> QuestionTemplate:
        """Return instruction, question and start of the answer."""
        return wording.templates["vt"].fill(query=self.numbers[0], num_v=len(self.names[0]))


@dataclass(frozen=True)
class TrackingPrompt:
    """Chains with the texts around them.

    Attributes:
        chains: the chains.
        lines: lines of each chain, with what joins them to the next line.
        template: instruction, question and start of the answer.
        joiner: text between lines: a newline, or a space as of 2024.
    """

    chains: VariableChains
    lines: list[list[str]]
    template: QuestionTemplate
    joiner: str

    @classmethod
    def from_chains(cls, chains: VariableChains, wording: RulerWording) -> "TrackingPrompt":
        """Return the prompt of chains in a wording."""
        joiner = " " if wording.is_2024 else "\n"
        lines = [_with_joiner(assignments, joiner) for assignments in chains.lines(wording)]
        return cls(chains, lines, chains.template(wording), joiner)

    @property
    def question(self) -> str:
        """Return the question without the newline that the last line already ends with."""
        return self.template.question.removeprefix(self.joiner)

    def parts(self, random: Random, filler: PieceTable, units: int) -> list[PromptPart]:
        """Return the parts of a prompt with each chain's lines at random places, in their order.

        Args:
            random: generator of the places.
            filler: table with the line of filler.
            units: number of filler lines.
        """
        places: list[int] = []
        for lines in self.lines:
            places += sorted(random.sample(range(units), len(lines)))
        placed = list(zip(places, chain.from_iterable(self.lines), strict=True))
        placed.sort(key=lambda pair: pair[0])  # stable: chains at one place keep their order
        order = np.zeros(units, dtype=np.int64)  # the filler's number, once for each line
        haystack = insert_pieces(
            filler, order, [place for place, _ in placed], [line for _, line in placed]
        )
        return [self.template.instruction, *haystack, self.question]


def variable_tracking_sample(parameters: VtParameters, draw: SampleDraw) -> ScalableSample:
    """Return a sample; its units are lines of filler."""
    wording, tokenizer = draw.wording, draw.corpora.tokenizer
    chains = VariableChains.draw(draw.rng("chains"), parameters, TASK_LETTERS)
    prompt = TrackingPrompt.from_chains(chains, wording)
    line = wording.filler + prompt.joiner
    filler = draw.corpora.piece_table(lambda: [line], "filler", wording.filler, prompt.joiner)
    # with the joiner inside it, the filler is cut after its newline, where tokenizers split
    example = solved_example(parameters, draw, filler)
    fixed_tokens = len(tokenizer.encode_parts(example)) + tokenizer.count_tokens(
        prompt.template.instruction, *chain.from_iterable(prompt.lines), prompt.question
    )
    # Each line of a chain stands before another line of filler.
    min_units = parameters.hops + 1
    line_tokens = max(1, int(filler.sizes[0]))

    def layout(units: int) -> PromptLayout:
        *start, question = prompt.parts(draw.rng("lines", units), filler, units)
        return PromptLayout(
            [*example, *start],
            [question],
            continuation=filler.cycle_from(np.zeros(1, dtype=np.int64), 0),
            closing=prompt.joiner,
        )

    return ScalableSample(
        outputs=prompt.chains.names[0],
        answer_prefix=prompt.template.answer_prefix,
        min_units=min_units,
        max_units=max(min_units, draw.max_prompt_tokens // line_tokens),
        estimate_tokens=lambda units: fixed_tokens + units * line_tokens,
        layout=layout,
    )


def solved_example(
    parameters: VtParameters, draw: SampleDraw, filler: PieceTable
) -> list[PromptPart]:
    """Return the parts of the solved example: as many filler lines as fit its tokens.

    Names and number belong to the sample, except as of 2024, when all samples had the same example.
    The places of its lines are the same in all samples of every wording.
    """
    wording, tokenizer = draw.wording, draw.corpora.tokenizer
    budget = min(parameters.demo, draw.spec.length // 8)
    min_units = parameters.hops + 1

    def prompt_of(*purpose: object) -> TrackingPrompt:
        random = draw.shared_rng("demo", *purpose)
        chains = VariableChains.draw(random, parameters, EXAMPLE_LETTERS)
        return TrackingPrompt.from_chains(chains, wording)

    def parts_of(prompt: TrackingPrompt, units: int) -> list[PromptPart]:
        return [*prompt.parts(draw.shared_rng("demo"), filler, units), example_answer(prompt)]

    def count_units() -> int:
        smallest = parts_of(prompt_of(), min_units)
        spare = budget - len(tokenizer.encode_parts(smallest))
        return min_units + max(0, spare // max(1, int(filler.sizes[0])))

    # Counted once for all samples, as the example has the same number of lines in each.
    units = draw.corpora.cached(
        count_units, "demo", draw.spec.wording_name, draw.spec.seed, draw.task, budget
    )
    prompt = prompt_of() if wording.is_2024 else prompt_of(draw.index)
    return parts_of(prompt, units)


def example_answer(prompt: TrackingPrompt) -> str:
    """Return the answer of the example, and what separates it from the task."""
    gap = "\n\n" if prompt.template.instruction.endswith("\n\n") else "\n"
    return f"{prompt.template.answer_prefix} {' '.join(prompt.chains.names[0])}{gap}"


def _assignments(wording: RulerWording, names: Sequence[str], number: str) -> list[str]:
    """Return lines that assign a number to the first name and each name to the next one."""
    lines = [fill_slots(wording.assign, name=names[0], value=number)]
    for source, name in pairwise(names):
        lines.append(fill_slots(wording.copy, name=name, value=source))
    return lines


def _with_joiner(lines: Sequence[str], joiner: str) -> list[str]:
    return [line + joiner for line in lines]
