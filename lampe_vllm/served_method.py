"""Method that an engine serves, as it stands in the model's configuration (``--hf-overrides``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from lampe.errors import BadSetting
from lampe.methods import Composed, Method, method_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

KEY = "lampe"
"""Key of the configuration under which the method stands."""
RSWA_WINDOW = 1
"""Number of another feature of vLLM's, by which it hands over the length of each prompt."""
FIELDS = ("method", "settings", "window", "force")


@dataclass(frozen=True)
class ServedMethod:
    """Method with its settings.

    Attributes:
        name: the method, as ``lampe.method_of`` takes it.
        settings: its hyper-parameters.
        window: tokens of pretraining; None for what the configuration says.
        force: whether a model of an architecture that was not tried is served.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    window: int | None = None
    force: bool = False

    @classmethod
    def of(cls, config: PreTrainedConfig) -> Self | None:
        """Return the method that a configuration asks for; None where it asks for none.

        Raises:
            BadSetting: for a description with a key that does not exist, or without a method; also
                where the other overrides are there without it.
        """
        described = getattr(config, KEY, None)
        if described is not None:
            return cls.from_mapping(described)
        # No model of vLLM's own has this number. Without a method its rope would end at the window.
        if getattr(config, "rswa_window", None) == RSWA_WINDOW:
            raise BadSetting(
                f"--hf-overrides: has rswa_window without the key {KEY!r}, which names the method"
            )
        return None

    @classmethod
    def from_mapping(cls, described: Any) -> Self:
        """Return the method that a mapping describes.

        Raises:
            BadSetting: for a description with a key that does not exist, or without a method.
        """
        if not isinstance(described, Mapping) or not isinstance(described.get("method"), str):
            raise BadSetting(
                f"--hf-overrides: {KEY}={described!r} must be a mapping with the key 'method'"
            )
        unknown = [key for key in described if key not in FIELDS]
        if unknown:
            raise BadSetting(
                f"--hf-overrides: {KEY} has the key {unknown[0]!r}; it may have: "
                f"{', '.join(FIELDS)}"
            )
        return cls(
            described["method"],
            described.get("settings") or {},
            described.get("window"),
            bool(described.get("force")),
        )

    @classmethod
    def of_method(cls, method: Method, window: int | None = None, force: bool = False) -> Self:
        """Return a method with the settings that differ from its defaults.

        Args:
            method: the method.
            window: tokens of pretraining; None for what the configuration says.
            force: whether a model of an architecture that was not tried is served.
        """
        name = method.name
        if isinstance(method, Composed):
            name = f"{method.positions.name}+{method.frequencies.name}"
        defaults = method_of(name).settings
        changed = {key: value for key, value in method.settings.items() if value != defaults[key]}
        return cls(name, changed, window, force)

    def build(self) -> Method:
        """Return the method.

        Raises:
            UnknownName: for a method or setting that does not exist.
            BadSetting: for a value that the method cannot take.
        """
        return method_of(self.name, **self.settings)

    def to_mapping(self) -> dict[str, Any]:
        """Return the description from which ``from_mapping`` makes the same."""
        described: dict[str, Any] = {"method": self.name, "settings": dict(self.settings)}
        if self.window is not None:
            described["window"] = self.window
        if self.force:
            described["force"] = True
        return described

    def overrides(self, max_length: int) -> dict[str, Any]:
        """Return the value of vLLM's ``--hf-overrides``.

        Args:
            max_length: tokens of prompt and answer at most.
        """
        # ``rswa_window`` makes vLLM hand the length of each prompt to attention. The length is
        # lifted by ``model_max_length``, so that the trained window can still be read.
        return {KEY: self.to_mapping(), "rswa_window": RSWA_WINDOW, "model_max_length": max_length}
