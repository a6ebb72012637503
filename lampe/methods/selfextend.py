"""SelfExtend: exact positions for neighbours, grouped positions beyond (arXiv 2401.01325).

With G the group size and W the neighbour window:

    rel = d                               for d < W
    rel = i // G - j // G + W - W // G    otherwise
"""

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Self

from lampe.errors import UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import IndexMethod, require_positive, smallest_compression, value_or
from lampe.positions import IDENTITY_PLAN, PositionMap, PositionPlan, Region


@dataclass(frozen=True, kw_only=True)
class SelfExtend(IndexMethod):
    """Two regions: neighbours and groups.

    Args:
        group_size: tokens that share a position; by default the smallest that keeps the prompt within two thirds of the
            window, and 1 for a prompt that fits the window.
        window_size: neighbours with exact positions, in tokens; a quarter of the window by default.
        shift: "integer" as above, or "fractional" (``window_size / group_size`` unrounded), which the authors' code
            runs in prefill.
    """

    name: ClassVar[str] = "selfextend"
    group_size: int | None = None
    window_size: int | None = None
    shift: str = "integer"

    def resolved(self, geometry: Geometry, length: int) -> Self:
        near = value_or(self.window_size, geometry.window // 4)
        require_positive(self.name, window_size=near)
        group = (
            smallest_compression(geometry, length, exact=near)
            if self.group_size is None
            else self.group_size
        )
        return dataclasses.replace(self, window_size=near, group_size=group)

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        near, group = self.window_size, self.group_size
        assert near is not None and group is not None
        require_positive(self.name, group_size=group, window_size=near)
        if group == 1:
            return IDENTITY_PLAN
        groups = PositionMap(scale=Fraction(1, group), floor=True)
        steps: dict[str, int | Fraction] = {
            "integer": near // group,
            "fractional": Fraction(near, group),
        }
        if self.shift not in steps:
            raise UnknownName("shift of selfextend", self.shift, steps)
        shift = near - steps[self.shift]
        return PositionPlan(
            (
                Region(0, near, name="neighbours"),
                Region(
                    near,
                    None,
                    query=dataclasses.replace(groups, offset=shift),
                    key=groups,
                    name="groups",
                ),
            )
        )
