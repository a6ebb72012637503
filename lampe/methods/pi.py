"""Position interpolation: every position divided by the extension factor (arXiv 2306.15595)."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lampe.geometry import Geometry
from lampe.methods.method import Method, extension_factor, require_positive, setting
from lampe.rope import Rope


@dataclass(frozen=True, kw_only=True)
class PI(Method):
    """Positions divided by ``factor``, on top of the model's own frequencies.

    Attributes:
        factor: extension.
    """

    name: ClassVar[str] = "pi"
    factor: float | int | None = setting(
        derive=extension_factor,
        rule="prompt length over window, as the paper scales",
    )

    def rope(self, geometry: Geometry, length: int) -> Rope:
        assert self.factor is not None
        require_positive(self.name, factor=self.factor)
        rope = geometry.rope(length)
        inv_freq = tuple(frequency / self.factor for frequency in rope.inv_freq)
        return dataclasses.replace(rope, inv_freq=inv_freq)

    def rope_parameters(self, geometry: Geometry, length: int) -> Mapping[str, Any] | None:
        # "linear" would replace a scaling that the model has.
        if geometry.rope_parameters.get("rope_type", "default") != "default":
            return None
        return geometry.scaled_rope_parameters(rope_type="linear", factor=self.factor)
