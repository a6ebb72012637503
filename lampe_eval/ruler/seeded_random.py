"""Random draws that depend on nothing but a name.

A generator is seeded with a text such as "ruler vt 1 0 17 lines": task, version, seed, number of
the sample and purpose. Sample 17 is therefore the same whether or not samples 0 to 16 were drawn
before it, in whichever process. Only Python's own generator is used, because NumPy may change the
streams of its generators between versions.

The names are part of every sample: a different name gives different samples.
"""

from random import Random
from typing import Literal
from uuid import UUID

import numpy as np
import numpy.typing as npt

from lampe_eval.ruler import word_lists

ValueKind = Literal["words", "numbers", "uuids"]
Indices = npt.NDArray[np.int64]


def seeded_rng(*name: object) -> Random:
    """Return the generator that belongs to a name, its parts joined by spaces."""
    # Upstream draws all samples from one generator, and its search for the length draws too, so a
    # sample there depends on those before it, on the tokenizer and on the length.
    return Random(" ".join(map(str, ("ruler", *name))))


def permutation(random: Random, count: int) -> Indices:
    """Return the numbers from 0 to ``count - 1`` in random order.

    They are sorted by random 64-bit keys that come from Python's own generator.
    """
    # "<u8" fixes the byte order, so that the order is the same on every machine
    keys = np.frombuffer(random.randbytes(8 * count), dtype="<u8")
    return np.argsort(keys, kind="stable").astype(np.int64)


def distinct_values(random: Random, kind: ValueKind, count: int) -> list[str]:
    """Return ``count`` different values: adjective-noun pairs, numbers of 7 digits, or UUIDs."""
    # A dict keeps the order of the draws; a set's order of strings differs between processes.
    values: dict[str, None] = {}
    while len(values) < count:
        values[_random_value(random, kind)] = None
    return list(values)


def distinct_strings(random: Random, alphabet: str, letters: int, count: int) -> list[str]:
    """Return ``count`` different strings of ``letters`` characters of an alphabet."""
    strings: dict[str, None] = {}
    while len(strings) < count:
        strings["".join(random.choices(alphabet, k=letters))] = None
    return list(strings)


def _random_value(random: Random, kind: ValueKind) -> str:
    match kind:
        case "numbers":
            return str(random.randrange(1_000_000, 10_000_000))
        case "uuids":
            return str(UUID(int=random.getrandbits(128), version=4))
        case "words":
            return f"{random.choice(word_lists.adjectives())}-{random.choice(word_lists.nouns())}"
