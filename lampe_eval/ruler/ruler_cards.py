"""What a RULER task says: the parameters of ``scripts/synthetic.yaml`` of NVIDIA/RULER at c3f5e3b, named in full."""

from typing import Annotated, Literal

from pydantic import Field

from lampe_eval.cards import Card, TaskCard

Count = Annotated[int, Field(ge=1)]


class NiahParameters(Card):
    """Needles in a haystack.

    Attributes:
        haystack: lines of filler, essays, or needles that nobody asks for.
        keys: what needles are listed under.
        values: what is asked for.
        num_keys: keys in the haystack, raised to ``num_queries``.
        num_values: needles of each key.
        num_queries: keys asked for.
    """

    kind: Literal["niah"]
    haystack: Literal["noise", "essay", "needle"]
    keys: Literal["words", "numbers", "uuids"]
    values: Literal["words", "numbers", "uuids"]
    num_keys: Count = 1
    num_values: Count = 1
    num_queries: Count = 1


class VtParameters(Card):
    """Variable tracking: chains of assignments among lines of filler, after a solved example.

    Attributes:
        chains: chains in the text; the first is asked for.
        hops: assignments after the first of a chain.
        demo: tokens of the example at most; an eighth of the length where that is less.
    """

    kind: Literal["vt"]
    chains: Count = 1
    hops: Count = 4
    demo: Count = 500


class Frequencies(Card):
    """How often the words of a list stand in it, and those of the example before it.

    Attributes:
        often: times of each common word.
        seldom: times of each other word.
        demo_words: different words of the example.
        demo_often: times of each of its common words.
        demo_seldom: times of each of its other words.
    """

    often: Count
    seldom: Count
    demo_words: Count
    demo_often: Count
    demo_seldom: Count


class CweParameters(Card):
    """Common words extraction.

    Attributes:
        common: words asked for.
        long: frequencies at most lengths.
        short: frequencies below ``short_below`` tokens.
    """

    kind: Literal["cwe"]
    common: Count = 10
    long: Frequencies
    short: Frequencies
    short_below: int = 4096


class FweParameters(Card):
    """Frequent words extraction: the frequency of rank k falls as k to the power of -alpha.

    Attributes:
        vocabulary: tokens of the length for each different word.
        letters: of a word.
        asked: words asked for; the most frequent of all is noise.
    """

    kind: Literal["fwe"]
    alpha: Annotated[float, Field(gt=1)] = 2.0
    vocabulary: Count = 50
    letters: Count = 6
    asked: Count = 3


class QaParameters(Card):
    """A question among documents that answer it and documents that do not."""

    kind: Literal["qa"]
    dataset: Literal["squad", "hotpotqa"]


Parameters = NiahParameters | VtParameters | CweParameters | FweParameters | QaParameters


class RulerCard(TaskCard):
    """A task of RULER.

    Attributes:
        max_new_tokens: room for the answer.
        parameters: of the generator; ``kind`` names it.
    """

    max_new_tokens: Count
    parameters: Annotated[Parameters, Field(discriminator="kind")]
