"""Inverse frequencies of rotary positions, from transformers' own functions where it has them.

A model's rope is described as transformers does, by a ``rope_parameters`` mapping (``rope_type``, ``rope_theta``, and
what the type needs). Frequency methods answer with other parameters; everything else keeps the model's own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lampe.errors import UnknownName

Layout = Literal["half", "interleaved"]


@dataclass(frozen=True)
class Rope:
    """How a position turns a vector: pair ``p`` by ``position * inv_freq[p]``, cos and sin times ``scaling``.

    Layout "half" pairs dimensions (p, p + D/2), "interleaved" pairs (2p, 2p + 1), both counted from ``begin``; D is
    twice ``len(inv_freq)``, and the other dimensions of a head pass through unrotated. A negative frequency turns the
    other way.
    """

    inv_freq: tuple[float, ...]
    scaling: float = 1.0
    layout: Layout = "half"
    begin: int = 0

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x[..., D]`` as the dimensions before the rotated ones, those, and the ones after."""
        stop = self.begin + 2 * len(self.inv_freq)
        return x[..., : self.begin], x[..., self.begin : stop], x[..., stop:]

    def angles(self, positions: Tensor, index: Tensor) -> Tensor:
        """Angles ``[L, P]`` (float64) of tokens ``index[L]`` at ``positions[L]``."""
        return positions[:, None] * _inv_freq_on(self.inv_freq, positions.device)


@lru_cache(maxsize=64)
def _inv_freq_on(inv_freq: tuple[float, ...], device: torch.device) -> Tensor:
    """Frequencies ``[P]`` on a device, which a copy from the host would wait for."""
    with torch.inference_mode(False):
        return torch.tensor(inv_freq, dtype=torch.float64, device=device)


@dataclass(frozen=True)
class PerTokenRope(Rope):
    """Dynamic NTK over a cache of rotated keys: a generated token keeps the base of the length it came at.

    ``inv_freq`` is the prompt's; see ``lampe.methods.ntk`` for the other fields.
    """

    prompt: int = 0
    window: int = 0
    theta: float = 0.0
    factor: float = 1.0

    def angles(self, positions: Tensor, index: Tensor) -> Tensor:
        dim = 2 * len(self.inv_freq)
        length = (index + 1).clamp(min=max(self.prompt, self.window)).double()
        base = self.theta * (self.factor * length / self.window - (self.factor - 1)) ** (
            dim / (dim - 2)
        )
        exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=index.device) / dim
        return math.copysign(1, self.inv_freq[0]) * positions[:, None] / base[:, None] ** exponent


def rope_from(
    parameters: Mapping[str, Any], *, dim: int, window: int, length: int, layout: Layout = "half"
) -> Rope:
    """The rope that ``rope_parameters`` describe.

    Args:
        parameters: transformers' rope parameters; all lengths in tokens.
        dim: rotated dimensions per head.
        window: tokens the model was trained on; the reference length of "dynamic".
        length: tokens of the prompt; only "dynamic" and "longrope" depend on it.
        layout: how dimensions are paired.

    Raises:
        UnknownName: for a ``rope_type`` that transformers does not know.
    """
    kind = parameters.get("rope_type", "default")
    theta = float(parameters["rope_theta"])
    if kind == "default":
        inv_freq = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        return Rope(tuple(inv_freq.double().tolist()), layout=layout)
    if kind not in ROPE_INIT_FUNCTIONS:
        raise UnknownName("rope_type", str(kind), ["default", *ROPE_INIT_FUNCTIONS])
    share = "partial_rotary_factor"  # of a head, which is in ``dim`` already; but "proportional" turns a share of dim
    flat = {
        key: value for key, value in parameters.items() if key != share or kind == "proportional"
    }
    described = {"rope_parameters": flat, "max_position_embeddings": window}
    config = PreTrainedConfig.from_dict(
        {**described, "head_dim": dim, "hidden_size": dim, "num_attention_heads": 1}
    )
    inv_freq, scaling = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)
    return Rope(tuple(inv_freq.double().tolist()), float(scaling), layout)


def ntk_theta(theta: float, factor: float, dim: int) -> float:
    """The base that leaves the fastest pair alone and slows the slowest by ``factor`` (NTK-aware scaling)."""
    return theta * math.pow(factor, dim / (dim - 2))


def yarn_factor(scale: float) -> float:
    """YaRN's factor on cos and sin for an extension by ``scale`` (YaRN, section 3.4): ``0.1 ln(scale) + 1``."""
    return 0.1 * math.log(max(1.0, scale)) + 1.0
