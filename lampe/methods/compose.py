"""One method's positions with another method's frequencies: LaMPE's plan on YaRN's rope, say."""

from dataclasses import dataclass
from typing import Any, Self

from lampe.errors import BadSetting
from lampe.geometry import Geometry
from lampe.methods.base import IndexMethod, Method
from lampe.positions import PositionPlan
from lampe.rope import Rope
from lampe.temperature import Temperature


@dataclass(frozen=True, kw_only=True)
class Composed(Method):
    """Plans and temperature of ``positions``, rope of ``frequencies``, each derived for the same prompt.

    A frequency method derives its factor from the prompt's length even where the plan already keeps positions inside
    the window; give it a factor to compose less.
    """

    positions: Method
    frequencies: Method

    def __post_init__(self) -> None:
        if not isinstance(self.positions, IndexMethod) or isinstance(self.frequencies, IndexMethod):
            raise BadSetting(
                f"{self.label}: compose a method of positions with one of frequencies, as lampe+yarn"
            )

    @property
    def label(self) -> str:
        return f"{self.positions.label}+{self.frequencies.label}"

    @property
    def settings(self) -> dict[str, Any]:
        return {
            **self.positions.settings,
            **{
                f"{self.frequencies.name}.{key}": value
                for key, value in self.frequencies.settings.items()
            },
        }

    def resolved(self, geometry: Geometry, length: int) -> Self:
        return type(self)(
            positions=self.positions.resolved(geometry, length),
            frequencies=self.frequencies.resolved(geometry, length),
        )

    def rope(self, geometry: Geometry, length: int) -> Rope:
        return self.frequencies.rope(geometry, length)

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        return self.positions.plan(geometry, length)

    def answering(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        return self.positions.answering(geometry, length, stop)

    def temperature_of(self, geometry: Geometry, length: int) -> Temperature:
        return self.positions.temperature_of(geometry, length)
