"""Relative positions of queries and keys: position maps, regions and plans.

A plan is a tuple of regions. A region owns the causal pairs (query ``i``, key ``j <= i``) whose
block distance ``i // block - j // block`` lies in ``[near, far)``, and gives them the relative
position ``query(i) - key(j)``. The regions of a plan cover every causal pair,
each once unless the plan is ``overlapping``. A ``sparse`` plan leaves pairs out, which then do not
attend at all. A plan may have other regions for earlier queries (``PositionPlan.earlier``), and a
map other positions for each band of rotated pairs (``PairMap``).

The keys that one query owns in one region are always a contiguous run, its *span*. Every reader of
a plan (dense oracle, blockwise attention, pictures) is therefore a short loop over regions.
"""

# Names and settings of methods are checked without torch, which takes seconds to import: functions
# that make tensors import it themselves.
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from torch import Tensor

Number = int | float | Fraction


@dataclass(frozen=True)
class PositionMap:
    """Map from token index ``x`` to ``min(cap, offset + scale * ((x + shift) mod modulo))``.

    Positions are real numbers: fractions and negative values are legal.

    Attributes:
        scale: positions per token; an exact fraction, so that ``floor`` is exact at any length.
        offset: position added at the end.
        shift: tokens added to the index first.
        modulo: tokens of a chunk, for a position that starts again in each; None for no chunks.
        floor: whether the product with ``scale`` is rounded down.
        cap: largest position; None for no limit.
        interpolated: whether a key between two whole positions is rotated by cos and sin that are
            interpolated linearly between theirs, instead of by the angle in between.
    """

    scale: Fraction = Fraction(1)
    offset: Number = 0
    shift: int = 0
    modulo: int | None = None
    floor: bool = False
    cap: Number | None = None
    interpolated: bool = False

    def __call__(self, index: Tensor) -> Tensor:
        """Return the positions (float64) of token indices (int64, any shape)."""
        shifted = index + self.shift
        if self.modulo is not None:
            shifted = shifted.remainder(self.modulo)
        steps = shifted * self.scale.numerator
        if self.floor:
            # Integer division is exact at any length; a quotient in float64 is not.
            product = steps.div(self.scale.denominator, rounding_mode="floor").double()
        else:
            product = steps.double() / self.scale.denominator
        position = product + float(self.offset)
        return position if self.cap is None else position.clamp(max=float(self.cap))

    def __str__(self) -> str:
        if self.scale == 0:
            return _number(self.offset)
        formula = "x" if self.shift == 0 else f"(x {_signed(self.shift)})"
        if self.modulo is not None:
            formula = f"({formula} mod {self.modulo})"
        if self.scale != 1:
            formula = f"{formula} · {_number(self.scale)}"
        if self.floor:
            formula = f"floor({formula})"
        if self.offset:
            formula = f"{formula} {_signed(self.offset)}"
        return formula if self.cap is None else f"min({_number(self.cap)}, {formula})"

    def lowest(self, first: Tensor, last: Tensor) -> Tensor:
        """Return the smallest position among indices ``first..last``, both included."""
        if self.modulo is None:
            return self(first)
        # Positions grow within a chunk, so the lowest is at the start of the run, or where the run
        # enters a new chunk.
        next_chunk = first + (-(first + self.shift)).remainder(self.modulo)
        return self(next_chunk.where(next_chunk <= last, first))

    def per_pair(self, index: Tensor) -> Tensor:
        """Return the positions by which token indices ``[L]`` are rotated.

        Returns:
            ``[L]`` float64, or ``[L, P]`` where rotated pairs have positions of their own.
        """
        return self(index)

    def of_pair(self, pair: int) -> PositionMap:
        """Return the map of one rotated pair."""
        return self


def _number(value: Number) -> str:
    """Write a fraction as it is where that is short, otherwise as a decimal."""
    text = str(value)
    return text if len(text) <= 7 else f"{float(value):.6g}"


def _signed(value: Number) -> str:
    return f"{'-' if value < 0 else '+'} {_number(value if value >= 0 else -value)}"


@dataclass(frozen=True)
class PairMap(PositionMap):
    """Map with positions of their own for bands of rotated pairs.

    Where one position stands for all pairs, as in pictures, it is that of the last band: its pairs
    rotate slowest as a rule.

    Attributes:
        bands: number of pairs and map of each band, in the order of the pairs.
    """

    bands: tuple[tuple[int, PositionMap], ...] = ()

    @classmethod
    def of(cls, bands: Iterable[tuple[int, PositionMap]]) -> PositionMap:
        """Return the map of bands; neighbors with the same map become one band."""
        joined: list[tuple[int, PositionMap]] = []
        for pairs, positions in bands:
            if joined and joined[-1][1] == positions:
                pairs += joined.pop()[0]
            joined.append((pairs, positions))
        return joined[0][1] if len(joined) == 1 else cls(bands=tuple(joined))

    def __call__(self, index: Tensor) -> Tensor:
        return self.bands[-1][1](index)

    def __str__(self) -> str:
        return "; ".join(f"{pairs} pairs: {positions}" for pairs, positions in self.bands)

    def lowest(self, first: Tensor, last: Tensor) -> Tensor:
        return self.bands[-1][1].lowest(first, last)

    def per_pair(self, index: Tensor) -> Tensor:
        import torch

        positions = {each: each(index)[:, None] for _, each in self.bands}
        return torch.cat([positions[each].expand(-1, pairs) for pairs, each in self.bands], dim=1)

    def of_pair(self, pair: int) -> PositionMap:
        return next(
            positions
            for (_, positions), stop in zip(self.bands, self.stops, strict=True)
            if pair < stop
        )

    @property
    def stops(self) -> tuple[int, ...]:
        """Return the pair after the last one of each band."""
        return tuple(accumulate(pairs for pairs, _ in self.bands))


IDENTITY = PositionMap()


def constant(position: Number) -> PositionMap:
    """Return the map that gives every token the same position."""
    return PositionMap(scale=Fraction(0), offset=position)


@dataclass(frozen=True)
class LocalWindow:
    """Limit of a layer that attends to near tokens only.

    Attributes:
        size: tokens that a query sees, itself included.
        chunked: whether a query sees its own chunk of ``size`` tokens instead of the nearest ones.
    """

    size: int
    chunked: bool = False

    def first(self, query: Tensor) -> Tensor:
        """Return the first key (int64) that each query index (int64) sees."""
        if self.chunked:
            return query.div(self.size, rounding_mode="floor") * self.size
        return (query - self.size + 1).clamp(min=0)


@dataclass(frozen=True)
class Region:
    """Causal pairs with a block distance in ``[near, far)``, at position ``query(i) - key(j)``.

    Attributes:
        near: smallest block distance of the region.
        far: block distance at which the region ends; None for no end.
        query: position map of queries.
        key: position map of keys.
        block: tokens of a block; with 1 the block distance is the token distance ``i - j``.
        name: as pictures and tables call the region.
        local: limit of the layer; pairs that the layer does not see are in no region.
        until: token index before which keys must lie; None for all keys.
    """

    near: int
    far: int | None
    query: PositionMap = IDENTITY
    key: PositionMap = IDENTITY
    block: int = 1
    name: str = ""
    local: LocalWindow | None = None
    until: int | None = None

    def span(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first and last key (both included) that each query index owns.

        ``last < first`` where a query owns no key. Indices are int64, of any shape.
        """
        block_index = query.div(self.block, rounding_mode="floor")
        # Causality cuts the query's own block; every earlier block ends before the query.
        last = query.minimum((block_index - self.near + 1) * self.block - 1)
        if self.until is not None:
            last = last.clamp(max=self.until - 1)
        if self.far is None:
            first = query.new_zeros(query.shape)
        else:
            first = ((block_index - self.far + 1) * self.block).clamp(min=0)
        if self.local is not None:
            first = first.maximum(self.local.first(query))
        return first, last

    def owns(self, query: Tensor, key: Tensor) -> Tensor:
        """Return whether pairs are in this region; ``query`` and ``key`` indices broadcast."""
        first, last = self.span(query)
        return (first <= key) & (key <= last)

    def relative(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the relative positions (float64) of pairs, whether the region owns them or not."""
        return self.query(query) - self.key(key)

    def of_pair(self, pair: int) -> Region:
        """Return the region with its maps of one rotated pair."""
        return replace(self, query=self.query.of_pair(pair), key=self.key.of_pair(pair))


@dataclass(frozen=True)
class VisibleTokens:
    """Tokens that the queries of a sparse plan see, besides their own.

    Attributes:
        first: tokens at the beginning of the prompt.
        last: tokens right before a query.
    """

    first: int
    last: int

    def describe(self, length: int) -> str:
        """Return in words how many of ``length`` tokens the last one sees."""
        if self.count >= length:
            return f"all of {length} tokens"
        return f"{self.first} + {self.last} of {length} tokens"

    @property
    def count(self) -> int:
        """Return how many tokens a query sees at most, its own included."""
        return self.first + self.last + 1


@dataclass(frozen=True)
class PositionPlan:
    """Relative position of every causal pair, as regions.

    Attributes:
        regions: disjoint, unless ``overlapping``.
        overlapping: whether a pair may be in two regions, as in some authors' releases; it then
            counts twice in the softmax, once at each position.
        sparse: whether a pair may be in no region; a query does not see such a key.
        earlier: plans of earlier queries, in their order; the regions hold for all later queries.
    """

    regions: tuple[Region, ...]
    overlapping: bool = False
    sparse: bool = False
    earlier: tuple[QueryBand, ...] = ()

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def within(self, local: LocalWindow | None) -> Self:
        """Return the same positions for a layer that sees no more than ``local``.

        None stands for a layer that sees every token.
        """
        regions = tuple(replace(region, local=local) for region in self.regions)
        earlier = tuple(QueryBand(band.stop, band.plan.within(local)) for band in self.earlier)
        return replace(self, regions=regions, earlier=earlier)

    @property
    def begin(self) -> int:
        """Return the first query for which the regions hold."""
        return self.earlier[-1].stop if self.earlier else 0

    def then(self, begin: int, later: PositionPlan) -> PositionPlan:
        """Return this plan for the queries before ``begin``, and another from there on."""
        band = QueryBand(begin, replace(self, earlier=()))
        return replace(later, earlier=(*self.earlier, band))

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int, PositionPlan]]:
        """Yield the queries ``start..stop`` in runs: first, after the last, and their plan."""
        for band in self.earlier:
            if start < min(stop, band.stop):
                yield start, min(stop, band.stop), band.plan
                start = band.stop
        if start < stop:
            yield start, stop, self

    def of_query(self, query: int) -> PositionPlan:
        """Return the plan of one query."""
        _, _, plan = next(self.runs(query, query + 1))
        return plan

    def of_pair(self, pair: int) -> PositionPlan:
        """Return the plan of one rotated pair."""
        regions = tuple(region.of_pair(pair) for region in self.regions)
        earlier = tuple(QueryBand(band.stop, band.plan.of_pair(pair)) for band in self.earlier)
        return replace(self, regions=regions, earlier=earlier)

    @property
    def pair_stops(self) -> tuple[int, ...]:
        """Return the pair after each band of pairs that rotate alike; none where all pairs do."""
        maps = chain.from_iterable((region.query, region.key) for region in self.regions)
        stops = chain.from_iterable(each.stops for each in maps if isinstance(each, PairMap))
        return tuple(sorted(set(stops)))

    @property
    def visible(self) -> VisibleTokens | None:
        """Return the tokens that queries see; None where any of them may see all before it."""
        # Asked in every layer and step, and a plan of every pair may have thousands of regions.
        if not self.sparse:
            return None
        first, reach = 0, 0
        for region in self.regions:
            if region.until is not None:
                first = max(first, region.until)
            elif region.far is None:
                return None
            else:
                reach = max(reach, region.far * region.block)
        return VisibleTokens(first, last=reach - 1)

    def relative(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the relative positions (float64) of pairs of indices, which broadcast.

        A pair that no region owns (a key after its query, or one that it does not see) gets NaN,
        and a pair in two regions the position in the last one.
        """
        import torch

        out = torch.full((query + key).shape, torch.nan, dtype=torch.float64)
        for region in self.regions:
            out = torch.where(region.owns(query, key), region.relative(query, key), out)
        # The earliest last, since every band holds below its stop.
        for band in reversed(self.earlier):
            out = torch.where(query < band.stop, band.plan.relative(query, key), out)
        return out

    def matrix(self, length: int) -> Tensor:
        """Return all relative positions, ``[length, length]`` float64, NaN for unseen pairs."""
        import torch

        index = torch.arange(length)
        return self.relative(index[:, None], index[None, :])

    def largest(self, length: int) -> float:
        """Return the largest relative position in a prompt of ``length`` tokens."""
        import torch

        # Positions only grow along the prompt, except for the phase within a block, so one of the
        # queries of the last block has it. A layer with a local window loses sight of the first
        # tokens, which earlier queries saw at the position that they have without that limit.
        plan = self.of_query(length - 1)
        regions = plan.within(None).regions if plan.sparse else plan.regions
        longest_block = max(region.block for region in regions)
        query = torch.arange(max(0, length - longest_block), length)
        largest = torch.tensor(0.0, dtype=torch.float64)
        for region in regions:
            first, last = region.span(query)
            has_keys = first <= last
            if has_keys.any():
                smallest_key = region.key.lowest(first[has_keys], last[has_keys])
                positions = region.query(query[has_keys]) - smallest_key
                largest = torch.maximum(largest, positions.max())
        return float(largest)

    def coverage_fault(self) -> str | None:
        """Return which causal pairs are not covered as they must be, or None where all are."""
        for band in self.earlier:
            if fault := band.plan.coverage_fault():
                return f"queries before {band.stop}: {fault}"
        # Regions of one plan share a block, so they cover every pair once, at any length, if their
        # distances tile ``[0, end)``. Regions that may overlap must cover pairs at least once.
        # Those of a sparse plan cover them at most once, and a query's own token in any case.
        if len({region.block for region in self.regions}) != 1:
            return "regions of different blocks"
        regions = sorted(self.regions, key=lambda region: region.near)
        for region in regions:
            if region.until is not None and (region.near == 0 or not self.sparse):
                return f"keys from {region.until} on: region {region.name!r} ends before them"
        covered: int | None = 0  # distances below it are covered; None once there is no end
        for region in regions:
            overlaps = self.overlapping and (covered is None or region.near < covered)
            leaves_out = self.sparse and covered and region.near > covered
            if region.near != covered and not overlaps and not leaves_out:
                return (
                    f"block distances from {covered} on: "
                    f"region {region.name!r} begins at {region.near}"
                )
            if covered is not None:
                covered = None if region.far is None else max(covered, region.far)
        if covered is None or self.sparse:
            return None
        return f"block distances from {covered} on: no region owns them"


@dataclass(frozen=True)
class QueryBand:
    """Queries with a plan of their own.

    Attributes:
        stop: the query after the last one; the first is the stop of the band before.
        plan: their plan.
    """

    stop: int
    plan: PositionPlan


IDENTITY_PLAN = PositionPlan((Region(0, None, name="plain"),))
"""Plan of an unchanged model: relative positions are true distances."""
