"""MrRoPE: an extension by S as a product of one radix factor per pair (arXiv 2601.22181).

Pair p turns at ``theta_p / S ** e``. With lo and hi the ends of YaRN's ramp, n = hi - lo and
t = p - lo, cut to 0..n:

    uniform        e = t / n                       every radix factor is alike
    progressive    e = t (t + 1) / (n (n + 1))     they grow with p; the authors' "Pro"

The temperature is YaRN's. In the release (mattian7/mrRoPE at d1a6f31) every generated token is
rotated at position 0; here it is rotated at its own.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import Method, extension_factor, require_positive, setting
from lampe.rope import Rope, yarn_factor


@dataclass(frozen=True, kw_only=True)
class MrRoPE(Method):
    """Frequencies that slow down from one end of YaRN's ramp to the other, by a power of S.

    A scaling that the model already has is replaced, as under YaRN.

    Attributes:
        factor: ``S``, the extension.
        spread: "progressive" or "uniform", see above.
        beta_fast: turns within the window above which a pair is left alone.
        beta_slow: turns below which a pair is slowed by the whole factor.
        attention_factor: on cos and sin, YaRN's where it is None.
    """

    name: ClassVar[str] = "mrrope"
    factor: float | int | None = setting(
        derive=extension_factor, rule="prompt length over window, as for yarn"
    )
    spread: str = setting("progressive", rule="progressive, the one that the release runs")
    beta_fast: float | int = setting(32.0, rule="32 turns, YaRN's")
    beta_slow: float | int = setting(1.0, rule="1 turn, YaRN's")
    attention_factor: float | int | None = setting(rule="0.1 ln(factor) + 1, YaRN's")

    @property
    def has_attention_factor(self) -> bool:
        return self.attention_factor != 1

    def rope(self, geometry: Geometry, length: int) -> Rope:
        factor = self.factor
        assert factor is not None
        scaling = yarn_factor(factor) if self.attention_factor is None else self.attention_factor
        require_positive(
            self.name, factor=factor, beta_slow=self.beta_slow, attention_factor=scaling
        )
        if not self.beta_slow < self.beta_fast < math.inf:
            raise BadSetting(
                f"mrrope: beta_fast={self.beta_fast} must be above beta_slow={self.beta_slow}"
            )
        if factor == 1:
            # Without extension the model keeps its own scaling, as under YaRN.
            return geometry.rope(length)
        rope = geometry.rope(length, rope_type="default")
        inv_freq = tuple(
            frequency / factor**exponent
            for frequency, exponent in zip(rope.inv_freq, self._exponents(geometry), strict=True)
        )
        return dataclasses.replace(rope, inv_freq=inv_freq, scaling=float(scaling))

    def _exponents(self, geometry: Geometry) -> list[float]:
        """Return the exponent of the factor for each pair, from 0 to 1.

        Raises:
            UnknownName: for a spread that does not exist.
        """
        low, high = self._ramp(geometry)
        steps = max(1, high - low)
        cut = [min(max(pair - low, 0), steps) for pair in range(geometry.dim // 2)]
        match self.spread:
            case "uniform":
                return [step / steps for step in cut]
            case "progressive":
                return [step * (step + 1) / (steps * (steps + 1)) for step in cut]
        raise UnknownName("spread of mrrope", self.spread, ("progressive", "uniform"))

    def _ramp(self, geometry: Geometry) -> tuple[int, int]:
        """Return the pairs at which YaRN's ramp begins and ends.

        Raises:
            BadSetting: for a model whose pairs all turn alike.
        """
        if geometry.theta <= 1:
            raise BadSetting(f"mrrope: rope_theta={geometry.theta:g} must be above 1")
        fast, slow = (
            # Pair that makes so many turns within the window.
            geometry.dim
            * math.log(geometry.window / (turns * math.tau))
            / (2 * math.log(geometry.theta))
            for turns in (self.beta_fast, self.beta_slow)
        )
        return max(math.floor(fast), 0), min(math.ceil(slow), geometry.dim - 1)
