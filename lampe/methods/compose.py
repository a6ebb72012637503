"""Composition of two methods, such as LaMPE's positions with YaRN's frequencies."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from lampe.attention_factor import AttentionFactor
from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import IndexMethod, Method
from lampe.positions import PositionPlan
from lampe.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Composed(Method):
    """Positions of one method with the frequencies of another, each derived for the same prompt.

    A frequency method derives its factor from the prompt's length even where the plan keeps
    positions inside the window already; give it a smaller factor to avoid extending twice.

    One attention factor holds: that of the positions, and where they have none, that of the
    frequencies. A factor that the user sets for the frequencies, as ``yarn.attention_factor``,
    multiplies the other one.

    Attributes:
        positions: method of plans and, as a rule, of the attention factor.
        frequencies: method of the rope.

    Raises:
        BadSetting: for two methods of the same kind.
    """

    positions: Method
    frequencies: Method

    def __post_init__(self) -> None:
        if not isinstance(self.positions, IndexMethod) or isinstance(
            self.frequencies, IndexMethod | Composed
        ):
            raise BadSetting(
                f"{self.label}: the kinds of its methods are {self.positions.kind()} and "
                f"{self.frequencies.kind()}; compose a method of positions with one of "
                "frequencies, as lampe+yarn"
            )

    @classmethod
    def from_parts(
        cls, positions: type[Method], frequencies: type[Method], settings: Mapping[str, Any]
    ) -> Self:
        """Return the composition of two methods.

        Args:
            positions: method of plans.
            frequencies: method of the rope.
            settings: hyper-parameters by the names that ``settings`` has: those of the frequencies
                with their method's name in front, as ``yarn.factor``.

        Raises:
            UnknownName: for a hyper-parameter that neither method has.
            BadSetting: for a value of the wrong type, or two methods of the same kind.
        """
        prefix = f"{frequencies.name}."
        of_positions = {field.name for field in dataclasses.fields(positions)}
        of_frequencies = {f"{prefix}{field.name}" for field in dataclasses.fields(frequencies)}
        for key in settings:
            if key not in of_positions | of_frequencies:
                kind = f"setting of {positions.name}+{frequencies.name}"
                raise UnknownName(kind, key, of_positions | of_frequencies)
        return cls(
            positions=positions.from_settings(
                {key: value for key, value in settings.items() if key in of_positions}
            ),
            frequencies=frequencies.from_settings(
                {
                    key.removeprefix(prefix): value
                    for key, value in settings.items()
                    if key in of_frequencies
                }
            ),
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

    @property
    def has_attention_factor(self) -> bool:
        return self.positions.has_attention_factor or self.frequencies.has_attention_factor

    @property
    def attention_factor_note(self) -> str:
        positions, frequencies = self.positions.name, self.frequencies.name
        if not self.positions.has_attention_factor:
            return f"of {frequencies}" if self.frequencies.has_attention_factor else ""
        factor = f"{frequencies}.{self.frequencies.factor_setting}"
        if self._omits_factor_of_frequencies:
            note = f"of {positions} alone, without that of {frequencies}"
            return f"{note}; set {factor} to multiply by it" if self._has_factor_setting else note
        given = self._given_factor
        times = "" if given is None else f" times {factor}={given:g}"
        return f"of {positions}{times}"

    def setting_rules(self, given: Collection[str] = ()) -> dict[str, str]:
        prefix = f"{self.frequencies.name}."
        own = [name.removeprefix(prefix) for name in given if name.startswith(prefix)]
        rules = self.positions.setting_rules(given)
        for name, rule in self.frequencies.setting_rules(own).items():
            rules[f"{prefix}{name}"] = rule
        if self._omits_factor_of_frequencies and self._has_factor_setting:
            factor = f"{prefix}{self.frequencies.factor_setting}"
            rules[factor] = f"1, because the factor of {self.positions.name} alone holds"
        return rules

    @property
    def _has_factor_setting(self) -> bool:
        """Return True where the frequencies' factor can be set."""
        names = {field.name for field in dataclasses.fields(self.frequencies)}
        return self.frequencies.factor_setting in names

    @property
    def _given_factor(self) -> Any:
        """Return the factor that the user set for the frequencies, None where it is the default."""
        if not self._has_factor_setting:
            return None
        name = self.frequencies.factor_setting
        (field,) = (field for field in dataclasses.fields(self.frequencies) if field.name == name)
        value = getattr(self.frequencies, name)
        return None if value == field.default else value

    @property
    def _omits_factor_of_frequencies(self) -> bool:
        """Return True where both parts have a factor, and the user set none for the frequencies."""
        both = self.positions.has_attention_factor and self.frequencies.has_attention_factor
        return both and self._given_factor is None

    def resolved(self, geometry: Geometry, length: int) -> Self:
        frequencies = self.frequencies.resolved(geometry, length)
        if self._omits_factor_of_frequencies and self._has_factor_setting:
            # STRING on Qwen 2, the one such composition that was released, has a single factor.
            frequencies = dataclasses.replace(frequencies, **{frequencies.factor_setting: 1.0})
        return type(self)(
            positions=self.positions.resolved(geometry, length), frequencies=frequencies
        )

    def rope(self, geometry: Geometry, length: int) -> Rope:
        rope = self.frequencies.rope(geometry, length)
        # A method without a setting for its factor cannot leave it out itself.
        return dataclasses.replace(rope, scaling=1.0) if self._omits_factor_of_frequencies else rope

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        return self.positions.plan(geometry, length)

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        return self.positions.decode_plan(geometry, length, stop)

    def attention_factor_of(self, geometry: Geometry, length: int) -> AttentionFactor:
        part = self.positions if self.positions.has_attention_factor else self.frequencies
        return part.attention_factor_of(geometry, length)
