"""SelfExtend: exact positions for neighbours, grouped positions beyond (arXiv 2401.01325).

With G the group size and W the neighbour window:

    rel = d                               for d < W
    rel = i // G - j // G + W - W // G    otherwise
"""

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from lampe.errors import UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import IndexMethod, require_positive, setting, smallest_compression
from lampe.positions import IDENTITY_PLAN, PositionMap, PositionPlan, Region


@dataclass(frozen=True, kw_only=True)
class SelfExtend(IndexMethod):
    """SelfExtend's two regions: neighbours and groups.

    Attributes:
        window_size: ``W``, neighbours with exact positions, in tokens.
        group_size: ``G``, tokens that share a position; 1 leaves the model as it is.
        shift: "integer" as above, or "fractional" (``W / G`` unrounded), which the authors' code
            runs in prefill.
    """

    name: ClassVar[str] = "selfextend"
    window_size: int | None = setting(
        derive=lambda method, geometry, length: geometry.window // 4,
        rule="a quarter of the window; the authors run 1024 of 4096",
    )
    group_size: int | None = setting(
        derive=lambda method, geometry, length: method._smallest_group(geometry, length),
        rule=(
            "smallest that keeps the prompt within two thirds of the window, "
            "the rule of thumb in SelfExtend's README"
        ),
    )
    shift: str = "integer"

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        window, group = self.window_size, self.group_size
        assert window is not None and group is not None
        require_positive(self.name, group_size=group, window_size=window)
        if group == 1:
            return IDENTITY_PLAN
        # The release has both: it divides exactly in prefill and rounds down in flash decode.
        grouped_windows: dict[str, int | Fraction] = {
            "integer": window // group,
            "fractional": Fraction(window, group),
        }
        if self.shift not in grouped_windows:
            raise UnknownName("shift of selfextend", self.shift, grouped_windows)
        # The offset makes the first grouped distance continue the neighbours: without it, grouped
        # positions would begin at W // G.
        key = PositionMap(scale=Fraction(1, group), floor=True)
        query = dataclasses.replace(key, offset=window - grouped_windows[self.shift])
        groups = Region(window, None, query=query, key=key, name="groups")
        return PositionPlan((Region(0, window, name="neighbours"), groups))

    def _smallest_group(self, geometry: Geometry, length: int) -> int:
        window = self.value_of("window_size", geometry, length)
        require_positive(self.name, window_size=window)
        return smallest_compression(geometry, length, exact=window)
