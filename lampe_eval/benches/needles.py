"""Needles: facts hidden in a haystack and asked for at its end.

A needle states the code of a key: `The code of the silver harbor is 48213.` A `NeedleSpec` says
how many keys there are, how many codes a key has and how many keys the question asks for.
`draw_question` draws one sample from it, and `assemble_prompt` builds the prompt as **token ids**:
the haystack is truncated as ids and the needles are inserted at sentence boundaries. No text is
decoded and encoded again, so the prompt has exactly the requested length.

Every draw is a function of (spec, seed, index, depth) alone, whatever was drawn before. The keys
that the pocket model was trained on and the keys of the evaluation never meet: of the pairs
(adjective i, noun j), those with (i + j) % 4 == 0 belong to the evaluation, all others to the
training. So the model has read every word of a key, but never the key.

The training text of the pocket model depends on this module: a change of any draw or sentence
would change the committed weights.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from lampe_eval.texts.pocket_language import COLOURS, PLACES, QUALITIES, THINGS

Split = Literal["train", "evaluation"]
Encode = Callable[[str], list[int]]
FindPlaces = Callable[[Sequence[int], Sequence[float]], list[int]]
"""Function from a haystack and depths in percent to the ids that stand before each needle."""

ADJECTIVES = (*COLOURS, *QUALITIES)
NOUNS = (*PLACES, *THINGS)


@dataclass(frozen=True)
class NeedleWording:
    """Sentences of needle, question and answer, as templates.

    Attributes:
        needle: sentence that is hidden, with `{key}` and `{value}`.
        question: sentence at the end of the prompt, with `{key}` for the key or several joined
            ones, and `{count}` for how many codes a key has.
        answer: sentence of the expected answer for each key in the question, with `{key}`,
            `{value}` for its code or its codes joined by commas, and `{count}`.
    """

    needle: str = "The code of {key} is {value}."
    question: str = "What is the code of {key}?"
    answer: str = "The code of {key} is {value}."


# The pocket model was trained on these three; the cards in tasks/niah repeat them.
ONE_CODE = NeedleWording()
SEVERAL_CODES = NeedleWording(
    question="What are the {count} codes of {key}?",
    answer="The {count} codes of {key} are {value}.",
)
SEVERAL_KEYS = NeedleWording(question="What are the codes of {key}?")


@dataclass(frozen=True)
class NeedleSpec:
    """Specification of a needle sample.

    Attributes:
        wording: the sentences.
        keys: number of different keys in the haystack, whether the question asks for them or not.
        values: number of codes of each key in the question; each code is a needle of its own.
        queries: number of keys in the question.
        digits: number of digits of a code.

    Raises:
        ValueError: for numbers that contradict each other.
    """

    wording: NeedleWording = ONE_CODE
    keys: int = 1
    values: int = 1
    queries: int = 1
    digits: int = 5

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 1 <= self.queries <= self.keys:
            raise ValueError(f"queries is {self.queries}; allowed: 1 to keys ({self.keys})")
        if self.values < 1 or self.digits < 1:
            raise ValueError(
                f"values is {self.values} and digits is {self.digits}; both must be at least 1"
            )


@dataclass(frozen=True)
class Needle:
    """Sentence to hide.

    Attributes:
        sentence: the sentence.
        depth: its place in percent of the haystack: 0 is the start, 100 the end.
    """

    sentence: str
    depth: float


@dataclass(frozen=True)
class NeedleQuestion:
    """Needle sample: the codes in the haystack, their depths, and the keys in the question.

    Attributes:
        wording: the sentences.
        codes: codes of each key in the haystack.
        depths: depth of each code in percent, in the order of `codes`.
        queried_keys: keys in the question.
    """

    wording: NeedleWording
    codes: dict[str, tuple[str, ...]]
    depths: tuple[float, ...]
    queried_keys: tuple[str, ...]

    @property
    def needles(self) -> tuple[Needle, ...]:
        """Return the needles of the haystack, one for each code."""
        sentences = []
        for key, codes in self.codes.items():
            sentences += [self.wording.needle.format(key=key, value=code) for code in codes]
        pairs = zip(sentences, self.depths, strict=True)
        return tuple(Needle(sentence, depth) for sentence, depth in pairs)

    @property
    def values(self) -> tuple[str, ...]:
        """Return the codes that the answer must contain."""
        values: list[str] = []
        for key in self.queried_keys:
            values += self.codes[key]
        return tuple(values)

    @property
    def prompt_end(self) -> str:
        """Return the end of the prompt: the question and the answer prefix."""
        return self.question_text + self.answer_prefix

    @property
    def question_text(self) -> str:
        """Return the question on a line of its own."""
        *others, last = self.queried_keys
        keys = f"{', '.join(others)} and {last}" if others else last
        count = len(self.codes[self.queried_keys[0]])
        return "\n" + self.wording.question.format(key=keys, count=count)

    @property
    def answer_prefix(self) -> str:
        """Return the beginning of the answer, up to its first code."""
        return f" {self._answer_parts[0]}"

    @property
    def answer(self) -> str:
        """Return the text that the model should generate after the prompt."""
        return self._answer_parts[1]

    @property
    def _answer_parts(self) -> tuple[str, str]:
        """Return the answer before its first code, and from the space before that code on."""
        sentences = []
        for key in self.queried_keys:
            codes = self.codes[key]
            sentence = self.wording.answer.format(key=key, value=", ".join(codes), count=len(codes))
            sentences.append(sentence)
        whole = " ".join(sentences)
        # Without the space before the code, which tokenizers join with what follows it.
        prefix = whole.partition(self.values[0])[0].rstrip()
        return prefix, whole[len(prefix) :]


def split_keys(split: Split) -> tuple[str, ...]:
    """Return every key of a split, with its article."""
    keys = []
    for i, adjective in enumerate(ADJECTIVES):
        for j, noun in enumerate(NOUNS):
            key_split = "evaluation" if (i + j) % 4 == 0 else "train"
            if key_split == split:
                keys.append(f"the {adjective} {noun}")
    return tuple(keys)


_KEYS: dict[Split, tuple[str, ...]] = {
    "train": split_keys("train"),
    "evaluation": split_keys("evaluation"),
}


def draw_question(spec: NeedleSpec, seed: int, index: int, depth: float) -> NeedleQuestion:
    """Return sample `index` of the evaluation.

    The first needle in the question lies at `depth` percent, every other one anywhere. The draw
    depends on the numbers of the spec, not on its wording.
    """
    numbers = (spec.keys, spec.values, spec.queries, spec.digits)
    # Without the length: the cells of a task ask the same questions at every length.
    rng = Random(f"evaluation {seed} {index} {numbers} {depth:g}")
    return random_question(rng, spec, depth, "evaluation")


def random_question(rng: Random, spec: NeedleSpec, depth: float, split: Split) -> NeedleQuestion:
    """Return a sample drawn from a random generator."""
    # The order of the draws (keys, codes, depths) is part of the samples: do not change it.
    keys = rng.sample(_KEYS[split], spec.keys)
    counts = [spec.values if i < spec.queries else 1 for i in range(spec.keys)]
    # Drawn without replacement: no two needles of a haystack have the same code.
    numbers = rng.sample(range(10 ** (spec.digits - 1), 10**spec.digits), sum(counts))
    codes = {}
    start = 0
    for key, count in zip(keys, counts, strict=True):
        codes[key] = tuple(str(number) for number in numbers[start : start + count])
        start += count
    other_depths = [rng.uniform(0, 100) for _ in range(sum(counts) - 1)]
    return NeedleQuestion(
        wording=spec.wording,
        codes=codes,
        depths=(depth, *other_depths),
        queried_keys=tuple(keys[: spec.queries]),
    )


def spread_order(count: int) -> list[int]:
    """Return the numbers below `count` in an order of which every beginning is spread out.

    The first number comes first, and then always the one that is farthest from all before it.
    """
    order: list[int] = []
    left = list(range(count))
    while left:
        distances = [_distance(number, order) for number in left]
        order.append(left.pop(distances.index(max(distances))))
    return order


def _distance(number: int, others: Sequence[int]) -> int:
    """Return the distance to the nearest of other numbers, 0 if there are none."""
    return min((abs(number - other) for other in others), default=0)


def shortest_length(
    question: NeedleQuestion,
    encode: Encode,
    prefix: Sequence[int] = (),
    suffix: Sequence[int] | None = None,
) -> int:
    """Return the tokens of the shortest possible prompt: everything except the haystack.

    The arguments are those of `assemble_prompt`.
    """
    # With a space before it, since a needle stands behind another sentence.
    needle_tokens = sum(len(encode(f" {needle.sentence}")) for needle in question.needles)
    return len(prefix) + needle_tokens + len(_encode_end(question, encode, suffix))


def assemble_prompt(
    question: NeedleQuestion,
    haystack: Sequence[int],
    encode: Encode,
    length: int,
    sentence_ends: Collection[int],
    prefix: Sequence[int] = (),
    suffix: Sequence[int] | None = None,
) -> list[int]:
    """Return exactly `length` token ids: the haystack with needles, question and answer prefix.

    Each needle goes to the last sentence boundary at or before its depth.

    Args:
        question: the sample.
        haystack: token ids of the haystack; what is too long is left out at its end.
        encode: returns the ids of a text without special tokens.
        length: tokens of the prompt.
        sentence_ends: token ids that end a sentence.
        prefix: ids before the haystack, such as BOS and the start of a chat template.
        suffix: ids after the question, such as the end of a chat template with the answer prefix
            behind it; None for the answer prefix alone.

    Raises:
        ValueError: for a length that has no space for needles and question, or needs more haystack
            than there is.
    """

    def places(ids: Sequence[int], depths: Sequence[float]) -> list[int]:
        boundaries = [0]
        boundaries += [end for end, token in enumerate(ids, 1) if token in sentence_ends]
        targets = [len(ids) * depth / 100 for depth in depths]
        return [boundaries[bisect_right(boundaries, target) - 1] for target in targets]

    return place_needles(question, haystack, encode, length, places, prefix, suffix).ids


@dataclass(frozen=True)
class PlacedPrompt:
    """Prompt with its needles in their places.

    Attributes:
        ids: token ids of the prompt.
        depths: where each needle lies, in percent of the haystack's tokens; in the order of the
            question's `depths`, which says where each was wanted.
        haystack: token ids of the haystack, before what is too long is left out.
    """

    ids: list[int]
    depths: tuple[float, ...]
    haystack: Sequence[int]


def place_needles(
    question: NeedleQuestion,
    haystack: Sequence[int],
    encode: Encode,
    length: int,
    places: FindPlaces,
    prefix: Sequence[int] = (),
    suffix: Sequence[int] | None = None,
) -> PlacedPrompt:
    """Return a prompt of exactly `length` tokens: haystack with needles, question, answer prefix.

    Args:
        question: the sample.
        haystack: token ids of the haystack; what is too long is left out at its end.
        encode: returns the ids of a text without special tokens.
        length: tokens of the prompt.
        places: returns the place of each needle in the haystack.
        prefix: ids before the haystack, such as BOS and the start of a chat template.
        suffix: ids after the question, such as the end of a chat template with the answer prefix
            behind it; None for the answer prefix alone.

    Raises:
        ValueError: for a length that has no space for needles and question, or needs more haystack
            than there is.
    """
    shortest = shortest_length(question, encode, prefix, suffix)
    haystack_tokens = length - shortest
    if haystack_tokens < 0:
        raise ValueError(
            f"a prompt of {length} tokens is too short for its needles and question: "
            f"{shortest} needed"
        )
    if haystack_tokens > len(haystack):
        raise ValueError(
            f"a prompt of {length} tokens needs {haystack_tokens} tokens of haystack, "
            f"got {len(haystack)}"
        )
    needles = [encode(f" {needle.sentence}") for needle in question.needles]
    hay = list(haystack[:haystack_tokens])
    found = places(hay, question.depths)
    ids = [*prefix, *_insert_needles(hay, needles, found), *_encode_end(question, encode, suffix)]
    depths = tuple(100 * place / max(1, len(hay)) for place in found)
    return PlacedPrompt(ids, depths, haystack)


def _encode_end(
    question: NeedleQuestion, encode: Encode, suffix: Sequence[int] | None
) -> list[int]:
    if suffix is None:
        return encode(question.prompt_end)
    return [*encode(question.question_text), *suffix]


def _insert_needles(
    haystack: list[int], needles: list[list[int]], places: Sequence[int]
) -> list[int]:
    """Return the haystack with each needle at its place."""
    placed = list(zip(places, needles, strict=True))
    # A stable sort by place alone: needles at one boundary stay in the order of the codes.
    placed.sort(key=lambda pair: pair[0])
    ids: list[int] = []
    start = 0
    for place, needle in placed:
        ids += haystack[start:place] + needle
        start = place
    return ids + haystack[start:]
