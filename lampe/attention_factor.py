"""Attention attention_factor: the third part of an encoding, beside rope and plan.

Multiplying cos and sin of queries and keys by ``c`` multiplies logits by ``c**2``. The releases of several methods do
so where their papers are silent, and it moves long-context results as much as the position map does. So it is never
implied: every index method takes it as a setting of its own.

| setting | meaning |
|---|---|
| none | c = 1 |
| a number | that c; with ``attention_factor_rate`` its square grows by rate ln(length / window) beyond the window |
| released | what the method's authors run; the default |
| logn | queries times max(1, ln(i + 1) / ln(window)) at index i |
| yarn | c = 0.1 ln(length / window) + 1 beyond the window |
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lampe.errors import BadSetting
from lampe.rope import yarn_factor

FactorSetting = str | float | int
NAMED_FACTORS = ("none", "released", "logn", "yarn")

STRING_FACTOR = 0.1 * math.log(2) + 1
"""1.0693, the constant in the releases of STRING and LaMPE, whatever the length."""


@dataclass(frozen=True)
class AttentionFactor:
    """``factor`` on cos and sin of queries and keys, and an optional log-n scale of queries (base in tokens)."""

    factor: float = 1.0
    logn_base: int | None = None

    def query_scale(self, index: Tensor) -> Tensor | None:
        """Per-query factor (float32) of the log-n scale at token indices (int64); None where there is none."""
        if self.logn_base is None:
            return None
        return (torch.log(index.double() + 1) / math.log(self.logn_base)).clamp(min=1).float()

    def per_token_factor(self, index: Tensor) -> Tensor | None:
        """Factor (float32) on cos and sin of queries and keys at token indices (int64), beside ``factor``; or None."""
        return None

    def __str__(self) -> str:
        parts = [f"{self.factor:.4f}"] * (self.factor != 1) + [f"log-n {self.logn_base}"] * (
            self.logn_base is not None
        )
        return " ".join(parts) or "none"


@dataclass(frozen=True)
class PerTokenAttentionFactor(AttentionFactor):
    """ChunkLlama's attention_factor over a cache of rotated keys: a generated token keeps the factor of its own length.

    The factor is ``1 + rate ln(length / window)`` beyond the window; ``Attention factor.factor`` is the prompt's.

    Args:
        prompt: tokens of the prompt.
        window: tokens of the pretraining.
        rate: no unit.
    """

    prompt: int = 0
    window: int = 1
    rate: float = 0.0

    def per_token_factor(self, index: Tensor) -> Tensor | None:
        length = (index + 1).clamp(min=max(self.prompt, self.window)).double()
        return ((1 + self.rate * torch.log(length / self.window)) / self.factor).float()


def resolve_attention_factor(
    setting: FactorSetting,
    released: AttentionFactor,
    *,
    window: int,
    length: int,
    rate: float = 0.0,
) -> AttentionFactor:
    """The attention_factor that a setting means for a prompt of ``length`` tokens.

    Args:
        rate: growth of a number's square beyond the window: ``c**2 + rate ln(length / window)``.

    Raises:
        BadSetting: for a word that is none of ``CHOICES``, a factor that is not positive, or a rate without a number.
    """
    if rate:
        return _growing(setting, rate, max(0.0, math.log(length / window)))
    match setting:
        case "none":
            return AttentionFactor()
        case "released":
            return released
        case "logn":
            return AttentionFactor(logn_base=window)
        case "yarn":
            return AttentionFactor(yarn_factor(length / window))
        case int() | float() if 0 < setting < math.inf:
            return AttentionFactor(float(setting))
    raise BadSetting(
        f"attention_factor={setting!r} is neither a positive number nor one of: {', '.join(NAMED_FACTORS)}"
    )


def _growing(setting: FactorSetting, rate: float, span: float) -> AttentionFactor:
    """``sqrt(c**2 + rate span)``, a number ``c`` that grows with the logarithm of the prompt's length."""
    if isinstance(setting, str):
        raise BadSetting(
            f"attention_factor_rate={rate} grows from a number: give attention_factor=1.0 or another"
        )
    square = setting**2 + rate * span
    if not 0 < square < math.inf:
        raise BadSetting(
            f"attention_factor={setting} with attention_factor_rate={rate} leaves no positive attention_factor"
        )
    return AttentionFactor(math.sqrt(square))
