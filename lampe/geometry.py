"""Geometry of a model: the window and the rope, which is all that a method has to know of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedConfig

from lampe.errors import BadSetting, UnsupportedModel
from lampe.rope import Layout, Rope, rope_from


@dataclass(frozen=True)
class Geometry:
    """Window and rope of a model.

    Attributes:
        window: tokens the model was pretrained on, before any extension.
        head_dim: dimensions of an attention head.
        rotary_dim: how many of them are rotated; all by default.
        rope_parameters: the model's own, as in transformers.
        layout: how rotated dimensions are paired.
        begin: first rotated dimension of a head.
        sense: 1, or -1 for a model that rotates in the opposite direction.
    """

    window: int
    head_dim: int = 128
    rotary_dim: int | None = None
    rope_parameters: Mapping[str, Any] = field(
        default_factory=lambda: MappingProxyType({"rope_type": "default", "rope_theta": 10000.0})
    )
    layout: Layout = "half"
    begin: int = 0
    sense: int = 1

    @property
    def dim(self) -> int:
        """Rotated dimensions per head."""
        return self.rotary_dim or self.head_dim

    @property
    def theta(self) -> float:
        """Base of the model's own frequencies."""
        return float(self.rope_parameters["rope_theta"])

    def rope(self, length: int, **changes: Any) -> Rope:
        """Return the model's own rope, or one of another type on the model's base.

        Args:
            length: tokens of the prompt.
            changes: rope parameters as in transformers; where there are any, they replace all of
                the model's own but ``rope_theta``.

        Raises:
            BadSetting: for changes of a proportional rope.
        """
        if not changes:
            return self._rope(self.rope_parameters, length)
        if self.rope_parameters.get("rope_type") == "proportional":
            raise BadSetting(
                "this model's rope is proportional: it rotates a share of its pairs, "
                "where that of yarn or dynamic-ntk would rotate all; "
                "use pi, or a method of positions such as lampe"
            )
        return self._rope({"rope_theta": self.theta, **changes}, length)

    def rope_with_base(self, length: int, theta: float) -> Rope:
        """Return the model's own rope with another base; a scaling that it has (llama3's) stays.

        Args:
            length: tokens of the prompt.
            theta: base of the frequencies.
        """
        return self._rope({**self.rope_parameters, "rope_theta": theta}, length)

    def _rope(self, parameters: Mapping[str, Any], length: int) -> Rope:
        rope = rope_from(
            parameters, dim=self.dim, window=self.window, length=length, layout=self.layout
        )
        inv_freq = tuple(self.sense * frequency for frequency in rope.inv_freq)
        return replace(rope, begin=self.begin, inv_freq=inv_freq)


def geometry_of(config: PreTrainedConfig, window: int | None = None) -> Geometry:
    """Return the geometry of a decoder with this configuration.

    Args:
        config: a transformers configuration.
        window: tokens of pretraining; read from the configuration where not given.

    Raises:
        UnsupportedModel: where the configuration describes no rotary positions.
    """
    text = config.get_text_config(decoder=True)
    parameters = ropes_of(config)[0]
    head_dim = _head_dim(text)
    return Geometry(
        window=window or _trained_window(text, parameters),
        head_dim=head_dim,
        rotary_dim=int(head_dim * parameters.get("partial_rotary_factor", 1.0)),
        rope_parameters=MappingProxyType(parameters),
    )


def _head_dim(config: PreTrainedConfig) -> int:
    """Return the dimensions of a head."""
    # Layers may differ in it. This is a guess then, which the probe of a live model corrects.
    stated = None
    if not getattr(config, "per_layer_config", None):
        stated = getattr(config, "head_dim", None)
    described = config.to_dict()
    return int(stated or described.get("hidden_size", 0) // described.get("num_attention_heads", 1))


def ropes_of(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """Return the parameters of every rope that a configuration describes, full attention first.

    Raises:
        UnsupportedModel: where the configuration describes none.
    """
    text = config.get_text_config(decoder=True)
    parameters = getattr(text, "rope_parameters", None) or {}
    # One rope for all layers, or one for each kind of layer (full and sliding attention).
    by_kind = {"": parameters} if "rope_theta" in parameters else parameters
    ropes = {
        kind: dict(rope)
        for kind, rope in by_kind.items()
        if isinstance(rope, Mapping) and "rope_theta" in rope
    }
    if not ropes:
        raise UnsupportedModel(
            f"the configuration of {text.model_type!r} describes no rope: {_why_no_rope(text)}"
        )
    # Full attention first: ``geometry_of`` takes the first rope, and methods change the layers that
    # see far.
    return [ropes[kind] for kind in sorted(ropes, key=lambda kind: kind != "full_attention")]


def _why_no_rope(config: PreTrainedConfig) -> str:
    """Say what is known of the positions of a model without ``rope_parameters``."""
    described = config.to_dict()
    parts = [described, *(part for part in described.values() if isinstance(part, Mapping))]
    if any(part.get("alibi") is True for part in parts):
        return "it biases logits by distance (ALiBi)"
    return (
        "it has positions of another kind, or none, or rotates in code of its own "
        "(no rope_parameters)"
    )


def _trained_window(config: PreTrainedConfig, parameters: Mapping[str, Any]) -> int:
    """Return the tokens of pretraining."""
    # A YaRN configuration is an extension: ``max_position_embeddings`` is the extended window, and
    # the one before it has a name. Models with other types were trained as they are described.
    if parameters.get("rope_type") == "yarn":
        return int(parameters["original_max_position_embeddings"])
    window = getattr(config, "max_position_embeddings", None)
    if not window:
        raise UnsupportedModel(
            f"{config.model_type!r} does not say on how many tokens it was trained: give its window"
        )
    return int(window)
