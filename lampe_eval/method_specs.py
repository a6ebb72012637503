"""Methods as a user writes them: ``lampe``, ``lampe:mapping_length=128,attention_factor=logn``, ``lampe+yarn``."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from lampe_eval.cards import MethodCard, shipped_card
from lampe_eval.errors import UserError

if TYPE_CHECKING:
    import lampe


@dataclass(frozen=True)
class MethodSpec:
    """A row of a table: the label as it was written, the card's name and the settings given with it."""

    label: str
    name: str
    settings: Mapping[str, Any]

    @property
    def card(self) -> MethodCard:
        """Its card, of a composed method that of its positions.

        Raises:
            UserError: for a method that does not exist.
        """
        return shipped_card("methods", self.name.partition("+")[0], MethodCard)

    def build(self, defaults: Mapping[str, Mapping[str, Any]]) -> "lampe.Method":
        """The method; settings come from its card, then the model's ``defaults`` for it, then the user.

        Raises:
            UserError: for a method, setting or value that does not exist.
        """
        import lampe  # brings torch along, which names are looked up without

        card, (name, _, rope) = self.card, self.name.partition("+")
        settings = {**card.settings, **defaults.get(name, {}), **self.settings}
        try:
            return lampe.method_of(f"{card.method}+{rope}" if rope else card.method, **settings)
        except lampe.LampeError as error:
            raise UserError(
                f"method {self.label!r}: {error}; see: lampe-eval list methods"
            ) from None

    def with_settings(self, **settings: Any) -> "MethodSpec":
        """The same row with further settings, as a user would write it."""
        written = ",".join(f"{key}={_written(value)}" for key, value in settings.items())
        label = f"{self.label}{',' if ':' in self.label else ':'}{written}"
        return MethodSpec(label, self.name, {**self.settings, **settings})


def parse_methods(texts: Iterable[str]) -> list[MethodSpec]:
    """Methods from options that may each name several, comma-separated.

    A part that has ``=`` and no ``:`` continues the settings of the method before it.

    Raises:
        UserError: for a setting without a method or a value.
    """
    specs: list[MethodSpec] = []
    for part in (part.strip() for text in texts for part in text.split(",")):
        name, colon, setting = part.partition(":")
        if not colon and "=" in part:
            if not specs:
                raise UserError(
                    f"--method: setting {part!r} comes before any method; write NAME:{part}"
                )
            before = specs.pop()
            specs.append(
                MethodSpec(
                    f"{before.label},{part}", before.name, {**before.settings, **_setting(part)}
                )
            )
        elif part:
            specs.append(MethodSpec(part, name, _setting(setting) if colon else {}))
    twice = {spec.label for spec in specs if sum(other.label == spec.label for other in specs) > 1}
    if twice:
        raise UserError(f"--method: {', '.join(sorted(twice))} given twice")
    return specs


def _setting(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UserError(f"--method: {text!r} is not of the form setting=value")
    try:
        return {key.strip(): yaml.safe_load(value)}
    except yaml.YAMLError:
        raise UserError(f"--method: {value!r} is not a value for {key.strip()}") from None


def _written(value: Any) -> str:
    """A value as YAML reads it back: a float without an exponent, which YAML may take for text."""
    return np.format_float_positional(value, trim="0") if isinstance(value, float) else str(value)
