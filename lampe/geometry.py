"""What a method must know of a model, and nothing more."""

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

    Args:
        window: tokens the model was pretrained on, before any extension.
        head_dim: dimensions of an attention head.
        rotary_dim: how many of them are rotated; all by default.
        rope_parameters: the model's own, as in transformers.
        layout: how rotated dimensions are paired.
        begin: the first rotated dimension of a head.
        sense: 1, or -1 for a model whose pairs turn the other way.
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
        """The model's own rope for a prompt of ``length`` tokens; with ``changes``, one built from its base alone."""
        if changes and self.rope_parameters.get("rope_type") == "proportional":
            raise BadSetting(
                "this model's rope is proportional: it turns a share of its pairs, where that of yarn or dynamic-ntk "
                "would turn all; use pi, or a method of positions such as lampe"
            )
        parameters = {"rope_theta": self.theta, **changes} if changes else self.rope_parameters
        return self._rope(parameters, length)

    def retuned(self, length: int, theta: float) -> Rope:
        """The model's own rope with another base; a scaling that it has (llama3's) stays."""
        return self._rope({**self.rope_parameters, "rope_theta": theta}, length)

    def _rope(self, parameters: Mapping[str, Any], length: int) -> Rope:
        rope = rope_from(
            parameters, dim=self.dim, window=self.window, length=length, layout=self.layout
        )
        return replace(
            rope, begin=self.begin, inv_freq=tuple(self.sense * speed for speed in rope.inv_freq)
        )


def geometry_of(config: PreTrainedConfig, window: int | None = None) -> Geometry:
    """Geometry of a decoder with this configuration.

    Args:
        config: a transformers configuration.
        window: tokens of pretraining; read from the configuration where not given.

    Raises:
        UnsupportedModel: where the configuration describes no rotary positions.
    """
    text = config.get_text_config(decoder=True)
    parameters = next(iter(ropes_of(config)))
    head_dim = _head_dim(text)
    return Geometry(
        window=window or _trained_window(text, parameters),
        head_dim=head_dim,
        rotary_dim=int(head_dim * parameters.get("partial_rotary_factor", 1.0)),
        rope_parameters=MappingProxyType(parameters),
    )


def _head_dim(config: PreTrainedConfig) -> int:
    """Dimensions of a head; where layers differ in it, a guess, for the probe of a live model finds out."""
    stated = (
        None if getattr(config, "per_layer_config", None) else getattr(config, "head_dim", None)
    )
    described = config.to_dict()
    return int(stated or described.get("hidden_size", 0) // described.get("num_attention_heads", 1))


def ropes_of(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """The parameters of every rope that a configuration describes, that of full attention first.

    Raises:
        UnsupportedModel: where it describes none.
    """
    text = config.get_text_config(decoder=True)
    parameters = getattr(text, "rope_parameters", None) or {}
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
    return [ropes[kind] for kind in sorted(ropes, key=lambda kind: kind != "full_attention")]


def _why_no_rope(config: PreTrainedConfig) -> str:
    """What is known of a model's positions where its configuration has no ``rope_parameters``."""
    described = config.to_dict()
    parts = [described, *(part for part in described.values() if isinstance(part, Mapping))]
    if any(part.get("alibi") is True for part in parts):
        return "it biases logits by distance (ALiBi)"
    return "it has positions of another kind, or none, or rotates in code of its own (no rope_parameters)"


def _trained_window(config: PreTrainedConfig, parameters: Mapping[str, Any]) -> int:
    """A YaRN configuration is an extension and names the window before it; other types were trained as they stand."""
    if parameters.get("rope_type") == "yarn":
        return int(parameters["original_max_position_embeddings"])
    window = getattr(config, "max_position_embeddings", None)
    if not window:
        raise UnsupportedModel(
            f"{config.model_type!r} does not say on how many tokens it was trained: give its window"
        )
    return int(window)
