"""What a method is: a frozen dataclass of hyper-parameters that answers with an encoding.

A hyper-parameter left at None is derived from the model's window and the prompt's length by ``resolved``; a method
overrides what it changes of ``rope``, ``plan`` and ``released``, and these may rely on resolved hyper-parameters.
"""

import dataclasses
import math
from dataclasses import dataclass
from types import NoneType
from typing import Any, ClassVar, Self, TypeVar, get_args, get_type_hints

from lampe.attention_factor import AttentionFactor, FactorSetting, resolve_attention_factor
from lampe.encoding import Encoding
from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.positions import IDENTITY_PLAN, PositionPlan
from lampe.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of all methods."""

    name: ClassVar[str] = ""
    calibrated_settings: ClassVar[tuple[str, ...]] = ()
    """Settings that `lampe-eval calibrate` can fit to a model."""

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """The method with these hyper-parameters.

        Raises:
            UnknownName: for a hyper-parameter it does not have.
            BadSetting: for a value of the wrong type.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        hints = {key: hint for key, hint in get_type_hints(cls).items() if key in fields}
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
    def has_release_prompts(self) -> bool:
        """Whether the authors' release gives this method prompts that other methods do not get."""
        return False

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
            method.attention_factor_of(geometry, length),
        )

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        """The plan under which a generated token attends, where the method's release has one for each.

        Rope and attention_factor stay the prompt's.

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
        return IDENTITY_PLAN

    def attention_factor_of(self, geometry: Geometry, length: int) -> AttentionFactor:
        """No attention_factor, unless the method has one."""
        return AttentionFactor()


@dataclass(frozen=True, kw_only=True)
class IndexMethod(Method):
    """A method that changes relative positions, and so takes a attention_factor.

    Args:
        attention_factor: see ``lampe.attention_factor``.
        attention_factor_rate: growth of its square with ln(length / window) beyond the window, where it is a number.
    """

    calibrated_settings: ClassVar[tuple[str, ...]] = ("attention_factor",)
    attention_factor: FactorSetting = "released"
    attention_factor_rate: float | int = 0.0

    def released_attention_factor(self, geometry: Geometry, length: int) -> AttentionFactor:
        """The attention_factor that the method's authors run."""
        return AttentionFactor()

    def attention_factor_of(self, geometry: Geometry, length: int) -> AttentionFactor:
        released = self.released_attention_factor(geometry, length)
        return resolve_attention_factor(
            self.attention_factor,
            released,
            window=geometry.window,
            length=length,
            rate=self.attention_factor_rate,
        )


def extension_factor(geometry: Geometry, length: int) -> float:
    """How many windows long a prompt is; 1 for one that fits."""
    return max(1.0, length / geometry.window)


def smallest_compression(
    geometry: Geometry, length: int, *, exact: int, share: float = 2 / 3
) -> int:
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


def value_or(setting: T | None, default: T) -> T:
    """The setting, or the default where it was left open."""
    return default if setting is None else setting


def require_positive(name: str, **values: float) -> None:
    """Raises BadSetting unless every value is positive and finite."""
    for key, value in values.items():
        if not 0 < value < math.inf:
            raise BadSetting(f"{name}: {key}={value} must be positive and finite")
