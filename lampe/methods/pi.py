"""Position interpolation: every position divided by the extension factor (arXiv 2306.15595)."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

from lampe.geometry import Geometry
from lampe.methods.method import Method, extension_factor, require_positive, value_or
from lampe.rope import Rope


@dataclass(frozen=True, kw_only=True)
class PI(Method):
    """Positions over ``factor`` (prompt length over window by default), on top of the model's own frequencies."""

    name: ClassVar[str] = "pi"
    factor: float | int | None = None

    def resolved(self, geometry: Geometry, length: int) -> Self:
        return dataclasses.replace(
            self, factor=value_or(self.factor, extension_factor(geometry, length))
        )

    def rope(self, geometry: Geometry, length: int) -> Rope:
        assert self.factor is not None
        require_positive(self.name, factor=self.factor)
        own = geometry.rope(length)
        return dataclasses.replace(own, inv_freq=tuple(freq / self.factor for freq in own.inv_freq))
