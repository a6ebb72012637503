"""JSON objects whose keys and values are UUIDs, and the question for the value of one key.

The object fills a length with whole entries; a line of dots before it fills what is less than one.
The asked key lies at a known depth. Two other entries of the object stand before it as examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from random import Random

import numpy as np

from lampe_eval.ruler.length_fitting import PromptLayout, ScalableSample
from lampe_eval.ruler.piecewise_tokenizer import PieceRun, PieceTable, PiecewiseTokenizer
from lampe_eval.ruler.seeded_random import Indices, distinct_values, permutation

EXAMPLES = 2
LEAST_ENTRIES = 2 * (EXAMPLES + 1)
INSTRUCTION = "The JSON object below maps codes to codes. One of its entries is to be repeated.\n"
END = "}\nThree entries of the object follow; complete the last one.\n"

POOL_ENTRIES = 4096
POOL_TOKENS = 131_072
"""Tokens for which so many entries are enough: one has 72 letters of codes and more."""


@dataclass(frozen=True, eq=False)
class EntryTable:
    """Entries that objects are made of: as pieces with a comma, then as pieces without one.

    Attributes:
        keys: keys of the entries.
        values: values of the entries.
        pieces: table of the pieces.
    """

    keys: Sequence[str]
    values: Sequence[str]
    pieces: PieceTable

    @classmethod
    def draw(cls, tokenizer: PiecewiseTokenizer, seed: int, length: int) -> "EntryTable":
        """Return enough entries for a length, the same ones for all usual lengths."""
        count = POOL_ENTRIES * -(-length // POOL_TOKENS)
        codes = distinct_values(Random(f"json entries {seed}"), "uuids", 2 * count)
        keys, values = codes[::2], codes[1::2]
        lines = [f' "{key}": "{value}"' for key, value in zip(keys, values, strict=True)]
        pieces = [f"{line},\n" for line in lines] + [f"{line}\n" for line in lines]
        return cls(keys, values, tokenizer.build_table(pieces))

    def lines(self, entries: Indices) -> PieceRun:
        """Return the lines of an object with the given entries; the last has no comma."""
        last = entries[-1:] + len(self.keys)
        return PieceRun(self.pieces, np.concatenate([entries[:-1], last]))


@dataclass(frozen=True, eq=False)
class LookupSample:
    """Question for a value of an object whose number of entries is open.

    Attributes:
        table: entries that the object may have.
        seed: what its random numbers depend on.
        depth: depth of the asked entry, in percent of the entries.
    """

    table: EntryTable
    seed: str
    depth: float

    @cached_property
    def key(self) -> str:
        """Return the key that is asked for."""
        return self.table.keys[int(self._order[0])]

    @property
    def value(self) -> str:
        """Return the value that answers."""
        return self.table.values[int(self._order[0])]

    @cached_property
    def _order(self) -> Indices:
        """Return the entries: the asked one, those of the examples, and all others."""
        return permutation(Random(f"json entry {self.seed}"), len(self.table.keys))

    def scalable(self, tokenizer: PiecewiseTokenizer) -> ScalableSample:
        """Return the sample as one whose units are entries."""
        sizes = np.concatenate([[0], np.cumsum(self.table.pieces.sizes[self._order])])
        texts = (INSTRUCTION, "{\n", END, self._examples())
        fixed_tokens = tokenizer.count_tokens(*texts)
        return ScalableSample(
            outputs=(self.value,),
            answer_prefix=f'"{self.key}":',
            min_units=LEAST_ENTRIES,
            max_units=len(self._order),
            estimate_tokens=lambda entries: fixed_tokens + int(sizes[entries]),
            layout=self._layout,
        )

    def _layout(self, entries: int) -> PromptLayout:
        place = round(self.depth * (entries - 1) / 100)
        others = permutation(Random(f"json order {self.seed} {entries}"), entries - 1) + 1
        shuffled = np.concatenate([others[:place], [0], others[place:]])
        return PromptLayout(
            [INSTRUCTION],
            ["{\n", self.table.lines(self._order[shuffled]), END, self._examples()],
            continuation=repeat("."),
            closing="\n",
            meta={"depth": self.depth, "entries": entries},
        )

    def _examples(self) -> str:
        entries = self._order[1 : EXAMPLES + 1].tolist()
        return "\n".join(f'"{self.table.keys[i]}": "{self.table.values[i]}"' for i in entries)
