"""LaMPE: length-aware multi-grained positional encoding (arXiv 2508.02308, ACL 2026).

A prompt of ``l`` tokens is mapped onto ``m`` positions, where ``m`` follows ``l`` by a scaled
sigmoid (``lampe.mapping_length``), in three grains:

    head    d <= s1            rel = d
    middle  s1 < d < l - s2    rel = s1 + A (d - s1),   A = (m - s1 - s2) / (l - s1 - s2)
    tail    d >= l - s2        rel = m - l + d

| paper | here |
|---|---|
| s1, s2 | head_tokens, tail_tokens |
| m | mapping_length |
| L_max, a, b | the curve: ``Sigmoid.ceiling``, ``slope``, ``intercept`` |

The paper floors the middle's whole expression, which no pair of query and key positions can give;
"continuous" leaves the floor out and is separable, hence the default. What the authors released is
different again, see ``lampe.methods.lampe_release``. The variants are

| variant | middle | answers |
|---|---|---|
| continuous | without the floor | the same plan goes on |
| separable | floors of queries and of keys: integers, at most 1 above the paper's | the same |
| paper | floored as a whole: one region per position, exact and slow | the same |
| reference-fixed | the release's constants, exact floors, no pair twice | the same |
| reference | the release's three regions, some pairs twice | drift, and end after the head |
| reference-nodup | the same with windows one shorter: no pair twice | the same |
| sw-map, sw-map-nodup | the release's two regions, without a tail | mapped again for each token |
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Self

from lampe.attention_factor import STRING_FACTOR, AttentionFactor
from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.mapping_length import PUBLISHED_CURVES, Sigmoid, effective_mapping_length
from lampe.methods.lampe_release import RELEASE_VARIANTS, Release
from lampe.methods.method import OTHERWISE, IndexMethod, require_positive, setting
from lampe.positions import IDENTITY_PLAN, PositionMap, PositionPlan, Region, constant

VARIANTS = ("continuous", "separable", "paper", *RELEASE_VARIANTS)


@dataclass(frozen=True, kw_only=True)
class LaMPE(IndexMethod):
    """Three regions. A prompt no longer than its mapping length keeps true distances.

    Attributes:
        mapping_length: ``m`` in positions; for the release's variants their ``use_length``, the
            mapped index of the last token.
        head_tokens: ``s1`` in tokens.
        tail_tokens: ``s2`` in tokens.
        curve: name of a published curve, see ``PUBLISHED_CURVES``.
        slope: with intercept and ceiling a curve of the model's own, as ``lampe-eval calibrate``
            fits it. It goes before any published one and gives ``mapping_length`` itself.
        intercept: see ``slope``.
        ceiling: see ``slope``.
        variant: see above.
        attention_factor_from: as in ``IndexMethod``. The released factor of a variant that is not
            the release's acts beyond the window only: the paper has none, and within the window it
            costs quality (docs/decisions.md).
    """

    name: ClassVar[str] = "lampe"
    calibrated_settings: ClassVar[tuple[str, ...]] = ("mapping_length", "attention_factor")
    mapping_length: int | None = setting(
        derive=lambda method, geometry, length: method._mapping_from_curve(geometry, length),
        rule={
            "slope": "the curve that calibrate fitted to the model",
            "curve": "the curve published for the model",
            OTHERWISE: "Llama 3's published curve in units of the window",
        },
    )
    head_tokens: int | None = setting(
        derive=lambda method, geometry, length: geometry.window // 8,
        rule="an eighth of the window; the paper has a sixteenth to an eighth",
    )
    tail_tokens: int | None = setting(
        derive=lambda method, geometry, length: max(8, geometry.window // 40),
        rule="a fortieth of the window, at least 8; the release has 200 of 8192",
    )
    curve: str | None = None
    slope: float | int | None = None
    intercept: float | int | None = None
    ceiling: float | int | None = None
    variant: str = "continuous"
    attention_factor_from: str | None = setting(
        derive=lambda method, geometry, length: method._factor_beginning(),
        rule="the window for the released factor; the start for variants of the release and for "
        "a factor that is given",
    )

    @property
    def has_release_prompts(self) -> bool:
        return True

    def resolved(self, geometry: Geometry, length: int) -> Self:
        if self.variant not in VARIANTS:
            raise UnknownName("variant of lampe", self.variant, VARIANTS)
        return super().resolved(geometry, length)

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        # The release has rules of its own, to which nothing below applies.
        if self.variant in RELEASE_VARIANTS:
            return self._release(length).prompt_plan()
        mapping, head, tail = self.mapping_length, self.head_tokens, self.tail_tokens
        assert mapping is not None and head is not None and tail is not None
        if head < 0 or tail < 0 or mapping <= head + tail:
            raise BadSetting(
                f"lampe: mapping_length={mapping} must exceed "
                f"head_tokens={head} plus tail_tokens={tail}"
            )
        # m = l is the identity; a larger m would stretch positions.
        if length <= mapping:
            return IDENTITY_PLAN
        tail_begin = length - tail
        # An exact fraction: the floors of "separable" and "paper" must be right at any length.
        slope = Fraction(mapping - head - tail, length - head - tail)
        return PositionPlan(
            (
                # Distance s1 itself is exact, as in the paper: the middle begins after it.
                Region(0, head + 1, name="head"),
                *self._middle(head, tail_begin, slope),
                # Unit spacing from here on, so an answer goes on beyond the last position m - 1.
                Region(tail_begin, None, query=PositionMap(offset=mapping - length), name="tail"),
            )
        )

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        if self.variant not in RELEASE_VARIANTS:
            return None
        return self.resolved(geometry, length)._release(length).decode_plan(stop)

    def released_attention_factor(self, geometry: Geometry, length: int) -> AttentionFactor:
        # In the release only, at every length; the paper does not mention it.
        return AttentionFactor(STRING_FACTOR)

    def _factor_beginning(self) -> str:
        as_released = self.variant in RELEASE_VARIANTS or self.attention_factor != "released"
        return "start" if as_released else "window"

    def _release(self, length: int) -> Release:
        mapping, head, tail = self.mapping_length, self.head_tokens, self.tail_tokens
        assert mapping is not None and head is not None and tail is not None
        return Release(length, head, tail, mapping, RELEASE_VARIANTS[self.variant])

    def _mapping_from_curve(self, geometry: Geometry, length: int) -> int:
        """Return the curve's mapping length, above head and tail, below window and prompt.

        Raises:
            BadSetting: where head and tail fill the window, or the curve is incomplete.
            UnknownName: for a curve that was not published.
        """
        fitted = self._fitted_curve(geometry)
        head = self.value_of("head_tokens", geometry, length)
        tail = self.value_of("tail_tokens", geometry, length)
        least = head + tail + 1
        if least >= geometry.window:
            raise BadSetting(
                f"lampe: head_tokens={head} plus tail_tokens={tail} leave no room "
                f"below the window of {geometry.window}"
            )
        if length <= least:
            return int(least)
        curve = fitted or self._published_curve(geometry)
        last = curve(length)
        if self.variant in RELEASE_VARIANTS:
            # The release takes ``use_length`` as it is, even above the prompt's own length.
            return last
        mapping = last
        if fitted is None:
            # Published curves give the last token's mapped index, fitted ones m itself. A curve
            # that exceeds the prompt would stretch positions; such a prompt stays as it is.
            mapping = length
            if last < length - 1:
                mapping = effective_mapping_length(
                    last, length=length, head_tokens=head, tail_tokens=tail
                )
        # Below the window: m - 1 is the largest position of the prompt, and the answer adds to it.
        return int(max(least, min(mapping, length, geometry.window - 1)))

    def _fitted_curve(self, geometry: Geometry) -> Sigmoid | None:
        """Return the curve fitted to the model, or None where a published one is meant.

        Raises:
            BadSetting: for a part of a curve, or constants that are no curve.
        """
        given = {"slope": self.slope, "intercept": self.intercept, "ceiling": self.ceiling}
        constants = {name: float(value) for name, value in given.items() if value is not None}
        if not constants:
            return None
        if len(constants) < len(given):
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

    def _published_curve(self, geometry: Geometry) -> Sigmoid:
        """Return the curve by name, or Llama 3's for a model with this window.

        Raises:
            UnknownName: for a curve that was not published.
        """
        if self.curve is None:
            return PUBLISHED_CURVES["llama3"].in_units_of(geometry.window)
        if self.curve not in PUBLISHED_CURVES:
            raise UnknownName("curve of lampe", self.curve, PUBLISHED_CURVES)
        return PUBLISHED_CURVES[self.curve]

    def _middle(self, head: int, end: int, slope: Fraction) -> tuple[Region, ...]:
        """Return the region or regions of distances ``head < d < end``."""
        if self.variant == "paper":
            return tuple(_floored_middle(head, end, slope))
        if self.variant == "separable":
            # A difference of floors equals the paper's floor of the difference, or is 1 above it.
            query = PositionMap(scale=slope, shift=-head, offset=head, floor=True)
            key = PositionMap(scale=slope, floor=True)
        else:
            # s1 + A (i - s1), so that the middle goes on from the head at distance s1.
            query = PositionMap(scale=slope, offset=head - slope * head)
            key = PositionMap(scale=slope)
        return (Region(head + 1, end, query=query, key=key, name="middle"),)


def _floored_middle(head: int, end: int, slope: Fraction) -> list[Region]:
    """Return the paper's middle: distances of one floor form a region of one constant position."""
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
