"""ReRoPE and Leaky ReRoPE: exact positions up to a window, then constant or slowly growing ones.

    ReRoPE        rel = min(d, w)
    Leaky ReRoPE  rel = d for d < w, else w + (d - w) / k

The log-n scale of queries is part of both as released (bojone/rerope).
"""

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from lampe.attention_factor import AttentionFactor
from lampe.geometry import Geometry
from lampe.methods.method import (
    IndexMethod,
    quarter_of_the_window,
    require_positive,
    setting,
    smallest_compression,
)
from lampe.positions import IDENTITY_PLAN, PositionMap, PositionPlan, Region, constant


@dataclass(frozen=True, kw_only=True)
class ReRoPE(IndexMethod):
    """Exact positions up to a window, and one position for all keys beyond it.

    Attributes:
        window_size: ``w`` in tokens.
    """

    name: ClassVar[str] = "rerope"
    window_size: int | None = setting(
        derive=quarter_of_the_window,
        rule="a quarter of the window, as in the authors' table of losses",
    )

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        near = self.window_size
        assert near is not None
        require_positive(self.name, window_size=near)
        # Far keys are at 0, that is not rotated, so the query's position is the distance.
        far = Region(near, None, query=constant(near), key=constant(0), name="far")
        return PositionPlan((Region(0, near, name="near"), far))

    def released_attention_factor(self, geometry: Geometry, length: int) -> AttentionFactor:
        return self.logn_factor(geometry)


@dataclass(frozen=True, kw_only=True)
class LeakyReRoPE(IndexMethod):
    """Exact positions up to a window; beyond it they grow ``factor`` times slower.

    Attributes:
        window_size: ``w`` in tokens.
        factor: ``k``, whole.
    """

    name: ClassVar[str] = "leaky-rerope"
    window_size: int | None = setting(
        derive=quarter_of_the_window, rule="a quarter of the window, as for rerope"
    )
    factor: int | None = setting(
        derive=lambda method, geometry, length: method._smallest_factor(geometry, length),
        rule="smallest whole one that keeps the prompt within two thirds of the window",
    )

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        near, factor = self.window_size, self.factor
        assert near is not None and factor is not None
        require_positive(self.name, window_size=near, factor=factor)
        if factor == 1:
            return IDENTITY_PLAN
        # The offset lets far positions begin at w, where the near ones end.
        key = PositionMap(scale=Fraction(1, factor))
        query = dataclasses.replace(key, offset=Fraction(near * (factor - 1), factor))
        return PositionPlan(
            (Region(0, near, name="near"), Region(near, None, query=query, key=key, name="far"))
        )

    def released_attention_factor(self, geometry: Geometry, length: int) -> AttentionFactor:
        return self.logn_factor(geometry)

    def _smallest_factor(self, geometry: Geometry, length: int) -> int:
        near = self.value_of("window_size", geometry, length)
        require_positive(self.name, window_size=near)
        return smallest_compression(geometry, length, exact=near)
