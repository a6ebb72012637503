"""Random draws that are a function of their name alone, on every machine and with every version of NumPy."""

from random import Random
from typing import Literal
from uuid import UUID

import numpy as np
import numpy.typing as npt

from lampe_eval.ruler import word_lists

Kind = Literal["words", "numbers", "uuids"]
Order = npt.NDArray[np.int64]


def seeded_rng(*name: object) -> Random:
    """The generator of a name."""
    return Random(" ".join(map(str, ("ruler", *name))))


def permutation(random: Random, count: int) -> Order:
    """The numbers below a count in random order: that of random keys, whose bits are of Python's own generator."""
    keys = np.frombuffer(random.randbytes(8 * count), dtype="<u8")
    return np.argsort(keys, kind="stable").astype(np.int64)


def distinct(random: Random, kind: Kind, count: int) -> list[str]:
    """So many different things of a kind."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[_one(random, kind)] = None
    return list(found)


def _one(random: Random, kind: Kind) -> str:
    match kind:
        case "numbers":
            return str(random.randrange(1_000_000, 10_000_000))
        case "uuids":
            return str(UUID(int=random.getrandbits(128), version=4))
        case "words":
            return f"{random.choice(word_lists.adjectives())}-{random.choice(word_lists.nouns())}"


def capitals(random: Random, letters: int, count: int) -> list[str]:
    """So many different names of capital letters."""
    return letters_of(random, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", letters, count)


def letters_of(random: Random, alphabet: str, letters: int, count: int) -> list[str]:
    """So many different strings over an alphabet."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(random.choices(alphabet, k=letters))] = None
    return list(found)
