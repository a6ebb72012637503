"""Cards of RULER's tasks: the parameters of NVIDIA/RULER's scripts/synthetic.yaml at c3f5e3b."""

from typing import Annotated, Literal

from pydantic import Field

from lampe_eval.cards import Card, TaskCard

Count = Annotated[int, Field(ge=1)]


class NiahParameters(Card):
    """Parameters of needles in a haystack.

    Attributes:
        kind: names the generator.
        haystack: lines of filler, essays, or needles that are never queried.
        keys: kind of the keys that needles are listed under.
        values: kind of the values that the answer must contain.
        num_keys: keys in the haystack, at least ``num_queries``.
        num_values: needles of each key.
        num_queries: keys that the question asks for.
    """

    kind: Literal["niah"]
    haystack: Literal["noise", "essay", "needle"]
    keys: Literal["words", "numbers", "uuids"]
    values: Literal["words", "numbers", "uuids"]
    num_keys: Count = 1
    num_values: Count = 1
    num_queries: Count = 1


class VtParameters(Card):
    """Parameters of variable tracking.

    Attributes:
        kind: names the generator.
        chains: chains of assignments in the text; the question is about the first.
        hops: assignments of a chain after its first.
        demo: largest number of tokens of the solved example, or an eighth of the length where that
            is less.
    """

    kind: Literal["vt"]
    chains: Count = 1
    hops: Count = 4
    demo: Count = 500


class Frequencies(Card):
    """Frequencies of the words in a list, and in the example before it.

    Attributes:
        often: entries of each common word.
        seldom: entries of each other word.
        demo_words: different words of the example.
        demo_often: entries of each of the example's common words.
        demo_seldom: entries of each of the example's other words.
    """

    often: Count
    seldom: Count
    demo_words: Count
    demo_often: Count
    demo_seldom: Count


class CweParameters(Card):
    """Parameters of common words extraction.

    Attributes:
        kind: names the generator.
        common: number of common words, which the question asks for.
        long: frequencies at most lengths.
        short: frequencies at lengths below ``short_below``.
        short_below: tokens.
    """

    kind: Literal["cwe"]
    common: Count = 10
    long: Frequencies
    short: Frequencies
    short_below: int = 4096


class FweParameters(Card):
    """Parameters of frequent words extraction.

    Attributes:
        kind: names the generator.
        alpha: the frequency of the word of rank k is proportional to k to the power of -alpha.
        vocabulary: tokens of the length for each different word.
        letters: letters of a word.
        asked: number of words that the question asks for; the most frequent of all is noise.
    """

    kind: Literal["fwe"]
    alpha: Annotated[float, Field(gt=1)] = 2.0
    vocabulary: Count = 50
    letters: Count = 6
    asked: Count = 3


class QaParameters(Card):
    """Parameters of a question among documents that answer it and documents that do not.

    Attributes:
        kind: names the generator.
        dataset: source of questions and documents.
    """

    kind: Literal["qa"]
    dataset: Literal["squad", "hotpotqa"]


Parameters = NiahParameters | VtParameters | CweParameters | FweParameters | QaParameters


class RulerCard(TaskCard):
    """Card of a RULER task.

    Attributes:
        max_new_tokens: tokens reserved for the answer.
        parameters: parameters of the generator that ``kind`` names.
    """

    max_new_tokens: Count
    parameters: Annotated[Parameters, Field(discriminator="kind")]
