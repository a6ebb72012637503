"""NTK-aware scaling: a larger rope base, so that slow pairs interpolate and fast pairs stay (reddit u/bloc97, 2023)."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

from lampe.errors import UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import Method, extension_factor, require_positive, value_or
from lampe.rope import PerTokenRope, Rope, ntk_theta


@dataclass(frozen=True, kw_only=True)
class NTK(Method):
    """Base times ``factor ** (D / (D - 2))``; the factor is prompt length over window by default."""

    name: ClassVar[str] = "ntk"
    factor: float | int | None = None

    def resolved(self, geometry: Geometry, length: int) -> Self:
        return dataclasses.replace(
            self, factor=value_or(self.factor, extension_factor(geometry, length))
        )

    def rope(self, geometry: Geometry, length: int) -> Rope:
        assert self.factor is not None
        require_positive(self.name, factor=self.factor)
        if self.factor == 1:
            return geometry.rope(length)
        return geometry.retuned(length, ntk_theta(geometry.theta, self.factor, geometry.dim))


@dataclass(frozen=True, kw_only=True)
class DynamicNTK(Method):
    """transformers' "dynamic" type: the base grows with the prompt by ``factor * length / window - (factor - 1)``.

    Factor 1 is the YaRN paper's definition; 2 is what configurations in the field use most.

    Args:
        factor: see above.
        cache: "unrotated" freezes the base for the answer, so that old and new keys agree. "rotated" is what
            transformers does: a generated token comes with the base of the length so far, and earlier keys keep theirs.
    """

    name: ClassVar[str] = "dynamic-ntk"
    factor: float | int = 2.0
    cache: str = "unrotated"

    def rope(self, geometry: Geometry, length: int) -> Rope:
        require_positive(self.name, factor=self.factor)
        factor = float(self.factor)
        fits = length <= geometry.window
        frozen = (
            geometry.rope(length)
            if fits
            else geometry.rope(length, rope_type="dynamic", factor=factor)
        )
        match self.cache:
            case "unrotated":
                return frozen
            case "rotated":
                return PerTokenRope(
                    frozen.inv_freq,
                    layout=frozen.layout,
                    begin=frozen.begin,
                    prompt=length,
                    window=geometry.window,
                    theta=geometry.theta,
                    factor=factor,
                )
        raise UnknownName("cache of dynamic-ntk", self.cache, ("unrotated", "rotated"))
