"""Which relative position query ``i`` sees at key ``j``: position maps, regions and plans.

A plan is a tuple of regions. A region owns the causal pairs whose block distance ``i // block - j // block`` lies in
``[near, far)`` and gives them the relative position ``query(i) - key(j)``. Regions of a plan are disjoint and cover
every causal pair once. Because the keys one query owns in one region are always a contiguous run (its *span*), every
reader of a plan (dense oracle, blockwise attention, pictures) is a short loop over regions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

import torch
from torch import Tensor

Number = int | float | Fraction


@dataclass(frozen=True)
class PositionMap:
    """Token index ``x`` to rotary position ``min(cap, offset + scale * ((x + shift) mod modulo))``.

    The scale is an exact fraction, so that ``floor`` (applied to the product) is exact at any length. Positions are
    real numbers: fractions and negative values are legal.
    """

    scale: Fraction = Fraction(1)
    offset: Number = 0
    shift: int = 0
    modulo: int | None = None
    floor: bool = False
    cap: Number | None = None

    def __call__(self, index: Tensor) -> Tensor:
        """Positions (float64) of token indices (int64, any shape)."""
        steps = (index + self.shift) * self.scale.numerator
        if self.modulo is not None:
            steps = (index + self.shift).remainder(self.modulo) * self.scale.numerator
        if self.floor:
            product = steps.div(self.scale.denominator, rounding_mode="floor").double()
        else:
            product = steps.double() / self.scale.denominator
        position = product + float(self.offset)
        return position if self.cap is None else position.clamp(max=float(self.cap))

    def __str__(self) -> str:
        inner = "x" if self.shift == 0 else f"(x {_signed(self.shift)})"
        if self.modulo is not None:
            inner = f"({inner} mod {self.modulo})"
        scaled = inner if self.scale == 1 else f"{inner} · {_number(self.scale)}"
        if self.scale == 0:
            return _number(self.offset)
        product = f"floor({scaled})" if self.floor else scaled
        total = f"{product} {_signed(self.offset)}" if self.offset else product
        return total if self.cap is None else f"min({_number(self.cap)}, {total})"

    def lowest(self, first: Tensor, last: Tensor) -> Tensor:
        """Smallest position among indices ``first..last`` (inclusive): at the start of the run, or where it wraps."""
        if self.modulo is None:
            return self(first)
        wrap = first + (-(first + self.shift)).remainder(self.modulo)
        return self(torch.where(wrap <= last, wrap, first))


def _number(value: Number) -> str:
    """A fraction as it is where short, otherwise as a decimal."""
    text = str(value)
    return text if len(text) <= 7 else f"{float(value):.6g}"


def _signed(value: Number) -> str:
    return f"{'-' if value < 0 else '+'} {_number(value if value >= 0 else -value)}"


IDENTITY = PositionMap()


def constant(position: Number) -> PositionMap:
    """The map that gives every token the same position."""
    return PositionMap(scale=Fraction(0), offset=position)


@dataclass(frozen=True)
class LocalWindow:
    """What a layer sees at all: the nearest ``size`` tokens, or where it is ``chunked`` those of the query's chunk."""

    size: int
    chunked: bool = False

    def first(self, query: Tensor) -> Tensor:
        """First key that each query index sees."""
        if self.chunked:
            return query.div(self.size, rounding_mode="floor") * self.size
        return (query - self.size + 1).clamp(min=0)


@dataclass(frozen=True)
class Region:
    """The causal pairs with block distance in ``[near, far)``, at relative position ``query(i) - key(j)``.

    ``far=None`` means without end. With ``block=1`` the block distance is the token distance ``i - j``. Pairs that a
    ``local`` layer does not see are in no region.
    """

    near: int
    far: int | None
    query: PositionMap = IDENTITY
    key: PositionMap = IDENTITY
    block: int = 1
    name: str = ""
    local: LocalWindow | None = None

    def span(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """First and last key (inclusive) that each query index owns here; ``last < first`` where it owns none."""
        chunk = query.div(self.block, rounding_mode="floor")
        last = torch.minimum(query, (chunk - self.near + 1) * self.block - 1)
        first = (
            torch.zeros_like(query)
            if self.far is None
            else ((chunk - self.far + 1) * self.block).clamp(min=0)
        )
        return (
            first if self.local is None else torch.maximum(first, self.local.first(query))
        ), last

    def owns(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether the pair is in this region; ``query`` and ``key`` broadcast against each other."""
        first, last = self.span(query)
        return (first <= key) & (key <= last)

    def relative(self, query: Tensor, key: Tensor) -> Tensor:
        """Relative positions (float64) of pairs, whether owned or not."""
        return self.query(query) - self.key(key)


@dataclass(frozen=True)
class PositionPlan:
    """The relative position of every causal pair, as regions.

    Attributes:
        overlapping: whether a pair may be in two regions, as in some authors' releases; it then counts twice in the
            softmax, once at each position.
    """

    regions: tuple[Region, ...]
    overlapping: bool = False

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def within(self, local: LocalWindow | None) -> Self:
        """The same positions for a layer that sees no more than ``local``; None is a layer that sees everything."""
        return replace(self, regions=tuple(replace(region, local=local) for region in self.regions))

    def relative(self, query: Tensor, key: Tensor) -> Tensor:
        """Relative positions (float64) of pairs; NaN for a pair that no region owns (a key after its query).

        Of a pair in two regions it is the position in the last.
        """
        out = torch.full((query + key).shape, torch.nan, dtype=torch.float64)
        for region in self.regions:
            out = torch.where(region.owns(query, key), region.relative(query, key), out)
        return out

    def matrix(self, length: int) -> Tensor:
        """The full relative position matrix, ``[length, length]`` float64, NaN above the diagonal."""
        index = torch.arange(length)
        return self.relative(index[:, None], index[None, :])

    def largest(self, length: int) -> float:
        """Largest relative position in a prompt of ``length`` tokens.

        Positions only grow along the prompt, except for the phase within a block, so the last block's queries hold it.
        """
        longest = max(region.block for region in self.regions)
        query = torch.arange(max(0, length - longest), length)
        best = torch.tensor(0.0, dtype=torch.float64)
        for region in self.regions:
            first, last = region.span(query)
            owned = first <= last
            if owned.any():
                at, first, last = query[owned], first[owned], last[owned]
                best = torch.maximum(
                    best, (region.query(at) - region.key.lowest(first, last)).max()
                )
        return float(best)

    def coverage_fault(self) -> str | None:
        """Says which causal pairs are not covered exactly once, or None where all are, at any length.

        Regions of one plan share a block, so they cover every pair once if their distances tile ``[0, end)``. Where
        regions may overlap, pairs must be covered at least once.
        """
        if len({region.block for region in self.regions}) != 1:
            return "regions of different blocks"
        reached: int | None = 0
        for region in sorted(self.regions, key=lambda region: region.near):
            overlaps = self.overlapping and (reached is None or region.near < reached)
            if region.near != reached and not overlaps:
                return f"block distances from {reached} on: region {region.name!r} begins at {region.near}"
            if reached is not None:
                reached = None if region.far is None else max(reached, region.far)
        return (
            None if reached is None else f"block distances from {reached} on: no region owns them"
        )


IDENTITY_PLAN = PositionPlan((Region(0, None, name="plain"),))
"""Every pair at its true distance."""
