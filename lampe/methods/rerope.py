"""ReRoPE and Leaky ReRoPE: exact positions up to a window, then constant or slowly growing ones (bojone/rerope).

    ReRoPE        rel = min(d, w)
    Leaky ReRoPE  rel = d for d < w, else w + (d - w) / k

The log-n scale of queries is part of both as released.
"""

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Self

from lampe.attention_factor import AttentionFactor
from lampe.geometry import Geometry
from lampe.methods.method import IndexMethod, require_positive, smallest_compression, value_or
from lampe.positions import IDENTITY_PLAN, PositionMap, PositionPlan, Region, constant


@dataclass(frozen=True, kw_only=True)
class ReRoPE(IndexMethod):
    """All keys at ``window_size`` tokens or more share one position.

    Args:
        window_size: ``w`` in tokens; a quarter of the window by default, as in the authors' table of losses.
    """

    name: ClassVar[str] = "rerope"
    window_size: int | None = None

    def resolved(self, geometry: Geometry, length: int) -> Self:
        return dataclasses.replace(
            self, window_size=value_or(self.window_size, geometry.window // 4)
        )

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        near = self.window_size
        assert near is not None
        require_positive(self.name, window_size=near)
        far = Region(near, None, query=constant(near), key=constant(0), name="far")
        return PositionPlan((Region(0, near, name="near"), far))

    def released_attention_factor(self, geometry: Geometry, length: int) -> AttentionFactor:
        return AttentionFactor(logn_base=geometry.window)


@dataclass(frozen=True, kw_only=True)
class LeakyReRoPE(IndexMethod):
    """Distances beyond ``window_size`` grow ``factor`` times slower.

    Args:
        window_size: ``w`` in tokens; a quarter of the window by default.
        factor: ``k``; by default the smallest whole one that keeps the prompt within two thirds of the window.
    """

    name: ClassVar[str] = "leaky-rerope"
    window_size: int | None = None
    factor: int | None = None

    def resolved(self, geometry: Geometry, length: int) -> Self:
        near = value_or(self.window_size, geometry.window // 4)
        require_positive(self.name, window_size=near)
        factor = (
            smallest_compression(geometry, length, exact=near)
            if self.factor is None
            else self.factor
        )
        return dataclasses.replace(self, window_size=near, factor=factor)

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        near, factor = self.window_size, self.factor
        assert near is not None and factor is not None
        require_positive(self.name, window_size=near, factor=factor)
        if factor == 1:
            return IDENTITY_PLAN
        slow = PositionMap(scale=Fraction(1, factor))
        far = dataclasses.replace(slow, offset=Fraction(near * (factor - 1), factor))
        return PositionPlan(
            (Region(0, near, name="near"), Region(near, None, query=far, key=slow, name="far"))
        )

    def released_attention_factor(self, geometry: Geometry, length: int) -> AttentionFactor:
        return AttentionFactor(logn_base=geometry.window)
