"""Methods as users write them: ``lampe``, ``lampe:mapping_length=128``, ``lampe+yarn``."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import lampe
from lampe.methods import ENTRY_POINTS, method_class
from lampe_eval.cards import MethodCard, read_card, shipped_card, shipped_names
from lampe_eval.errors import UserError, unknown_name
from lampe_eval.suite import split_names
from lampe_eval.yaml_files import parse_yaml, shortened, yaml_problem

DEFAULT_REFERENCE = "original"
"""Method that others are compared with unless another is stated."""
FORGOTTEN = "what has left its cache cannot be retrieved"
"""What a reader has to know of a method that does not see all tokens."""

_outside_cards: dict[str, MethodCard] = {}
"""Cards of methods from outside of the package, by name."""


def register_method_card(method: type[lampe.Method]) -> None:
    """Add the card of a method from outside: ``<name>.yaml`` beside its file, or its docstring.

    Raises:
        UserError: for a card that does not fit.
    """
    path = Path(inspect.getfile(method)).with_name(f"{method.name}.yaml")
    card = MethodCard(method=method.name, about=_first_line(method))
    if path.is_file():
        card = read_card(path, MethodCard)
        if card.method != method.name:
            raise UserError(
                f"{path}: the card is for the method {card.method!r}; write method: {method.name}"
            )
    _outside_cards[method.name] = card


def method_names() -> list[str]:
    """Return the names of all methods: shipped, from plug-ins, and from entry points."""
    # Names only: loading an entry point would import its package, and with it torch.
    outside = {*_outside_cards, *entry_points(group=ENTRY_POINTS).names}
    return sorted({*shipped_names("methods"), *outside})


def method_card(name: str) -> MethodCard:
    """Return the card of a method by name.

    Raises:
        UserError: for a method that does not exist, or that cannot be loaded.
    """
    if name in shipped_names("methods"):
        return shipped_card("methods", name, MethodCard)
    if name not in _outside_cards:
        if name not in entry_points(group=ENTRY_POINTS).names:
            raise unknown_name("method", name, method_names(), "lampe-eval list methods")
        try:
            register_method_card(method_class(name))
        except lampe.LampeError as error:
            raise UserError(str(error)) from None
    return _outside_cards[name]


@dataclass(frozen=True)
class MethodSpec:
    """Method as a row of a table.

    Attributes:
        label: the method as the user wrote it.
        name: of the card, or two names joined by ``+`` for a composed method.
        settings: hyper-parameters that the user gave.
    """

    label: str
    name: str
    settings: Mapping[str, Any]

    @property
    def card(self) -> MethodCard:
        """Return the card of the method; for a composed one, the card of its positions.

        Raises:
            UserError: for a method that does not exist.
        """
        return method_card(self.name.partition("+")[0])

    def build(self, defaults: Mapping[str, Mapping[str, Any]]) -> lampe.Method:
        """Return the method with the settings of its card, then the model's, then the user's.

        Settings of a composed method's frequencies have their method's name in front:
        ``yarn.factor``.

        Args:
            defaults: settings on the model's card, by method name.

        Raises:
            UserError: for a method, setting or value that does not exist.
        """
        name, plus, frequencies = self.name.partition("+")
        card = method_card(name)
        full_name, settings = card.method, dict(card.settings)
        if plus:
            other = method_card(frequencies)
            full_name = f"{card.method}+{other.method}"
            settings |= _prefixed(other.method, other.settings)
        settings |= self.settings_of_model(defaults)
        settings |= self.settings
        try:
            return lampe.method_of(full_name, **settings)
        except lampe.LampeError as error:
            raise UserError(
                f"method {self.label!r}: {error}; see: lampe-eval list methods"
            ) from None

    def settings_of_model(self, defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the settings on a model's card that this method takes, by their names in it.

        Args:
            defaults: settings on the model's card, by method name.
        """
        name, plus, frequencies = self.name.partition("+")
        settings = dict(defaults.get(name, {}))
        if plus:
            settings |= _prefixed(method_card(frequencies).method, defaults.get(frequencies, {}))
        return settings

    def with_settings(self, **settings: Any) -> "MethodSpec":
        """Return the same row with further or other settings, labelled as a user would write it."""
        merged = {**self.settings, **settings}
        label, added = self.label, settings
        if settings.keys() & self.settings.keys():
            label, added = self.name, merged  # no setting may stand in a label twice
        written = ",".join(f"{key}={_written(value)}" for key, value in added.items())
        return MethodSpec(f"{label}{',' if ':' in label else ':'}{written}", self.name, merged)


def find_reference(stated: str, labels: Iterable[str]) -> str:
    """Return the label of the method that others are compared with.

    Args:
        stated: the label, or the name of a method that has a single label.
        labels: labels of the run's methods.

    Raises:
        UserError: if no label, or more than one, is meant.
    """
    known = list(labels)
    named = [label for label in known if label.partition(":")[0] == stated]
    if stated in known or len(named) == 1:
        return stated if stated in known else named[0]
    problem = "names several methods" if named else "is no method of the run"
    raise UserError(f"--reference: {stated!r} {problem}; give one of: {', '.join(named or known)}")


def choose_reference(stated: str | None, labels: Sequence[str]) -> str:
    """Return the stated label if there is such a method, else `original`, else the first."""
    if stated is not None and stated in labels:
        return stated
    return DEFAULT_REFERENCE if DEFAULT_REFERENCE in labels else labels[0]


def parse_methods(texts: Iterable[str]) -> list[MethodSpec]:
    """Return the methods of options that may each name several, separated by commas.

    A part that has ``=`` and no ``:`` is a further setting of the method before it.

    Raises:
        UserError: for a setting without a method or a value, or a method given twice.
    """
    specs: list[MethodSpec] = []
    try:
        parts = split_names(list(texts))
    except ValueError as error:
        raise UserError(f"--method: {error}") from None
    for part in parts:
        name, colon, setting = part.partition(":")
        # Commas separate methods as well as settings, so `lampe:a=1,b=2,dca` has two methods.
        if colon or "=" not in part:
            specs.append(MethodSpec(part, name, _setting(setting) if colon else {}))
            continue
        if not specs:
            raise UserError(
                f"--method: setting {part!r} comes before any method; write NAME:{part}"
            )
        before = specs.pop()
        settings = _setting(part)
        for key in settings.keys() & before.settings.keys():
            raise UserError(f"--method: {before.name}: {key} is set twice; set it once")
        settings = {**before.settings, **settings}
        specs.append(MethodSpec(f"{before.label},{part}", before.name, settings))
    labels = [spec.label for spec in specs]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise UserError(f"--method: {', '.join(repeated)} given twice")
    return specs


def _prefixed(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of the frequencies of a composed method, as the whole takes them."""
    return {f"{method}.{key}": value for key, value in settings.items()}


def _first_line(method: type[lampe.Method]) -> str:
    return (inspect.getdoc(method) or "").partition("\n")[0]


def _setting(text: str) -> dict[str, Any]:
    """Return the name and value of ``name=value``, the value read as YAML."""
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UserError(f"--method: {text!r} is not of the form setting=value")
    key = key.strip()
    wrong = f"--method: {shortened(value)!r} is not a value for {key}"
    try:
        setting = parse_yaml(value).value
    except yaml.YAMLError as error:
        raise UserError(f"{wrong}: {yaml_problem(error)}") from None
    if not isinstance(setting, str | int | float | None):
        raise UserError(f"{wrong}: it must be a number or a text")
    return {key: setting}


def _written(value: Any) -> str:
    """Write a value as it stands in labels: a float without an exponent."""
    if value is None:
        return "null"
    return np.format_float_positional(value, trim="0") if isinstance(value, float) else str(value)
