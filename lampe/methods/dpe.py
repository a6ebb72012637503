"""DPE: groups of tokens whose size depends on the rotated pair (arXiv 2504.18857).

With bands of pairs, the group size G of a band and the neighbour window w, a pair of dimensions
sees, as SelfExtend's:

    rel = d                               for d < w
    rel = i // G - j // G + w - w // G    otherwise

The release (LuLuLuyi/DPE at 46b85de) shifts by w - w / G in a prompt and by w - w // G in its
answer, which is ``shift="fractional-prefill"``. In its configurations w = 1024 and every G is a
power of two, so that all shifts are equal. It has eight bands of 8 pairs.

Left out: the release may group only the k pairs of each query head that contribute most to
attention, and leave the others at their true distance. Then the query heads that share a key head
need different keys, which makes a rotated copy of the keys for each query head.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lampe.errors import BadSetting
from lampe.geometry import Geometry
from lampe.methods.method import (
    IndexMethod,
    Method,
    extension_factor,
    require_below_window,
    require_positive,
    setting,
)
from lampe.methods.selfextend import group_maps, require_shift
from lampe.positions import IDENTITY_PLAN, PairMap, PositionPlan, Region

RELEASED_WINDOW = 1024
"""Neighbours in the authors' configurations, for windows of 8192 tokens and more."""
SEPARATOR = "/"
"""Sign between the numbers of a list, as in ``group_sizes=2/8/2/8``."""


def _eighth_of_the_window(method: Method, geometry: Geometry, length: int) -> int:
    return max(1, min(RELEASED_WINDOW, geometry.window // 8))


def _twice_the_extension(method: Method, geometry: Geometry, length: int) -> int:
    """Return 1 for a prompt that fits the window."""
    factor = extension_factor(method, geometry, length)
    return 1 if factor == 1 else math.ceil(2 * factor)


@dataclass(frozen=True, kw_only=True)
class DPE(IndexMethod):
    """Method of two regions: neighbours, and groups of a size of their own for bands of pairs.

    Attributes:
        group_sizes: ``G`` of each band, from the fastest pairs to the slowest, as "2/8/2/8"; one
            number is that of all bands, which makes it SelfExtend.
        bands: rotated pairs of each band, as "16/16/16/16"; they add up to all pairs of a head.
        window_size: ``w``, neighbours with exact positions, in tokens.
        shift: as SelfExtend's: "integer", "fractional", or "fractional-prefill".
    """

    name: ClassVar[str] = "dpe"
    calibrated_settings: ClassVar[tuple[str, ...]] = ("group_sizes", "attention_factor")
    group_sizes: str | int | None = setting(
        derive=_twice_the_extension,
        rule=(
            "twice the prompt's length in windows, for all pairs as in SelfExtend; the authors' "
            "search for sizes begins there"
        ),
    )
    bands: str | int | None = setting(
        derive=lambda method, geometry, length: method._equal_bands(geometry, length),
        rule="as many equal bands as group_sizes has numbers; the authors have eight",
    )
    window_size: int | None = setting(
        derive=_eighth_of_the_window,
        rule="an eighth of the window, 1024 at most; the authors run 1024 of 8192 and more",
    )
    shift: str = "integer"

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        window = self.window_size
        assert window is not None
        require_positive(self.name, window_size=window)
        require_below_window(self.name, geometry.window, window_size=window)
        require_shift(self.name, self.shift)
        sizes, bands = self._numbers("group_sizes"), self._numbers("bands")
        if len(sizes) == 1:
            sizes *= len(bands)
        self._require_all_pairs(geometry, sizes, bands)
        if set(sizes) == {1}:
            return IDENTITY_PLAN
        maps = [group_maps(window, size, self.shift) for size in sizes]
        groups = Region(
            window,
            None,
            query=PairMap.of((pairs, query) for pairs, (query, _) in zip(bands, maps, strict=True)),
            key=PairMap.of((pairs, key) for pairs, (_, key) in zip(bands, maps, strict=True)),
            name="groups",
        )
        return PositionPlan((Region(0, window, name="neighbours"), groups))

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        if self.shift != "fractional-prefill":
            return None
        method = self.resolved(geometry, length)
        return dataclasses.replace(method, shift="integer").plan(geometry, length)

    def _equal_bands(self, geometry: Geometry, length: int) -> str:
        if geometry.dim < geometry.head_dim:
            raise BadSetting(
                f"{self.name}: of {geometry.head_dim} dimensions per head {geometry.dim} rotate; "
                f"give bands that add up to {geometry.dim // 2} pairs"
            )
        pairs = geometry.dim // 2
        count = len(_parsed("group_sizes", self.value_of("group_sizes", geometry, length)))
        if pairs % count:
            raise BadSetting(
                f"{self.name}: {count} group_sizes do not divide the {pairs} pairs of a head into "
                f"equal bands; give bands that add up to {pairs}"
            )
        return SEPARATOR.join([str(pairs // count)] * count)

    def _numbers(self, name: str) -> list[int]:
        return _parsed(name, getattr(self, name))

    def _require_all_pairs(
        self, geometry: Geometry, sizes: Sequence[int], bands: Sequence[int]
    ) -> None:
        """Raise BadSetting unless there is a group size for each pair that rotates."""
        if len(sizes) != len(bands):
            raise BadSetting(
                f"{self.name}: group_sizes={self.group_sizes} are {len(sizes)} and "
                f"bands={self.bands} are {len(bands)}; give one group size for each band"
            )
        pairs = geometry.dim // 2
        if sum(bands) != pairs:
            raise BadSetting(
                f"{self.name}: bands={self.bands} add up to {sum(bands)} pairs, and {pairs} of a "
                "head rotate"
            )


def _parsed(name: str, value: str | int) -> list[int]:
    """Return the numbers of a list.

    Raises:
        BadSetting: unless all of them are 1 at least.
    """
    parts = [part.strip() for part in str(value).split(SEPARATOR)]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise BadSetting(
            f"{DPE.name}: {name}={value} must be whole numbers of 1 at least, such as 2/8/2/8"
        )
    return [int(part) for part in parts]
