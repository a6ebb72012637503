"""Attention over the regions of a plan. ``dense`` is the oracle, ``blockwise`` runs anywhere."""

from typing import Protocol

from torch import Tensor

from lampe.attention import blockwise, dense
from lampe.attention.logits import UNCHANGED, Logits
from lampe.attention.rotary import RotaryTables
from lampe.encoding import Encoding


class Attend(Protocol):
    """The one signature: see ``blockwise.attend``."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        encoding: Encoding,
        *,
        scale: float,
        start: int = 0,
        first: int = 0,
        logits: Logits = UNCHANGED,
        tables: RotaryTables | None = None,
    ) -> Tensor: ...


BACKENDS: dict[str, Attend] = {"blockwise": blockwise.attend, "dense": dense.attend}

__all__ = ["BACKENDS", "Attend", "Logits"]
