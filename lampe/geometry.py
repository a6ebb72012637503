"""Geometry of a model: the window and the rope, which is all that a method has to know of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lampe.errors import BadSetting, UnsupportedModel
from lampe.rope import LENGTH_DEPENDENT_TYPES, Layout, Rope, rope_from

# Settings are checked without transformers, which takes seconds to import.
if TYPE_CHECKING:
    from transformers import PreTrainedConfig

LARGEST_HEAD_DIM = 2**16
"""More dimensions than a head has; a broken configuration must not take memory for its rope."""


@dataclass(frozen=True)
class Geometry:
    """Window and rope of a model.

    Attributes:
        window: tokens the model was pretrained on, before any extension; methods extend from it.
        head_dim: dimensions of an attention head.
        rotary_dim: how many of them are rotated; all by default.
        rope_parameters: the model's own, as in transformers.
        layout: how rotated dimensions are paired.
        begin: first rotated dimension of a head.
        sense: 1, or -1 for a model that rotates in the opposite direction.
        max_position_embeddings: reference length in tokens of the model's own rope, as in its
            configuration; the window by default. It is a number of its own, because another
            window must not change the frequencies of the unpatched model.
        window_note: sentence on a window that the configuration leaves open; empty otherwise.
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
    max_position_embeddings: int | None = None
    window_note: str = field(default="", compare=False)

    @property
    def dim(self) -> int:
        """Return the rotated dimensions per head."""
        return self.rotary_dim or self.head_dim

    @property
    def theta(self) -> float:
        """Return the base of the model's own frequencies."""
        return float(self.rope_parameters["rope_theta"])

    @property
    def rope_depends_on_length(self) -> bool:
        """Return True where the model's own frequencies depend on the prompt's length."""
        return self.rope_parameters.get("rope_type") in LENGTH_DEPENDENT_TYPES

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
            return self._own_rope(self.rope_parameters, length)
        if self.rope_parameters.get("rope_type") == "proportional":
            raise BadSetting(
                "this model's rope is proportional: it rotates a share of its pairs, "
                "where that of yarn, mrrope or dynamic-ntk would rotate all; "
                "use pi, or a method of positions such as lampe"
            )
        return self._rope({"rope_theta": self.theta, **changes}, length, self.window)

    def scaled_rope_parameters(self, **changes: Any) -> dict[str, Any]:
        """Return rope parameters of another type, for a configuration of this model.

        Args:
            changes: rope parameters as in transformers; they replace all of the model's own but its
                base and the share of a head that is rotated.
        """
        names = ("rope_theta", "partial_rotary_factor")
        parameters = {n: self.rope_parameters[n] for n in names if n in self.rope_parameters}
        return {**parameters, **changes}

    def rope_with_base(self, length: int, theta: float) -> Rope:
        """Return the model's own rope with another base; a scaling that it has (llama3's) stays.

        Args:
            length: tokens of the prompt.
            theta: base of the frequencies.
        """
        return self._own_rope({**self.rope_parameters, "rope_theta": theta}, length)

    def _own_rope(self, parameters: Mapping[str, Any], length: int) -> Rope:
        return self._rope(parameters, length, self.max_position_embeddings or self.window)

    def _rope(self, parameters: Mapping[str, Any], length: int, reference: int) -> Rope:
        rope = rope_from(
            parameters,
            dim=self.dim,
            max_position_embeddings=reference,
            length=length,
            layout=self.layout,
        )
        inv_freq = tuple(self.sense * frequency for frequency in rope.inv_freq)
        return replace(rope, begin=self.begin, inv_freq=inv_freq)


def geometry_of(config: PreTrainedConfig, window: int | None = None) -> Geometry:
    """Return the geometry of a decoder with this configuration.

    Args:
        config: a transformers configuration.
        window: tokens of pretraining; read from the configuration where not given.

    Raises:
        BadSetting: for a window below 1.
        UnsupportedModel: where the configuration describes no rotary positions, or impossible ones.
    """
    if window is not None and window < 1:
        raise BadSetting(f"window={window}: a window has at least one token")
    text = config.get_text_config(decoder=True)
    parameters = ropes_of(config)[0]
    head_dim = _head_dim(text)
    reference = getattr(text, "max_position_embeddings", None)
    if reference is not None:
        reference = int(_positive(text, "max_position_embeddings", reference))
    note = ""
    if window is None:
        window, note = _trained_window(text, parameters)
    share = _positive(text, "partial_rotary_factor", parameters.get("partial_rotary_factor", 1.0))
    rotary_dim = int(head_dim * share)
    if not 2 <= rotary_dim <= head_dim <= LARGEST_HEAD_DIM:
        raise UnsupportedModel(
            f"the configuration of {text.model_type!r} has heads of {head_dim} dimensions, of "
            f"which {rotary_dim} rotate; it must be 2 at least, and {LARGEST_HEAD_DIM} at most"
        )
    return Geometry(
        window=window,
        head_dim=head_dim,
        rotary_dim=rotary_dim,
        rope_parameters=MappingProxyType(parameters),
        max_position_embeddings=reference,
        window_note=note,
    )


def _positive(config: PreTrainedConfig, name: str, value: Any) -> float:
    """Return a number of a configuration.

    Raises:
        UnsupportedModel: unless it is positive and finite.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # A whole number may be too large for a float.
    if not is_number or not 0 < value <= sys.float_info.max:
        raise UnsupportedModel(
            f"the configuration of {config.model_type!r} has {name}={value!r}; it must be a "
            "positive number"
        )
    return float(value)


def _head_dim(config: PreTrainedConfig) -> int:
    """Return the dimensions of a head."""
    # Layers may differ in it. This is a guess then, which the probe of a live model corrects.
    stated = None
    if not getattr(config, "is_heterogeneous", False):
        stated = getattr(config, "head_dim", None)
    if stated:
        return int(_positive(config, "head_dim", stated))
    described = config.to_dict()
    heads = _positive(config, "num_attention_heads", described.get("num_attention_heads", 1))
    size = _positive(config, "hidden_size", described.get("hidden_size"))
    # Not a multiple in some types with latent attention: a guess as well.
    return int(size // heads)


def ropes_of(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """Return the parameters of every rope that a configuration describes, full attention first.

    Raises:
        UnsupportedModel: where the configuration describes none, or an impossible one.
    """
    text = config.get_text_config(decoder=True)
    parameters = getattr(text, "rope_parameters", None) or {}
    if not isinstance(parameters, Mapping):
        raise UnsupportedModel(
            f"the configuration of {text.model_type!r} has rope_parameters={parameters!r}; it must "
            "be a mapping"
        )
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
    for rope in ropes.values():
        _positive(text, "rope_theta", rope["rope_theta"])
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


def _trained_window(config: PreTrainedConfig, parameters: Mapping[str, Any]) -> tuple[int, str]:
    """Return the tokens of pretraining, and a note where the configuration leaves them open."""
    kind = parameters.get("rope_type")
    original = parameters.get("original_max_position_embeddings")
    # A YaRN configuration is an extension: ``max_position_embeddings`` is the extended window, and
    # the one before it has a name.
    if kind == "yarn":
        return int(_positive(config, "original_max_position_embeddings", original)), ""
    window = getattr(config, "max_position_embeddings", None)
    if not window:
        raise UnsupportedModel(
            f"{config.model_type!r} does not say on how many tokens it was trained: give its window"
        )
    described = int(_positive(config, "max_position_embeddings", window))
    one_rope = "rope_theta" in (getattr(config, "rope_parameters", None) or {})
    # Models with other types were trained as they are described, and so are those with one rope for
    # each kind of layer.
    if kind != "linear" or not one_rope:
        return described, ""
    # A checkpoint of linear scaling was trained with it (LongLoRA, Vicuna-16k), and by the
    # convention of transformers such a configuration keeps ``max_position_embeddings`` from before.
    # Not every checkpoint follows it (DeepSeek Coder's names the larger number), hence the note.
    factor = _positive(config, "factor", parameters.get("factor"))
    if original is not None:
        extended = factor * _positive(config, "original_max_position_embeddings", original)
        return max(described, round(extended)), ""
    window = max(described, round(factor * described))
    note = (
        f"{config.model_type!r} is scaled linearly by a factor of {factor:g}: its window is taken "
        f"to be {window} tokens, that factor times its max_position_embeddings of {described}; "
        f"give window={described} if that number counts the factor already"
    )
    return window, note if window != described else ""
