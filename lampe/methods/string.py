"""STRING: far positions shifted down over well-trained ones, within the window (arXiv 2410.18745).

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
from lampe.methods.method import IndexMethod, require_positive, setting
from lampe.positions import PositionMap, PositionPlan, Region


@dataclass(frozen=True, kw_only=True)
class String(IndexMethod):
    """Method of two regions: near tokens, and all others shifted towards them.

    STRING does not extrapolate: the largest position is about two thirds of the prompt, however
    long that is.

    Attributes:
        shift: ``S`` in tokens.
        local: ``W`` in tokens.
        variant: "exact" has every pair once. Under "reference" the prompt's pairs at distance S
            count twice, at S and at W, as released.
    """

    name: ClassVar[str] = "string"
    shift: int | None = setting(
        derive=lambda method, geometry, length: max(1, length * 33 // 100),
        rule="0.33 of the prompt, as in the paper",
    )
    local: int | None = setting(
        derive=lambda method, geometry, length: min(128, geometry.window // 8),
        rule="128 tokens, as in the paper, but at most an eighth of the window",
    )
    variant: str = "exact"

    def resolved(self, geometry: Geometry, length: int) -> Self:
        method = super().resolved(geometry, length)
        assert method.shift is not None and method.local is not None
        if self.shift is None and method.local > method.shift:
            # The derived shift of a short prompt may be below W; only a shift that the user set is
            # refused for that.
            return dataclasses.replace(method, local=method.shift)
        return method

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        assert self.shift is not None and self.local is not None
        require_positive(self.name, shift=self.shift)
        if not 0 <= self.local <= self.shift:
            raise BadSetting(
                f"string: local={self.local} must lie between 0 and shift={self.shift}"
            )
        counts_twice = self._counts_pairs_twice(length)
        # The release's near window includes distance S, which the shifted window begins with.
        near = Region(0, self.shift + int(counts_twice), name="near")
        # Only queries are shifted, so one rotation of the keys serves both regions.
        query = PositionMap(offset=self.local - self.shift)
        shifted = Region(self.shift, None, query=query, name="shifted")
        return PositionPlan((near, shifted), overlapping=counts_twice)

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        """Return the plan of a generated token; as released, it has every pair once.

        Raises:
            BadSetting: for an answer that begins before ``shift`` tokens, where the release breaks.
        """
        method = self.resolved(geometry, length)
        if not method._counts_pairs_twice(length):
            return None
        assert method.shift is not None
        # The release slices the cache from a negative start there.
        if stop <= method.shift:
            raise BadSetting(
                f"string: the release cannot answer before shift={method.shift} tokens, "
                f"here are {stop}"
            )
        return dataclasses.replace(method, variant="exact").plan(geometry, length)

    def _counts_pairs_twice(self, length: int) -> bool:
        """Return whether pairs at distance S count twice in a prompt.

        Raises:
            BadSetting: for prompts on which the release breaks, or attends to nothing.
            UnknownName: for a variant that does not exist.
        """
        assert self.shift is not None and self.local is not None
        match self.variant:
            case "exact":
                return False
            case "reference":
                # At exactly S tokens the release takes an empty slice of keys.
                if length < self.shift - self.local or length == self.shift:
                    raise BadSetting(
                        f"string: the release cannot read {length} tokens with shift={self.shift}"
                    )
                return length > self.shift
        raise UnknownName("variant of string", self.variant, ("exact", "reference"))

    def released_attention_factor(self, geometry: Geometry, length: int) -> AttentionFactor:
        # In the release only; the paper does not mention it.
        return AttentionFactor(STRING_FACTOR)
