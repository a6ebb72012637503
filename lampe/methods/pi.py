"""Position interpolation: every position divided by the extension factor (arXiv 2306.15595)."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

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
