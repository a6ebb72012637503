"""Base of methods: a frozen dataclass of hyper-parameters that returns an encoding for a prompt.

A method overrides what it changes of ``rope``, ``plan`` and ``released_attention_factor``. A
hyper-parameter that is None is derived from the model's window and the prompt's length: its
``setting`` says by which function, and in words for people. ``resolved`` fills those in, and
``rope`` and ``plan`` may rely on them.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, ClassVar, Self, get_args, get_type_hints

from lampe.attention_factor import (
    FACTOR_BEGINNINGS,
    AttentionFactor,
    FactorSetting,
    resolve_attention_factor,
)
from lampe.encoding import Encoding
from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.positions import IDENTITY_PLAN, PositionPlan
from lampe.rope import Rope

Derivation = Callable[[Any, Geometry, int], int | float | str]
"""Function of the method, the model's geometry and the prompt's length in tokens."""
Rule = str | Mapping[str, str]
"""Where a default comes from; by the other settings it depends on, where there are several ways."""
OTHERWISE = "otherwise"
"""Key of the rule that holds where none of the other settings of a ``Rule`` is set."""
AUTO = "auto"
"""Value that stands for a hyper-parameter's default, as ``lampe-eval list methods`` prints it."""
LARGEST = 2**63 - 1
"""Largest number that a hyper-parameter may have: positions are int64 in tensors."""


def setting(default: Any = None, *, derive: Derivation | None = None, rule: Rule = "") -> Any:
    """Declare a hyper-parameter of a method, with its default and where that comes from.

    This is the only place that states a default. ``lampe-eval suggest`` and ``list methods`` show
    the rule.

    Args:
        default: value; None for one that is derived or left out.
        derive: computes the default for a model and a prompt; such a hyper-parameter is never None
            in a resolved method.
        rule: the default in words, such as "a quarter of the window". Where other settings decide,
            a mapping from their names, the first that is set counts, and ``OTHERWISE``.
    """
    return dataclasses.field(default=default, metadata={"derive": derive, "rule": rule})


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of all methods.

    Attributes:
        name: as users write it; empty for classes that are no methods of their own.
        calibrated_settings: settings that ``lampe-eval calibrate`` can fit to a model.
        factor_setting: setting by which a method of frequencies takes the factor of its rope on cos
            and sin; its default stands for the factor that the method derives.
    """

    name: ClassVar[str] = ""
    calibrated_settings: ClassVar[tuple[str, ...]] = ()
    factor_setting: ClassVar[str] = "attention_factor"

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Return the method with these hyper-parameters.

        Args:
            settings: values by name; "auto" is the default of a hyper-parameter that has a rule.

        Raises:
            UnknownName: for a hyper-parameter that the method does not have.
            BadSetting: for a value of the wrong type, or a number that is too large.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        hints = {key: hint for key, hint in get_type_hints(cls).items() if key in defaults}
        rules = cls.default_rules()
        values: dict[str, Any] = {}
        for key, value in settings.items():
            if key not in hints:
                raise UnknownName(f"setting of {cls.name}", key, hints)
            values[key] = defaults[key] if value == AUTO and key in rules else value
            _check_type(cls.name, key, values[key], hints[key])
        return cls(**values)

    @classmethod
    def default_rules(cls) -> dict[str, Rule]:
        """Return where defaults come from, for every hyper-parameter that has a rule."""
        rules = {field.name: field.metadata.get("rule") for field in dataclasses.fields(cls)}
        return {name: rule for name, rule in rules.items() if rule}

    @classmethod
    def default_rule(cls, name: str, settings: Container[str] = ()) -> str:
        """Return where the default of a hyper-parameter comes from.

        Args:
            name: a hyper-parameter with a rule.
            settings: names of the hyper-parameters that are set.
        """
        rule = cls.default_rules()[name]
        if isinstance(rule, str):
            return rule
        applying = [text for other, text in rule.items() if other in settings]
        return applying[0] if applying else rule[OTHERWISE]

    def setting_rules(self, given: Collection[str] = ()) -> dict[str, str]:
        """Return where the default of each hyper-parameter with a rule comes from.

        Args:
            given: names of the hyper-parameters that are set.
        """
        return {name: self.default_rule(name, given) for name in self.default_rules()}

    @property
    def has_release_prompts(self) -> bool:
        """Return True where the authors' release gives this method prompts of its own."""
        return False

    @property
    def has_attention_factor(self) -> bool:
        """Return True where the method multiplies logits by a factor of its own, at any length."""
        return False

    @property
    def attention_factor_note(self) -> str:
        """Return the origin of the attention factor in words; empty where there is one method."""
        return ""

    @property
    def label(self) -> str:
        """Return the name as messages give it."""
        return self.name

    @property
    def settings(self) -> dict[str, Any]:
        """Return the hyper-parameters as they were set."""
        return dataclasses.asdict(self)

    def encode(self, geometry: Geometry, length: int) -> Encoding:
        """Return the encoding of a prompt of ``length`` tokens.

        Raises:
            BadSetting: for hyper-parameters that do not fit the model or the prompt.
        """
        method = self.resolved(geometry, length)
        return Encoding(
            method.rope(geometry, length),
            method.plan(geometry, length),
            method.attention_factor_of(geometry, length),
        )

    def resolved(self, geometry: Geometry, length: int) -> Self:
        """Return the method with every derived hyper-parameter filled in.

        Args:
            geometry: of the model.
            length: tokens of the prompt.
        """
        derived = {
            field.name: self.value_of(field.name, geometry, length)
            for field in dataclasses.fields(self)
            if field.metadata.get("derive")
        }
        return dataclasses.replace(self, **derived)

    def value_of(self, name: str, geometry: Geometry, length: int) -> Any:
        """Return a hyper-parameter as it is set, or else as it is derived.

        Derivations use it for the hyper-parameters that they depend on, in any order.
        """
        value = getattr(self, name)
        (field,) = (field for field in dataclasses.fields(self) if field.name == name)
        derive = field.metadata.get("derive")
        return derive(self, geometry, length) if value is None and derive else value

    def rope(self, geometry: Geometry, length: int) -> Rope:
        """Return the rope for a prompt: the model's own, unless the method changes it."""
        return geometry.rope(length)

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        """Return the plan for a prompt: true distances, unless the method changes them."""
        return IDENTITY_PLAN

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        """Return the plan of one generated token, where the method's release has one for each.

        Rope and attention factor stay those of the prompt.

        Args:
            geometry: of the model.
            length: tokens of the prompt.
            stop: tokens up to the generated one, itself included.

        Returns:
            None where the plan of the prompt goes on, as it does for all methods but some releases.
        """
        return None

    def attention_factor_of(self, geometry: Geometry, length: int) -> AttentionFactor:
        """Return the attention factor for a prompt: none, unless the method has one."""
        return AttentionFactor()

    def rope_parameters(self, geometry: Geometry, length: int) -> Mapping[str, Any] | None:
        """Return the ``rope_parameters`` by which transformers does the same without a patch.

        A configuration has one rope for all prompts, so it is that of ``length`` tokens. Call it on
        a resolved method.

        Returns:
            None where no configuration does the same.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class IndexMethod(Method):
    """Method that changes relative positions, and so takes an attention factor.

    Attributes:
        attention_factor: see ``lampe.attention_factor``.
        attention_factor_rate: growth of its square with ln(length / window) beyond the window,
            where it is a number.
        attention_factor_from: one of ``FACTOR_BEGINNINGS``: whether the factor acts on all prompts
            ("start") or only on those longer than the window ("window").
        logn_base: base of a log-n scale in tokens, such as LongLM's ``scale_base``.
    """

    calibrated_settings: ClassVar[tuple[str, ...]] = ("attention_factor",)
    attention_factor: FactorSetting = "released"
    attention_factor_rate: float | int = 0.0
    attention_factor_from: str | None = "start"
    logn_base: int | None = setting(rule="the window; for a log-n attention_factor alone")

    def released_attention_factor(self, geometry: Geometry, length: int) -> AttentionFactor:
        """Return the attention factor that the method's authors run for a prompt."""
        return AttentionFactor()

    @property
    def has_attention_factor(self) -> bool:
        if self.attention_factor == "released":
            # By class and not by value: a released factor may be 1 at some lengths.
            released = type(self).released_attention_factor
            return released is not IndexMethod.released_attention_factor
        return self.attention_factor != "none"

    def attention_factor_of(self, geometry: Geometry, length: int) -> AttentionFactor:
        if self.logn_base is not None and self.logn_base < 2:
            raise BadSetting(f"{self.name}: logn_base={self.logn_base} must be at least 2")
        released = self.released_attention_factor(geometry, length)
        factor = resolve_attention_factor(
            self.attention_factor,
            released,
            window=geometry.window,
            length=length,
            rate=self.attention_factor_rate,
            logn_base=self.logn_base,
        )
        if self.logn_base is not None and factor.logn_base is None:
            raise BadSetting(
                f"{self.name}: logn_base={self.logn_base} has no effect with "
                f"attention_factor={self.attention_factor}; give attention_factor=logn"
            )
        beginning = self.value_of("attention_factor_from", geometry, length)
        if beginning not in FACTOR_BEGINNINGS:
            raise UnknownName("attention_factor_from", beginning, FACTOR_BEGINNINGS)
        acts = beginning == "start" or length > geometry.window
        return factor if acts else AttentionFactor()

    def logn_factor(self, geometry: Geometry) -> AttentionFactor:
        """Return the log-n scale of queries, to the base that is set or else the window."""
        return AttentionFactor(
            logn_base=geometry.window if self.logn_base is None else self.logn_base
        )


def _check_type(method: str, name: str, value: Any, hint: Any) -> None:
    """Raise BadSetting unless a value is of the type that a hyper-parameter is annotated with."""
    # To Python a bool is an int, but nobody who writes head_tokens=yes means 1.
    if isinstance(value, bool) is (hint is bool) and isinstance(value, hint):
        # Written so that it is false for NaN as well.
        if isinstance(value, int | float) and not abs(value) <= LARGEST:
            # A whole number may have more digits than Python converts to text.
            shown = f"{name}={value}" if isinstance(value, float) else name
            raise BadSetting(f"{method}: {shown} must be a finite number of at most 64 bits")
        return
    kinds = [kind.__name__ for kind in get_args(hint) or [hint] if kind is not NoneType]
    raise BadSetting(f"{method}: {name} must be of type {' or '.join(kinds)}, got {value!r}")


def quarter_of_the_window(method: Method, geometry: Geometry, length: int) -> int:
    """Return a quarter of the window, in tokens."""
    return geometry.window // 4


def extension_factor(method: Method, geometry: Geometry, length: int) -> float:
    """Return the length of a prompt in windows of the model, and 1 for a prompt that fits."""
    return max(1.0, length / geometry.window)


def smallest_compression(
    geometry: Geometry, length: int, *, exact: int, share: float = 2 / 3
) -> int:
    """Return the smallest whole compression that keeps a prompt within a share of the window.

    A prompt that fits the window is not compressed.

    Args:
        geometry: of the model.
        length: tokens of the prompt.
        exact: distances below it, in tokens, are not compressed.
        share: of the window.

    Raises:
        BadSetting: where the exact distances alone fill that share.
    """
    if length <= geometry.window:
        return 1
    # The rule of thumb in SelfExtend's README: the largest positions of a window are poorly
    # trained, so stay below one half to two thirds of it.
    compressed_positions = int(share * geometry.window) - exact
    if compressed_positions < 1:
        raise BadSetting(
            f"{exact} exact positions leave no room below {share:.0%} "
            f"of a window of {geometry.window}"
        )
    return math.ceil((length - exact) / compressed_positions)


def require_positive(name: str, **values: float) -> None:
    """Raise BadSetting unless every value is positive and finite.

    Args:
        name: of the method.
        values: hyper-parameters by name.
    """
    for key, value in values.items():
        if not 0 < value < math.inf:
            raise BadSetting(f"{name}: {key}={value} must be positive and finite")


def require_below_window(name: str, window: int, **values: int) -> None:
    """Raise BadSetting unless every value is below the model's window.

    Args:
        name: of the method.
        window: tokens of pretraining.
        values: hyper-parameters in tokens, by name.
    """
    for key, value in values.items():
        if value >= window:
            raise BadSetting(f"{name}: {key}={value} must be below the window of {window} tokens")
