"""What a method is: a frozen dataclass of hyper-parameters that answers with an encoding.

A hyper-parameter left at None is derived from the model's window and the prompt's length by ``resolved``; a method
overrides what it changes of ``rope``, ``plan`` and ``released``, and these may rely on resolved hyper-parameters.
"""

import dataclasses
import math
from dataclasses import dataclass
from types import NoneType
from typing import Any, ClassVar, Self, TypeVar, get_args, get_type_hints

from lampe.encoding import Encoding
from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.positions import PLAIN, PositionPlan
from lampe.rope import Rope
from lampe.temperature import Setting, Temperature, temperature


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of all methods."""

    name: ClassVar[str] = ""

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Self:
        """The method with these hyper-parameters.

        Raises:
            UnknownName: for a hyper-parameter it does not have.
            BadSetting: for a value of the wrong type.
        """
        hints = {key: hint for key, hint in get_type_hints(cls).items() if key != "name"}
        for key, value in settings.items():
            if key not in hints:
                raise UnknownName(f"setting of {cls.name}", key, hints)
            if isinstance(value, bool) is not (hints[key] is bool) or not isinstance(
                value, hints[key]
            ):
                kinds = [
                    kind.__name__
                    for kind in get_args(hints[key]) or [hints[key]]
                    if kind is not NoneType
                ]
                raise BadSetting(
                    f"{cls.name}: {key} must be of type {' or '.join(kinds)}, got {value!r}"
                )
        return cls(**settings)

    @property
    def label(self) -> str:
        """The name as messages give it."""
        return self.name

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as they were set."""
        return dataclasses.asdict(self)

    def encode(self, geometry: Geometry, length: int) -> Encoding:
        """The encoding of a prompt of ``length`` tokens."""
        method = self.resolved(geometry, length)
        return Encoding(
            method.rope(geometry, length),
            method.plan(geometry, length),
            method.temperature_of(geometry, length),
        )

    def answering(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        """The plan under which a generated token attends, where the method's release has one for each.

        Rope and temperature stay the prompt's.

        Args:
            length: tokens of the prompt.
            stop: tokens up to the generated one, itself included.

        Returns:
            None where the prompt's plan goes on, as it does for all methods but some releases.
        """
        return None

    def resolved(self, geometry: Geometry, length: int) -> Self:
        """The same method with every hyper-parameter filled in."""
        return self

    def rope(self, geometry: Geometry, length: int) -> Rope:
        """The model's own rope, unless the method changes it."""
        return geometry.rope(length)

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        """True distances, unless the method changes them."""
        return PLAIN

    def temperature_of(self, geometry: Geometry, length: int) -> Temperature:
        """No temperature, unless the method has one."""
        return Temperature()


@dataclass(frozen=True, kw_only=True)
class IndexMethod(Method):
    """A method that changes relative positions, and so takes a temperature.

    Args:
        temperature: see ``lampe.temperature``.
        temperature_rate: growth of its square with ln(length / window) beyond the window, where it is a number.
    """

    temperature: Setting = "released"
    temperature_rate: float | int = 0.0

    def released(self, geometry: Geometry, length: int) -> Temperature:
        """The temperature that the method's authors run."""
        return Temperature()

    def temperature_of(self, geometry: Geometry, length: int) -> Temperature:
        released = self.released(geometry, length)
        return temperature(
            self.temperature,
            released,
            window=geometry.window,
            length=length,
            rate=self.temperature_rate,
        )


def extension(geometry: Geometry, length: int) -> float:
    """How many windows long a prompt is; 1 for one that fits."""
    return max(1.0, length / geometry.window)


def compression(geometry: Geometry, length: int, *, exact: int, share: float = 2 / 3) -> int:
    """Smallest whole compression of distances beyond ``exact`` that keeps a prompt within a share of the window.

    The share is the rule of thumb in SelfExtend's README: the largest positions of a window are poorly trained, so stay
    below one half to two thirds of it. A prompt that fits the window is left alone.
    """
    if length <= geometry.window:
        return 1
    room = int(share * geometry.window) - exact
    if room < 1:
        raise BadSetting(
            f"{exact} exact positions leave no room below {share:.0%} of a window of {geometry.window}"
        )
    return math.ceil((length - exact) / room)


T = TypeVar("T", int, float)


def given(setting: T | None, default: T) -> T:
    """The setting, or the default where it was left open."""
    return default if setting is None else setting


def positive(name: str, **values: float) -> None:
    """Raises BadSetting unless every value is positive and finite."""
    for key, value in values.items():
        if not 0 < value < math.inf:
            raise BadSetting(f"{name}: {key}={value} must be positive and finite")
