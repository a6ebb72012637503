"""GALI: old tokens squeezed into the window, logits between whole positions (arXiv 2502.02659).

Queries come in bands: the first W tokens of a prompt keep their positions, and after them every s
tokens are a band, as is each generated token. A band that ends at T gives all tokens up to its end
positions below the window W. With the local window Lw

    g = ceil((T - Lw) / (W - Lw)),   k = ceil((T - W) / (g - 1))
    pos(x) = x / g  up to position k,  x - (T - W)  from there on,  the larger of both at any x

A query is at ceil(pos). The logit of a key between two whole positions is interpolated linearly
between its logits at these. The share of each depends on the key alone, so this is ordinary
attention over keys whose cos and sin are interpolated: the paper needs two passes, this needs one.

The release (adlnlp/Gali at 5a3e947) rounds positions to the dtype of the model before it takes
their fractions. In bfloat16, which its loaders load, none is left at real lengths, and a key is at
ceil(pos): ``interpolate=False``.

Left out: the noise that the release adds to interpolated logits. It is random, it would take the
second pass that the interpolation does not need, and in bfloat16 the release has none either.
"""

# Names and settings of methods are checked without torch, which takes seconds to import: functions
# that make tensors import it themselves.
from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

from lampe.errors import BadSetting
from lampe.geometry import Geometry
from lampe.methods.method import (
    IndexMethod,
    Method,
    require_below_window,
    require_positive,
    setting,
)
from lampe.positions import IDENTITY_PLAN, PositionMap, PositionPlan, Region, constant

if TYPE_CHECKING:
    from torch import Tensor

MOST_BANDS = 16
"""Bands beyond the window by default, at most."""


def _whole_window(method: Method, geometry: Geometry, length: int) -> int:
    return geometry.window


def _sixteenth_of_the_window(method: Method, geometry: Geometry, length: int) -> int:
    return max(1, geometry.window // 16)


def _chunk_of_few_bands(method: Method, geometry: Geometry, length: int) -> int:
    # All keys are rotated again for each band.
    return max(1, geometry.window // 4, length // MOST_BANDS)


@dataclass(frozen=True)
class SqueezedPositions(PositionMap):
    """Map that gives tokens the positions of its base class, or more if they are late.

    Attributes:
        behind: index of a late token minus its position.
    """

    behind: int = 0

    def __call__(self, index: Tensor) -> Tensor:
        return super().__call__(index).maximum((index - self.behind).double())

    def __str__(self) -> str:
        return f"max({super().__str__()}, x - {self.behind})"


@dataclass(frozen=True, kw_only=True)
class GALI(IndexMethod):
    """Method whose positions follow the length that has been read.

    Attributes:
        window: ``W``, positions in use.
        local_window: ``Lw``, tokens before a band's end that keep exact distances at least.
        chunk: ``s``, tokens of a band; a fraction stands for that share of the length so far.
        interpolate: whether logits are interpolated between whole positions, as in the paper; the
            release in bfloat16 does not.
    """

    name: ClassVar[str] = "gali"
    window: int | None = setting(derive=_whole_window, rule="the window")
    local_window: int | None = setting(
        derive=_sixteenth_of_the_window,
        rule="a sixteenth of the window; the authors search 128 to 1024 of 4096 and 8192",
    )
    chunk: int | float | None = setting(
        derive=_chunk_of_few_bands,
        rule=(
            "a quarter of the window, or a sixteenth of the prompt where that is more; the authors "
            "search 1000 to 3000 of 4096 and 8192, for prompts of up to 32k"
        ),
    )
    interpolate: bool = True

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        window, local = self._windows(geometry)
        plan, begin = IDENTITY_PLAN, window
        while begin < length:
            stop = min(length, begin + self._band_tokens(begin))
            plan = plan.then(begin, self._band_plan(window, local, stop))
            begin = stop
        return plan

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        method = self.resolved(geometry, length)
        window, local = method._windows(geometry)
        if stop <= window:
            return IDENTITY_PLAN
        # The positions of the band that ends here, relative to its one query: maps that stay as the
        # answer grows, so that keys need a new rotation only where they leave the exact part.
        group, begin = _compression(window, local, stop)
        _, key = method._squeeze(PositionMap(scale=Fraction(1, group)))
        exact = Region(0, window - begin, name="exact")
        query = constant(window - 1)
        squeezed = Region(window - begin, None, query=query, key=key, name="squeezed")
        return PositionPlan((exact, squeezed))

    def _windows(self, geometry: Geometry) -> tuple[int, int]:
        """Return ``W`` and ``Lw``.

        Raises:
            BadSetting: for a local window that leaves no position for older tokens.
        """
        window, local = self.window, self.local_window
        assert window is not None and local is not None
        require_positive(self.name, window=window)
        require_below_window(self.name, geometry.window, local_window=local)
        if not 1 <= local < window:
            raise BadSetting(
                f"{self.name}: local_window={local} must be 1 at least and below window={window}"
            )
        return window, local

    def _band_tokens(self, begin: int) -> int:
        """Return the tokens of the band of queries from ``begin`` on."""
        assert self.chunk is not None
        require_positive(self.name, chunk=self.chunk)
        return max(1, int(self.chunk * begin if isinstance(self.chunk, float) else self.chunk))

    def _squeeze(self, positions: PositionMap) -> tuple[PositionMap, PositionMap]:
        """Return the maps of queries and of keys, from that of positions that are fractions."""
        group = positions.scale.denominator
        whole = replace(positions, shift=group - 1, floor=True)
        return whole, replace(positions, interpolated=True) if self.interpolate else whole

    def _band_plan(self, window: int, local: int, stop: int) -> PositionPlan:
        """Return the plan of the band of queries that ends at ``stop``."""
        group, _ = _compression(window, local, stop)
        # A band may be longer than its exact part, so that which keys are exact depends on the key
        # and not on the distance: one map for all.
        positions = SqueezedPositions(scale=Fraction(1, group), behind=stop - window)
        query, key = self._squeeze(positions)
        return PositionPlan((Region(0, None, query=query, key=key, name="squeezed"),))


def _compression(window: int, local: int, stop: int) -> tuple[int, int]:
    """Return ``g`` and ``k`` of the band that ends at ``stop``."""
    group = -(-(stop - local) // (window - local))
    return group, -(-(stop - window) // (group - 1))
