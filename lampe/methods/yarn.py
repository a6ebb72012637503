"""YaRN: interpolation of slow pairs, extrapolation of fast ones, a ramp between, and a attention_factor (arXiv 2309.00071).

The ramp is linear in the pair index, as in the authors' code and in transformers; the paper's text has it linear in the
number of turns, which gives other frequencies.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

from lampe.geometry import Geometry
from lampe.methods.method import Method, extension_factor, require_positive, value_or
from lampe.rope import Rope


@dataclass(frozen=True, kw_only=True)
class YaRN(Method):
    """transformers' "yarn" type on the model's base; a scaling that the model already has is replaced, as it is there.

    Args:
        factor: extension; prompt length over window by default.
        beta_fast: turns within the window above which a pair is left alone.
        beta_slow: turns below which a pair is interpolated whole.
        attention_factor: on cos and sin; ``0.1 ln(factor) + 1`` by default.
        truncate: whether the ramp's ends are rounded to whole pairs.
    """

    name: ClassVar[str] = "yarn"
    factor: float | int | None = None
    beta_fast: float | int = 32.0
    beta_slow: float | int = 1.0
    attention_factor: float | int | None = None
    truncate: bool = True

    def resolved(self, geometry: Geometry, length: int) -> Self:
        return dataclasses.replace(
            self, factor=value_or(self.factor, extension_factor(geometry, length))
        )

    def rope(self, geometry: Geometry, length: int) -> Rope:
        assert self.factor is not None
        require_positive(
            self.name, factor=self.factor, beta_fast=self.beta_fast, beta_slow=self.beta_slow
        )
        if self.factor == 1:
            return geometry.rope(length)
        return geometry.rope(
            length,
            rope_type="yarn",
            factor=float(self.factor),
            beta_fast=self.beta_fast,
            beta_slow=self.beta_slow,
            attention_factor=self.attention_factor,
            truncate=self.truncate,
            original_max_position_embeddings=geometry.window,
        )
