"""Needles: facts that nothing else in a text gives away, hidden in a haystack and asked for at its end.

A needle says the code of a key: `The code of the silver harbor is 48213.` A `Recipe` says how many keys, how many codes
a key has and how many keys are asked; `draw` makes one sample of it, and `assemble` builds the prompt as **token ids**:
the haystack is cut to length as ids and the needles are spliced in at sentence boundaries, so no text is decoded and
encoded again and the prompt has exactly the length that was asked for.

Every draw is a function of (recipe, seed, index, depth) alone, whatever was drawn before. What the pocket model is
trained on and what is evaluated never meet: of the pairs (quality i, place or thing j), those with (i + j) % 4 == 0 are
keys of the evaluation, all others are keys of the training. So the model has read each word of a key, never the key.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from lampe_eval.texts.pocket_language import COLOURS, PLACES, QUALITIES, THINGS

Split = Literal["train", "evaluation"]
Encode = Callable[[str], list[int]]

ADJECTIVES = (*COLOURS, *QUALITIES)
NOUNS = (*PLACES, *THINGS)


@dataclass(frozen=True)
class NeedleWording:
    """How needles, question and answer are put. `{key}` is a key with its article, or several of them joined.

    The answer is one sentence for each key that is asked; `{value}` is the key's code, or its codes joined by commas.
    `{count}` is how many codes a key has.
    """

    needle: str = "The code of {key} is {value}."
    question: str = "What is the code of {key}?"
    answer: str = "The code of {key} is {value}."


ONE_CODE = NeedleWording()
SEVERAL_CODES = NeedleWording(
    question="What are the {count} codes of {key}?",
    answer="The {count} codes of {key} are {value}.",
)
SEVERAL_KEYS = NeedleWording(question="What are the codes of {key}?")
"""What the pocket model is trained on, and what the cards in tasks/niah say."""


@dataclass(frozen=True)
class NeedleSpec:
    """What a sample is made of.

    Attributes:
        wording: the sentences.
        keys: how many different keys the haystack holds, asked or not.
        values: how many codes each key that is asked has, one needle each.
        queries: how many of the keys are asked.
        digits: how many digits a code has.
    """

    wording: NeedleWording = ONE_CODE
    keys: int = 1
    values: int = 1
    queries: int = 1
    digits: int = 5

    def __post_init__(self) -> None:
        if not 1 <= self.queries <= self.keys:
            raise ValueError(f"queries is {self.queries}; allowed: 1 to keys ({self.keys})")
        if self.values < 1 or self.digits < 1:
            raise ValueError(
                f"values is {self.values} and digits is {self.digits}; both must be at least 1"
            )


@dataclass(frozen=True)
class Needle:
    """A sentence to hide, and how deep: 0 is the start of the haystack, 100 its end."""

    sentence: str
    depth: float


@dataclass(frozen=True)
class NeedleQuestion:
    """One sample: the codes of the haystack, where each lies, and which keys are asked."""

    wording: NeedleWording
    codes: dict[str, tuple[str, ...]]
    depths: tuple[float, ...]
    asked: tuple[str, ...]

    @property
    def needles(self) -> tuple[Needle, ...]:
        facts = [(key, code) for key, codes in self.codes.items() for code in codes]
        sentences = [self.wording.needle.format(key=key, value=code) for key, code in facts]
        return tuple(Needle(*pair) for pair in zip(sentences, self.depths, strict=True))

    @property
    def values(self) -> tuple[str, ...]:
        """The codes that the answer must contain."""
        return tuple(code for key in self.asked for code in self.codes[key])

    @property
    def question(self) -> str:
        """The end of the prompt: the question, and the answer up to the first code."""
        return self.query + self.lead

    @property
    def query(self) -> str:
        """What is asked, after the haystack."""
        key = " and ".join(part for part in (", ".join(self.asked[:-1]), self.asked[-1]) if part)
        return "\n" + self.wording.question.format(key=key, count=len(self.codes[self.asked[0]]))

    @property
    def lead(self) -> str:
        """The answer up to the first code."""
        return f" {self._answer[0]}"

    @property
    def answer(self) -> str:
        """What the model should say after the question."""
        return self._answer[1]

    @property
    def _answer(self) -> tuple[str, str]:
        sentences = " ".join(
            self.wording.answer.format(
                key=key, value=", ".join(self.codes[key]), count=len(self.codes[key])
            )
            for key in self.asked
        )
        lead = sentences.partition(self.values[0])[0].rstrip()
        return lead, sentences[len(lead) :]


def split_keys(split: Split) -> tuple[str, ...]:
    """Every key of a split, with its article."""
    held_out = split == "evaluation"
    return tuple(
        f"the {adjective} {noun}"
        for i, adjective in enumerate(ADJECTIVES)
        for j, noun in enumerate(NOUNS)
        if ((i + j) % 4 == 0) is held_out
    )


_KEYS: dict[Split, tuple[str, ...]] = {
    "train": split_keys("train"),
    "evaluation": split_keys("evaluation"),
}


def draw_question(recipe: NeedleSpec, seed: int, index: int, depth: float) -> NeedleQuestion:
    """The evaluation's sample `index`: the first needle that is asked lies at `depth`, every other one anywhere.

    The recipe's numbers take part in the draw, its wording does not.
    """
    shape = (recipe.keys, recipe.values, recipe.queries, recipe.digits)
    return random_question(
        Random(f"evaluation {seed} {index} {shape} {depth:g}"), recipe, depth, "evaluation"
    )


def random_question(rng: Random, recipe: NeedleSpec, depth: float, split: Split) -> NeedleQuestion:
    """A sample drawn from the generator given."""
    names = rng.sample(_KEYS[split], recipe.keys)
    counts = [recipe.values if i < recipe.queries else 1 for i in range(recipe.keys)]
    numbers = iter(rng.sample(range(10 ** (recipe.digits - 1), 10**recipe.digits), sum(counts)))
    return NeedleQuestion(
        wording=recipe.wording,
        codes={
            key: tuple(str(next(numbers)) for _ in range(count))
            for key, count in zip(names, counts, strict=True)
        },
        depths=(depth, *(rng.uniform(0, 100) for _ in range(sum(counts) - 1))),
        asked=tuple(names[: recipe.queries]),
    )


def shortest_length(
    riddle: NeedleQuestion,
    encode: Encode,
    head: Sequence[int] = (),
    tail: Sequence[int] | None = None,
) -> int:
    """The tokens of everything but the haystack: the shortest prompt there is. Arguments are those of `assemble`."""
    end = _end(riddle, encode, tail)
    return (
        len(head) + sum(len(encode(f" {needle.sentence}")) for needle in riddle.needles) + len(end)
    )


def assemble_prompt(
    riddle: NeedleQuestion,
    haystack: Sequence[int],
    encode: Encode,
    length: int,
    sentence_ends: Collection[int],
    head: Sequence[int] = (),
    tail: Sequence[int] | None = None,
) -> list[int]:
    """The prompt as exactly `length` token ids: haystack with needles, question, start of the answer.

    Each needle goes to the last sentence boundary at or before its depth. `encode` gives the ids of a text without
    special tokens; `sentence_ends` are the ids that end a sentence. `head` and `tail` are put around haystack and
    question, such as a chat template with the riddle's lead at its end; without a tail the lead follows the question.
    """
    least = shortest_length(riddle, encode, head, tail)
    room = length - least
    if room < 0:
        raise ValueError(
            f"a prompt of {length} tokens is too short for its needles and question: {least} needed"
        )
    if room > len(haystack):
        raise ValueError(
            f"a prompt of {length} tokens needs {room} tokens of haystack, got {len(haystack)}"
        )
    planted = [encode(f" {needle.sentence}") for needle in riddle.needles]
    depths = [needle.depth for needle in riddle.needles]
    end = _end(riddle, encode, tail)
    return [*head, *_spliced(list(haystack[:room]), planted, depths, sentence_ends), *end]


def _end(riddle: NeedleQuestion, encode: Encode, tail: Sequence[int] | None) -> list[int]:
    return encode(riddle.question) if tail is None else [*encode(riddle.query), *tail]


def _spliced(
    hay: list[int], planted: list[list[int]], depths: list[float], sentence_ends: Collection[int]
) -> list[int]:
    """The haystack with each needle at the last sentence boundary at or before its depth."""
    boundaries = [0, *(at for at, token in enumerate(hay, start=1) if token in sentence_ends)]
    places = [boundaries[bisect_right(boundaries, len(hay) * depth / 100) - 1] for depth in depths]
    out: list[int] = []
    done = 0
    for place, needle in sorted(zip(places, planted, strict=True), key=lambda pair: pair[0]):
        out += hay[done:place] + needle
        done = place
    return out + hay[done:]
