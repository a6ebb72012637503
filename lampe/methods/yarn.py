"""YaRN: slow pairs interpolated, fast ones kept, a ramp between, an attention factor.

Source: arXiv 2309.00071. The ramp is linear in the pair index, as in the authors' code and in
transformers; the paper's text has it linear in the number of turns, which gives other frequencies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lampe.geometry import Geometry
from lampe.methods.method import Method, extension_factor, require_positive, setting
from lampe.rope import Rope


@dataclass(frozen=True, kw_only=True)
class YaRN(Method):
    """Rope of transformers' "yarn" type on the model's base.

    A scaling that the model already has is replaced, as in transformers.

    Attributes:
        factor: extension.
        beta_fast: turns within the window above which a pair is left alone.
        beta_slow: turns below which a pair is interpolated fully.
        attention_factor: on cos and sin, computed by transformers where it is None.
        truncate: whether the ramp's ends are rounded to whole pairs.
    """

    name: ClassVar[str] = "yarn"
    factor: float | int | None = setting(
        derive=extension_factor,
        rule="prompt length over window",
    )
    beta_fast: float | int = setting(32.0, rule="32 turns, the paper's for Llama")
    beta_slow: float | int = setting(1.0, rule="1 turn, the paper's for Llama")
    attention_factor: float | int | None = setting(rule="0.1 ln(factor) + 1")
    truncate: bool = True

    @property
    def has_attention_factor(self) -> bool:
        return self.attention_factor != 1

    def rope(self, geometry: Geometry, length: int) -> Rope:
        assert self.factor is not None
        require_positive(
            self.name, factor=self.factor, beta_fast=self.beta_fast, beta_slow=self.beta_slow
        )
        if self.attention_factor is not None:
            require_positive(self.name, attention_factor=self.attention_factor)
        if self.factor == 1:
            # Without extension the model keeps its own scaling, which "yarn" would replace.
            return geometry.rope(length)
        return geometry.rope(length, **self._scaling(geometry))

    def rope_parameters(self, geometry: Geometry, length: int) -> Mapping[str, Any] | None:
        if self.factor == 1:
            return geometry.rope_parameters
        return geometry.scaled_rope_parameters(**self._scaling(geometry))

    def _scaling(self, geometry: Geometry) -> dict[str, Any]:
        assert self.factor is not None
        return {
            "rope_type": "yarn",
            "factor": float(self.factor),
            "beta_fast": self.beta_fast,
            "beta_slow": self.beta_slow,
            "attention_factor": self.attention_factor,
            "truncate": self.truncate,
            "original_max_position_embeddings": geometry.window,
        }
