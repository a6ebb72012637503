"""Cos and sin of keys at their positions, of all prompts in one array.

Compiled code takes one array, whatever requests a batch has. Prompts of one length share a table,
and all prompts share that of the true positions.
"""

from dataclasses import dataclass
from typing import Any
from weakref import WeakSet, WeakValueDictionary

import numpy as np
import torch

from lampe.attention.rotation import cos_sin
from lampe.encoding import Encoding
from lampe.positions import PositionMap

FIRST_ROWS = 4096
"""Rows of the first array."""


@dataclass(eq=False)
class RotaryTable:
    """Rows of the array that belong to a map of keys.

    Attributes:
        base: row of token 0.
        rows: tokens.
    """

    base: int
    rows: int


class RotaryTableArray:
    """Tables of all maps in use; a table lives as long as somebody holds it.

    Attributes:
        array: ``[rows, 2 P]`` float32, cos before sin. Another one takes its place when it is full,
            and those who computed rows of the old one must keep it.
    """

    def __init__(self, pairs: int) -> None:
        self.array = np.empty((FIRST_ROWS, 2 * pairs), np.float32)
        self._used = 0
        self._newest: WeakValueDictionary[Any, RotaryTable] = WeakValueDictionary()
        self._live: WeakSet[RotaryTable] = WeakSet()

    def table(self, positions: PositionMap, encoding: Encoding, stop: int) -> RotaryTable:
        """Return the table of the tokens from 0 to at least ``stop`` under a map of keys."""
        key = positions, encoding.rope, encoding.attention_factor
        table = self._newest.get(key)
        if table is None or table.rows < stop:
            # A table grows by a quarter, so that answers seldom need another.
            rows = stop if table is None else max(stop, table.rows * 5 // 4)
            cos, sin = cos_sin(positions, encoding, torch.arange(rows))
            table = RotaryTable(self._allocate(rows), rows)
            self.array[table.base : table.base + rows] = torch.cat((cos, sin), dim=1).numpy()
            self._newest[key] = table
            self._live.add(table)
        return table

    def _allocate(self, rows: int) -> int:
        """Return the first of so many free rows, in a new array where this one is full."""
        if self._used + rows > len(self.array):
            live = list(self._live)
            needed = rows + sum(table.rows for table in live)
            array = np.empty((max(FIRST_ROWS, 2 * needed), self.array.shape[1]), np.float32)
            self._used = 0
            for table in live:
                moved = array[self._used : self._used + table.rows]
                moved[:] = self.array[table.base : table.base + table.rows]
                table.base = self._used
                self._used += table.rows
            self.array = array
        base = self._used
        self._used += rows
        return base
