"""Resonance RoPE: every wavelength rounded to a whole number of tokens (arXiv 2403.00071).

A pair of wavelength ``w = 2 pi / theta`` turns at ``2 pi / round(w)``, so that its angles at later
positions are among those of the first ``round(w)``. The authors round the frequencies of the
scheme underneath, which with YaRN is what its ramp gives.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from lampe.geometry import Geometry
from lampe.methods.method import Method, require_positive, setting
from lampe.methods.yarn import YaRN
from lampe.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Resonance(Method):
    """Whole wavelengths, of the model's own rope or of YaRN's.

    Attributes:
        factor: extension by YaRN before the rounding; 1 leaves the model's own frequencies.
    """

    name: ClassVar[str] = "resonance"
    factor: float | int = setting(
        1.0, rule="1, the model's own frequencies; the authors extend by YaRN before"
    )

    @property
    def has_attention_factor(self) -> bool:
        return self.factor != 1

    def rope(self, geometry: Geometry, length: int) -> Rope:
        require_positive(self.name, factor=self.factor)
        rope = YaRN(factor=self.factor).rope(geometry, length)
        return dataclasses.replace(rope, inv_freq=tuple(map(_rounded, rope.inv_freq)))


def _rounded(frequency: float) -> float:
    """Return the frequency with the nearest whole wavelength; 0 where a pair does not rotate."""
    if not frequency:
        return 0.0
    wavelength = max(1, round(math.tau / abs(frequency)))
    return math.copysign(math.tau / wavelength, frequency)
