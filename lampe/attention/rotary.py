"""Rotating queries and keys to real-valued positions.

Shapes: B batch, H heads, L tokens, D head dimensions, P rotated pairs.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lampe.positions import PositionMap
from lampe.rope import Layout, Rope


def rotate(x_BHLD: Tensor, cos_LP: Tensor, sin_LP: Tensor, layout: Layout, begin: int = 0) -> Tensor:
    """Turns pair ``p`` of token ``t`` by the angle at ``[t, p]``; dimensions before ``begin`` or after the pairs pass.

    The product is taken in the tables' float32 and rounded once, to the dtype of ``x``.
    """
    stop = begin + 2 * cos_LP.shape[-1]
    before, rotated, after = x_BHLD[..., :begin], x_BHLD[..., begin:stop], x_BHLD[..., stop:]
    if layout == "half":
        first, second = rotated.chunk(2, dim=-1)
        turned = torch.cat((first * cos_LP - second * sin_LP, second * cos_LP + first * sin_LP), dim=-1)
    else:
        first, second = rotated[..., 0::2], rotated[..., 1::2]
        turned = torch.stack((first * cos_LP - second * sin_LP, second * cos_LP + first * sin_LP), dim=-1).flatten(-2)
    parts = [part for part in (before, turned.to(x_BHLD.dtype), after) if part.shape[-1]]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


@dataclass
class RotaryTables:
    """Cos and sin of one rope at the positions of many maps, kept between layers and decode steps.

    Angles are built in float64 and rounded once to float32. At whole positions that is what transformers computes, so
    original positions give the unpatched model's logits. Tables grow by doubling.
    """

    rope: Rope
    _tables: dict[tuple[PositionMap, torch.device], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __call__(self, positions: PositionMap, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cos and sin, each ``[stop - start, P]``, at the mapped positions of tokens ``start..stop``."""
        if positions.scale == 0 and type(self.rope) is Rope:
            cos, sin = self._upto(positions, 1, device)
            return cos.expand(stop - start, -1), sin.expand(stop - start, -1)
        cos, sin = self._upto(positions, stop, device)
        return cos[start:stop], sin[start:stop]

    def _upto(self, positions: PositionMap, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
        known = self._tables.get((positions, device))
        if known is None:
            known = self._tables[positions, device] = self._build(positions, stop, device)
        elif len(known[0]) < stop:
            known = self._tables[positions, device] = self._build(positions, max(stop, 2 * len(known[0])), device)
        return known

    def _build(self, positions: PositionMap, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        index = torch.arange(length, device=device)
        angle = self.rope.angles(positions(index), index).float()
        return angle.cos(), angle.sin()
