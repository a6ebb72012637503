"""Composition of two methods, such as LaMPE's positions with YaRN's frequencies."""

from dataclasses import dataclass
from typing import Any, Self

from lampe.attention_factor import AttentionFactor
from lampe.errors import BadSetting
from lampe.geometry import Geometry
from lampe.methods.method import IndexMethod, Method
from lampe.positions import PositionPlan
from lampe.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Composed(Method):
    """Positions of one method with the frequencies of another, each derived for the same prompt.

    A frequency method derives its factor from the prompt's length even where the plan keeps
    positions inside the window already; give it a smaller factor to avoid extending twice.

    Attributes:
        positions: method of plans and attention factor.
        frequencies: method of the rope.

    Raises:
        BadSetting: for two methods of the same kind.
    """

    positions: Method
    frequencies: Method

    def __post_init__(self) -> None:
        if not isinstance(self.positions, IndexMethod) or isinstance(self.frequencies, IndexMethod):
            raise BadSetting(
                f"{self.label}: compose a method of positions with one of frequencies, "
                "as lampe+yarn"
            )

    @property
    def has_release_prompts(self) -> bool:
        return self.positions.has_release_prompts

    @property
    def label(self) -> str:
        return f"{self.positions.label}+{self.frequencies.label}"

    @property
    def settings(self) -> dict[str, Any]:
        frequencies = self.frequencies
        prefixed = {f"{frequencies.name}.{key}": v for key, v in frequencies.settings.items()}
        return {**self.positions.settings, **prefixed}

    def resolved(self, geometry: Geometry, length: int) -> Self:
        return type(self)(
            positions=self.positions.resolved(geometry, length),
            frequencies=self.frequencies.resolved(geometry, length),
        )

    def rope(self, geometry: Geometry, length: int) -> Rope:
        return self.frequencies.rope(geometry, length)

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        return self.positions.plan(geometry, length)

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        return self.positions.decode_plan(geometry, length, stop)

    def attention_factor_of(self, geometry: Geometry, length: int) -> AttentionFactor:
        return self.positions.attention_factor_of(geometry, length)
