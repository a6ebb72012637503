"""STRING: far positions shifted down over well-trained ones, for lengths within the window (arXiv 2410.18745).

With S the shift and W the local window:

    rel = d            for d < S
    rel = d - S + W    otherwise
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

from lampe.attention_factor import STRING_FACTOR, AttentionFactor
from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import IndexMethod, require_positive, value_or
from lampe.positions import PositionMap, PositionPlan, Region


@dataclass(frozen=True, kw_only=True)
class String(IndexMethod):
    """Not an extrapolation method: the largest position is about two thirds of the prompt, however long that is.

    Args:
        shift: ``S`` in tokens; 0.33 of the prompt by default.
        local: ``W`` in tokens; 128 by default, or an eighth of a window below 1024.
        variant: "exact" has every pair once; under "reference" the prompt's pairs at distance S count twice, at S and
            at W, as released.
    """

    name: ClassVar[str] = "string"
    shift: int | None = None
    local: int | None = None
    variant: str = "exact"

    def resolved(self, geometry: Geometry, length: int) -> Self:
        shift = value_or(self.shift, max(1, length * 33 // 100))
        local = value_or(self.local, min(128, geometry.window // 8))
        return dataclasses.replace(
            self, shift=shift, local=min(local, shift) if self.shift is None else local
        )

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        assert self.shift is not None and self.local is not None
        require_positive(self.name, shift=self.shift)
        if not 0 <= self.local <= self.shift:
            raise BadSetting(
                f"string: local={self.local} must lie between 0 and shift={self.shift}"
            )
        twice = self._twice(length)
        moved = PositionMap(offset=self.local - self.shift)
        near, shifted = (
            Region(0, self.shift + twice, name="near"),
            Region(self.shift, None, query=moved, name="shifted"),
        )
        return PositionPlan((near, shifted), overlapping=twice)

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        """As released, an answer has every pair once; it needs more tokens than the shift."""
        method = self.resolved(geometry, length)
        if not method._twice(length):
            return None
        assert method.shift is not None
        if stop <= method.shift:
            raise BadSetting(
                f"string: the release cannot answer before shift={method.shift} tokens, here are {stop}"
            )
        return dataclasses.replace(method, variant="exact").plan(geometry, length)

    def _twice(self, length: int) -> bool:
        """Whether pairs count twice; refuses prompts on which the release breaks, or attends to nothing."""
        assert self.shift is not None and self.local is not None
        match self.variant:
            case "exact":
                return False
            case "reference":
                if length < self.shift - self.local or length == self.shift:
                    raise BadSetting(
                        f"string: the release cannot read {length} tokens with shift={self.shift}"
                    )
                return length > self.shift
        raise UnknownName("variant of string", self.variant, ("exact", "reference"))

    def released_attention_factor(self, geometry: Geometry, length: int) -> AttentionFactor:
        return AttentionFactor(STRING_FACTOR)
