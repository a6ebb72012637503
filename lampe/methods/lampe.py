"""LaMPE: length-aware multi-grained positional encoding (arXiv 2508.02308, ACL 2026).

A prompt of ``l`` tokens is mapped onto ``m`` positions, ``m`` following ``l`` by a scaled sigmoid (``lampe.mapping_length``),
in three grains:

    head    d <= s1            rel = d
    middle  s1 < d < l - s2    rel = s1 + A (d - s1),   A = (m - s1 - s2) / (l - s1 - s2)
    tail    d >= l - s2        rel = m - l + d

| paper | here |
|---|---|
| s1, s2 | head, tail |
| m | mapping_length |
| L_max, a, b | the curve: ``Sigmoid.ceiling``, ``slope``, ``intercept`` |

The paper floors the middle's whole expression, which no pair of query and key positions can give; "continuous" leaves
the floor out and is separable, hence the default. What the authors released is something else again, see
``lampe.methods.lampe_release``: the variants are

| variant | middle | answers |
|---|---|---|
| continuous | without the floor | the same plan goes on |
| separable | floors of queries and of keys: integers, at most 1 above the paper's | the same |
| paper | floored as a whole: one region per position, exact and slow | the same |
| reference-fixed | the release's constants, exact floors, no pair twice | the same |
| reference | the release's three regions, some pairs twice | positions drift; at most ``head`` tokens |
| reference-nodup | the same with windows one shorter: no pair twice | the same |
| sw-map, sw-map-nodup | the release's two regions, without a tail | mapped anew for each token |
"""

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Self

from lampe.attention_factor import STRING_FACTOR, AttentionFactor
from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.mapping_length import PUBLISHED_CURVES, Sigmoid, effective_mapping_length
from lampe.methods.lampe_release import Release
from lampe.methods.method import IndexMethod, require_positive, value_or
from lampe.positions import IDENTITY_PLAN, PositionMap, PositionPlan, Region, constant

RELEASED = ("reference", "reference-nodup", "reference-fixed", "sw-map", "sw-map-nodup")
VARIANTS = ("continuous", "separable", "paper", *RELEASED)


@dataclass(frozen=True, kw_only=True)
class LaMPE(IndexMethod):
    """Three regions. A prompt no longer than its mapping length keeps true distances.

    Args:
        mapping_length: ``m`` in positions; of the release's variants its ``use_length``, the mapped index of the last
            token. From the curve by default.
        head_tokens: ``s1`` in tokens; an eighth of the window by default.
        tail_tokens: ``s2`` in tokens; a fortieth of the window by default, at least 8.
        curve: a published one by name; by default Llama-3's in units of the model's own window.
        slope: with intercept and ceiling a curve of the model's own, as ``lampe-eval calibrate`` fits it, before any
            published one; it gives ``mapping_length`` itself.
        intercept: see there.
        ceiling: see there.
        variant: see above.
    """

    name: ClassVar[str] = "lampe"
    calibrated_settings: ClassVar[tuple[str, ...]] = ("mapping_length", "attention_factor")
    mapping_length: int | None = None
    head_tokens: int | None = None
    tail_tokens: int | None = None
    curve: str | None = None
    slope: float | int | None = None
    intercept: float | int | None = None
    ceiling: float | int | None = None
    variant: str = "continuous"

    @property
    def has_release_prompts(self) -> bool:
        return True

    def resolved(self, geometry: Geometry, length: int) -> Self:
        if self.variant not in VARIANTS:
            raise UnknownName("variant of lampe", self.variant, VARIANTS)
        head = value_or(self.head_tokens, geometry.window // 8)
        tail = value_or(self.tail_tokens, max(8, geometry.window // 40))
        mapping = self.mapping_length
        if mapping is None:
            mapping = self._from_curve(geometry, length, head, tail)
        return dataclasses.replace(self, mapping_length=mapping, head_tokens=head, tail_tokens=tail)

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        mapping, head, tail = self.mapping_length, self.head_tokens, self.tail_tokens
        assert mapping is not None and head is not None and tail is not None
        if self.variant in RELEASED:
            release = self._release(length)
            return (
                release.two_regions()
                if self.variant.startswith("sw-map")
                else release.three_regions()
            )
        if head < 0 or tail < 0 or mapping <= head + tail:
            raise BadSetting(
                f"lampe: mapping_length={mapping} must exceed head_tokens={head} plus tail_tokens={tail}"
            )
        if length <= mapping:
            return IDENTITY_PLAN
        slope = Fraction(mapping - head - tail, length - head - tail)
        return PositionPlan(
            (
                Region(0, head + 1, name="head"),
                *self._middle(head, length - tail, slope),
                Region(
                    length - tail, None, query=PositionMap(offset=mapping - length), name="tail"
                ),
            )
        )

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        if self.variant not in RELEASED or self.variant == "reference-fixed":
            return None
        release = self.resolved(geometry, length)._release(length)
        return (
            release.two_regions_at(stop)
            if self.variant.startswith("sw-map")
            else release.three_regions_at(stop)
        )

    def released_attention_factor(self, geometry: Geometry, length: int) -> AttentionFactor:
        return AttentionFactor(STRING_FACTOR)

    def _release(self, length: int) -> Release:
        assert (
            self.mapping_length is not None
            and self.head_tokens is not None
            and self.tail_tokens is not None
        )
        once, exact = self.variant.endswith("-nodup"), self.variant == "reference-fixed"
        return Release(length, self.head_tokens, self.tail_tokens, self.mapping_length, once, exact)

    def _from_curve(self, geometry: Geometry, length: int, head: int, tail: int) -> int:
        """The curve's mapping length, kept above head and tail and below the window and the prompt."""
        own = self._own_curve(geometry)
        if head + tail + 1 >= geometry.window:
            raise BadSetting(
                f"lampe: head_tokens={head} plus tail_tokens={tail} leave no room below the window of {geometry.window}"
            )
        if length <= head + tail + 1:
            return head + tail + 1
        last = (own or self._published(geometry))(length)
        if self.variant in RELEASED:
            return last
        mapping = last
        if own is None:
            mapping = (
                length
                if last >= length - 1
                else effective_mapping_length(
                    last, length=length, head_tokens=head, tail_tokens=tail
                )
            )
        return max(head + tail + 1, min(mapping, length, geometry.window - 1))

    def _own_curve(self, geometry: Geometry) -> Sigmoid | None:
        """The curve of the model's own; None where a published one is meant."""
        own = {"slope": self.slope, "intercept": self.intercept, "ceiling": self.ceiling}
        constants = {name: float(value) for name, value in own.items() if value is not None}
        if not constants:
            return None
        if len(constants) < len(own):
            raise BadSetting(
                "lampe: slope, intercept and ceiling make a curve together: give all three"
            )
        require_positive(self.name, ceiling=constants["ceiling"])
        if not 0 <= constants["slope"] < math.inf:
            raise BadSetting(f"lampe: slope={self.slope} must be finite and at least 0")
        if not math.isfinite(constants["intercept"]):
            raise BadSetting(f"lampe: intercept={self.intercept} must be finite")
        return Sigmoid(
            constants["slope"], constants["intercept"], constants["ceiling"], geometry.window
        )

    def _published(self, geometry: Geometry) -> Sigmoid:
        """The curve by name, Llama-3's by default."""
        if self.curve is None:
            return PUBLISHED_CURVES["llama3"].in_units_of(geometry.window)
        if self.curve not in PUBLISHED_CURVES:
            raise UnknownName("curve of lampe", self.curve, PUBLISHED_CURVES)
        return PUBLISHED_CURVES[self.curve]

    def _middle(self, head: int, end: int, slope: Fraction) -> tuple[Region, ...]:
        """The region or regions of distances ``head < d < end``."""
        near = head + 1
        match self.variant:
            case "continuous":
                query, key = (
                    PositionMap(scale=slope, offset=head - slope * head),
                    PositionMap(scale=slope),
                )
            case "separable":
                query = PositionMap(scale=slope, shift=-head, offset=head, floor=True)
                key = PositionMap(scale=slope, floor=True)
            case "paper":
                return tuple(_steps(head, end, slope))
            case _:
                raise UnknownName("variant of lampe", self.variant, VARIANTS)
        return (Region(near, end, query=query, key=key, name="middle"),)


def _steps(head: int, end: int, slope: Fraction) -> list[Region]:
    """The floored middle: distances with one and the same floor form a region of one constant position."""
    regions, near, step = [], head + 1, 0
    while near < end:
        far = min(end, head + math.ceil((step + 1) / slope))
        if far > near:
            regions.append(
                Region(near, far, query=constant(head + step), key=constant(0), name="middle")
            )
            near = far
        step += 1
    return regions
