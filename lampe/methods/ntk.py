"""NTK-aware scaling: a larger rope base, which slows slow pairs and keeps fast ones.

Source: posts of the reddit users bloc97 (2023) and, for the dynamic form, emozilla.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lampe.errors import UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import Method, extension_factor, require_positive, setting
from lampe.rope import PerTokenRope, Rope, ntk_theta


@dataclass(frozen=True, kw_only=True)
class NTK(Method):
    """Rope base times ``factor ** (D / (D - 2))``, for D rotated dimensions.

    Attributes:
        factor: extension.
    """

    name: ClassVar[str] = "ntk"
    factor: float | int | None = setting(
        derive=extension_factor,
        rule="prompt length over window",
    )

    def rope(self, geometry: Geometry, length: int) -> Rope:
        assert self.factor is not None
        require_positive(self.name, factor=self.factor)
        if self.factor == 1:
            return geometry.rope(length)
        return geometry.rope_with_base(length, self._theta(geometry))

    def rope_parameters(self, geometry: Geometry, length: int) -> Mapping[str, Any] | None:
        return {**geometry.rope_parameters, "rope_theta": self._theta(geometry)}

    def _theta(self, geometry: Geometry) -> float:
        assert self.factor is not None
        return ntk_theta(geometry.theta, self.factor, geometry.dim)


@dataclass(frozen=True, kw_only=True)
class DynamicNTK(Method):
    """Rope of transformers' "dynamic" type, whose base grows with the prompt.

    The base grows as NTK's would by ``factor * length / window - (factor - 1)``.

    Attributes:
        factor: see above.
        cache: "unrotated" freezes the base for the answer, so that old and new keys agree.
            "rotated" is what transformers does: a generated token comes with the base of the length
            so far, and earlier keys keep theirs.
    """

    name: ClassVar[str] = "dynamic-ntk"
    factor: float | int = setting(
        2.0,
        rule="2, what most configurations of the field have; 1 is the definition in YaRN's paper",
    )
    cache: str = "unrotated"

    def rope(self, geometry: Geometry, length: int) -> Rope:
        require_positive(self.name, factor=self.factor)
        factor = float(self.factor)
        if length <= geometry.window:
            # A prompt that fits keeps the model's own scaling, which "dynamic" would replace.
            frozen = geometry.rope(length)
        else:
            frozen = geometry.rope(length, rope_type="dynamic", factor=factor)
        match self.cache:
            case "unrotated":
                return frozen
            case "rotated":
                # The bases drift apart: at four windows of Llama 2 and factor 1, after 128 new
                # tokens, the worst pair is off by 4.5 radians for keys at the end of the prompt.
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

    def rope_parameters(self, geometry: Geometry, length: int) -> Mapping[str, Any] | None:
        own = geometry.rope_parameters.get("rope_type", "default")
        # transformers rotates each key once, by the base of its time
        if self.cache != "rotated" or own != "default":
            return None
        return geometry.scaled_rope_parameters(rope_type="dynamic", factor=float(self.factor))
