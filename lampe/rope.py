"""Inverse frequencies of rotary positions, from transformers' own functions where it has them.

A model's rope is described as in transformers, by a ``rope_parameters`` mapping (``rope_type``,
``rope_theta``, and what the type needs). Frequency methods return a rope with other parameters;
all other methods keep the model's own.
"""

# Names and settings of methods are checked without torch, which takes seconds to import: functions
# that make tensors import it themselves.
from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from lampe.errors import BadSetting, UnknownName

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Layout = Literal["half", "interleaved"]

POSITIVE_PARAMETERS = (
    *("rope_theta", "factor", "attention_factor", "original_max_position_embeddings"),
    *("low_freq_factor", "high_freq_factor", "beta_slow", "beta_fast"),
    *("short_factor", "long_factor"),
)
"""Rope parameters that are positive numbers, or lists of them, where they are given."""
LENGTH_DEPENDENT_TYPES = ("dynamic", "longrope")
"""Types of transformers whose frequencies depend on the number of tokens."""


@dataclass(frozen=True)
class Rope:
    """Rotation of vectors by position: pair ``p`` turns by the angle ``position * inv_freq[p]``.

    Layout "half" pairs dimensions (p, p + D/2), "interleaved" pairs (2p, 2p + 1), both counted from
    ``begin``. D is twice ``len(inv_freq)``; the other dimensions of a head pass through unrotated.

    Attributes:
        inv_freq: radians per position for each pair, fastest first as a rule; a negative frequency
            rotates in the opposite direction, and a pair of frequency 0 does not rotate.
        scaling: factor on cos and sin (YaRN's attention factor).
        layout: how dimensions are paired.
        begin: first rotated dimension of a head.
        clipped: last pairs that are slowed out of all proportion (CoPE), which say nothing about
            how far positions reach.
    """

    inv_freq: tuple[float, ...]
    scaling: float = 1.0
    layout: Layout = "half"
    begin: int = 0
    clipped: int = 0

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split ``x[..., head_dim]`` into dimensions before, inside and after the rotated range."""
        stop = self.begin + 2 * len(self.inv_freq)
        return x[..., : self.begin], x[..., self.begin : stop], x[..., stop:]

    def angles(self, positions: Tensor, index: Tensor) -> Tensor:
        """Return the angles of tokens in radians.

        Args:
            positions: rotary positions ``[L]``, or ``[L, P]`` where each pair has its own; float64.
            index: token indices ``[L]``, int64; only ``PerTokenRope`` depends on them.

        Returns:
            Angles ``[L, P]``, float64, for P pairs.
        """
        return _with_pairs(positions) * _inv_freq_on(self.inv_freq, positions.device)


def _with_pairs(positions: Tensor) -> Tensor:
    """Return positions ``[L, 1]`` or ``[L, P]``, from ``[L]`` or ``[L, P]``."""
    return positions[:, None] if positions.dim() == 1 else positions


@lru_cache(maxsize=64)
def _inv_freq_on(inv_freq: tuple[float, ...], device: torch.device) -> Tensor:
    """Return the frequencies ``[P]`` (float64) as a tensor on a device.

    Cached, because a copy from the host makes the GPU wait in every call.
    """
    import torch

    # A tensor made inside inference_mode could not be used by a later call that needs gradients.
    with torch.inference_mode(False):
        return torch.tensor(inv_freq, dtype=torch.float64, device=device)


@dataclass(frozen=True)
class PerTokenRope(Rope):
    """Rope of dynamic NTK over a cache of rotated keys.

    Each generated token is rotated with the base of the length it arrived at, and keys in the cache
    keep the base they were stored with. ``inv_freq`` is that of the prompt.

    Attributes:
        prompt: tokens of the prompt.
        window: tokens of pretraining.
        theta: base of the model's own frequencies.
        factor: see ``lampe.methods.ntk.DynamicNTK``.
    """

    prompt: int = 0
    window: int = 0
    theta: float = 0.0
    factor: float = 1.0

    def angles(self, positions: Tensor, index: Tensor) -> Tensor:
        import torch

        dim = 2 * len(self.inv_freq)
        # All tokens of the prompt have the base of its whole length, as they are read at once.
        length = (index + 1).clamp(min=max(self.prompt, self.window)).double()
        # transformers' rule for "dynamic", once per token instead of once per call.
        growth = self.factor * length / self.window - (self.factor - 1)
        base = self.theta * growth ** (dim / (dim - 2))
        exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=index.device) / dim
        # Frequencies that come from a base are positive, so the direction has to be restored.
        direction = math.copysign(1, self.inv_freq[0])
        return direction * _with_pairs(positions) / base[:, None] ** exponent


def rope_from(
    parameters: Mapping[str, Any],
    *,
    dim: int,
    max_position_embeddings: int,
    length: int,
    layout: Layout = "half",
) -> Rope:
    """Return the rope that ``rope_parameters`` describe.

    Args:
        parameters: transformers' rope parameters; all lengths in tokens.
        dim: rotated dimensions per head.
        max_position_embeddings: reference length in tokens, as in a configuration: "dynamic" grows
            from it, and "longrope" takes its attention factor from it.
        length: tokens of the prompt; only "dynamic" and "longrope" depend on it.
        layout: how dimensions are paired.

    Raises:
        UnknownName: for a ``rope_type`` that transformers does not know.
        BadSetting: for parameters that give no frequencies.
    """
    import torch
    from transformers import PreTrainedConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = parameters.get("rope_type", "default")
    theta = float(parameters["rope_theta"])
    if kind == "default":
        # In float32, as transformers computes them; only angles are float64.
        inv_freq = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        return Rope(tuple(inv_freq.double().tolist()), layout=layout)
    if not isinstance(kind, str) or kind not in ROPE_INIT_FUNCTIONS:
        raise UnknownName("rope_type", str(kind), ["default", *ROPE_INIT_FUNCTIONS])
    _check_parameters(parameters)
    flat = dict(parameters)
    if kind != "proportional":
        # ``dim`` already is the rotated part of a head, and transformers would take the share
        # twice. In "proportional" the factor means something else: which share of ``dim`` rotates.
        flat.pop("partial_rotary_factor", None)
    described = {"rope_parameters": flat, "max_position_embeddings": max_position_embeddings}
    described |= {"head_dim": dim, "hidden_size": dim, "num_attention_heads": 1}
    # transformers computes with the parameters as they are, so a wrong type or an impossible value
    # can raise anything.
    try:
        config = PreTrainedConfig.from_dict(described)
        inv_freq, scaling = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)
        rope = Rope(tuple(inv_freq.double().tolist()), float(scaling), layout)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BadSetting(f"no rope has rope_parameters={flat}: {reason}") from None
    if not all(map(math.isfinite, (*rope.inv_freq, rope.scaling))):
        raise BadSetting(f"no rope has rope_parameters={flat}: its frequencies are not finite")
    return rope


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse parameters with which transformers would compute, but no model can be trained.

    Raises:
        BadSetting: for a number that is not positive, or bounds in the wrong order.
    """
    for name in POSITIVE_PARAMETERS:
        value = parameters.get(name)
        numbers = value if isinstance(value, list | tuple) else [value]
        for number in numbers:
            if isinstance(number, int | float) and not 0 < number <= sys.float_info.max:
                raise BadSetting(f"rope_parameters has {name}={value!r}; it must be positive")
    for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
        smaller, larger = parameters.get(low), parameters.get(high)
        # Other types are refused by the computation itself.
        if not (isinstance(smaller, int | float) and isinstance(larger, int | float)):
            continue
        if smaller >= larger:
            raise BadSetting(
                f"rope_parameters has {low}={smaller} and {high}={larger}; "
                "the second one must be larger"
            )


def ntk_theta(theta: float, factor: float, dim: int) -> float:
    """Return the NTK-aware base: it keeps the fastest pair and slows the slowest by ``factor``.

    Args:
        theta: base of the model's own frequencies.
        factor: extension factor.
        dim: rotated dimensions per head.
    """
    # The exponent leaves pair 0 as it is and makes the last pair theta / factor, as in PI.
    return theta * math.pow(factor, dim / (dim - 2))


def yarn_factor(scale: float) -> float:
    """Return YaRN's factor on cos and sin (section 3.4): ``0.1 ln(scale) + 1``, at least 1.

    Args:
        scale: extension factor.
    """
    return 0.1 * math.log(max(1.0, scale)) + 1.0
