"""Attention factor: the third part of an encoding, beside rope and position plan.

Multiplying cos and sin of queries and keys by ``c`` multiplies logits by ``c**2``: a larger factor
makes attention sharper. The releases of several methods use one where their papers are silent, and
it moves long-context results as much as the position map does. It is therefore never implied: every
index method takes it as a setting.

| setting | meaning |
|---|---|
| none | c = 1 |
| a number | that c; ``attention_factor_rate`` lets its square grow beyond the window |
| released | what the method's authors run; the default |
| logn | queries times max(1, ln(i + 1) / ln(base)) at index i; the base is ``logn_base`` |
| yarn | c = 0.1 ln(length / window) + 1 beyond the window |

With ``attention_factor_from="window"`` any of them acts beyond the window only, and a prompt
that fits the window is read without a factor. No release does so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lampe.errors import BadSetting
from lampe.rope import yarn_factor

# Settings are checked without torch, which takes seconds to import.
if TYPE_CHECKING:
    from torch import Tensor

FactorSetting = str | float | int
NAMED_FACTORS = ("none", "released", "logn", "yarn")
FACTOR_BEGINNINGS = ("start", "window")
"""Prompts that a factor acts on: all, or those longer than the window."""

STRING_FACTOR = 0.1 * math.log(2) + 1
"""Constant in the releases of STRING and LaMPE, 1.0693, whatever the length."""


@dataclass(frozen=True)
class AttentionFactor:
    """Factor on cos and sin of queries and keys, and optional log-n scale of queries.

    Attributes:
        factor: on cos and sin; logits are multiplied by its square.
        logn_base: base of the log-n scale, in tokens; None for no such scale.
    """

    factor: float = 1.0
    logn_base: int | None = None

    def query_scale(self, index: Tensor) -> Tensor | None:
        """Return the log-n scale of queries at token indices, or None where there is none.

        Args:
            index: token indices, int64, any shape.

        Returns:
            Factors, float32, of the same shape; 1 for indices below ``logn_base``.
        """
        if self.logn_base is None:
            return None
        # One factor per query, so it cannot be a part of the softmax scale.
        return ((index.double() + 1).log() / math.log(self.logn_base)).clamp(min=1).float()

    def per_token_factor(self, index: Tensor) -> Tensor | None:
        """Return a further factor on cos and sin for each token, or None where all are alike.

        Args:
            index: token indices, int64, any shape.

        Returns:
            Factors, float32, of the same shape, to be multiplied with ``factor``.
        """
        return None

    def __str__(self) -> str:
        parts = []
        if self.factor != 1:
            parts.append(f"{self.factor:.4f}")
        if self.logn_base is not None:
            parts.append(f"log-n {self.logn_base}")
        return " ".join(parts) or "none"


@dataclass(frozen=True)
class PerTokenAttentionFactor(AttentionFactor):
    """ChunkLlama's attention factor over a cache of rotated keys.

    Beyond the window the factor is ``1 + rate ln(length / window)``. A generated token gets that of
    the length it arrived at, and keys in the cache keep theirs; ``factor`` is that of the prompt.

    Attributes:
        prompt: tokens of the prompt.
        window: tokens of pretraining.
        rate: growth with the logarithm of the length.
    """

    prompt: int = 0
    window: int = 1
    rate: float = 0.0

    def per_token_factor(self, index: Tensor) -> Tensor | None:
        # All tokens of the prompt have the factor of its whole length, as they are read at once.
        length = (index + 1).clamp(min=max(self.prompt, self.window)).double()
        # Relative to ``factor``, which is applied to every token already.
        return ((1 + self.rate * (length / self.window).log()) / self.factor).float()


def resolve_attention_factor(
    setting: FactorSetting,
    released: AttentionFactor,
    *,
    window: int,
    length: int,
    rate: float = 0.0,
    logn_base: int | None = None,
) -> AttentionFactor:
    """Return the attention factor that a setting means for a prompt.

    Args:
        setting: a number, or one of ``NAMED_FACTORS``.
        released: what "released" stands for.
        window: tokens of pretraining.
        length: tokens of the prompt.
        rate: growth of a number's square beyond the window: ``c**2 + rate ln(length / window)``.
        logn_base: base of "logn", in tokens; the window where it is None.

    Raises:
        BadSetting: for a word that is none of ``NAMED_FACTORS``, a factor that is not positive, or
            a rate without a number.
    """
    if rate:
        return _growing_factor(setting, rate, max(0.0, math.log(length / window)))
    match setting:
        case "none":
            return AttentionFactor()
        case "released":
            return released
        case "logn":
            return AttentionFactor(logn_base=window if logn_base is None else logn_base)
        case "yarn":
            return AttentionFactor(yarn_factor(length / window))
        case int() | float() if 0 < setting < math.inf:
            return AttentionFactor(float(setting))
    raise BadSetting(
        f"attention_factor={setting!r} is neither a positive number "
        f"nor one of: {', '.join(NAMED_FACTORS)}"
    )


def _growing_factor(setting: FactorSetting, rate: float, log_extension: float) -> AttentionFactor:
    """Return ``sqrt(c**2 + rate * log_extension)`` for a setting that is a number ``c``."""
    if isinstance(setting, str):
        raise BadSetting(
            f"attention_factor_rate={rate} grows from a number: "
            "give attention_factor=1.0 or another"
        )
    # The square grows, since that is what multiplies the logits.
    square = setting**2 + rate * log_extension
    if not 0 < square < math.inf:
        raise BadSetting(
            f"attention_factor={setting} with attention_factor_rate={rate} "
            "leaves no positive attention_factor"
        )
    return AttentionFactor(math.sqrt(square))
