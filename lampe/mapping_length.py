"""LaMPE's scaled sigmoid: the number of positions that a prompt of a given length is mapped onto.

    m(l) = ceiling / (1 + exp(-(slope * l + intercept)))

| paper | here |
|---|---|
| L_max | ceiling |
| a, b | slope, intercept |
| l | length |

The constants in the authors' release give the mapped index of the *last* token (``use_length``
there). Head and tail add their own exact positions to it, so the mapping length that the release
arrives at is larger: see ``effective_mapping_length``.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sigmoid:
    """Length curve of one model family.

    Attributes:
        slope: per token.
        intercept: no unit.
        ceiling: positions.
        window: tokens of the family's pretraining, the unit for carrying the curve to other models.
        short_below: prompts shorter than this many tokens get ``short`` positions instead, a rule
            of the release.
        short: see ``short_below``.
    """

    slope: float
    intercept: float
    ceiling: float
    window: int
    short_below: int = 0
    short: int = 0

    def __call__(self, length: int) -> int:
        """Return the mapping length for ``length`` tokens.

        In published curves it is the mapped index of the last token of the prompt.
        """
        if length < self.short_below:
            return self.short
        exponent = min(-(self.slope * length + self.intercept), 700.0)  # exp(710) is no float
        # Rounded down, as in the release.
        return int(self.ceiling / (1 + math.exp(exponent)))

    def in_units_of(self, window: int) -> "Sigmoid":
        """Return the curve for a model with another window, lengths and positions in proportion.

        Args:
            window: tokens of the other model's pretraining.
        """
        ratio = window / self.window
        return Sigmoid(
            slope=self.slope / ratio,
            intercept=self.intercept,
            ceiling=self.ceiling * ratio,
            window=window,
            short_below=round(self.short_below * ratio),
            short=round(self.short * ratio),
        )


# Fitted ceilings are 0.61 (Llama 2), 0.76 (Llama 3) and 0.63 (3.1) of the window, where the paper
# says about three quarters. The rule for short prompts makes the curves jump at 8192 tokens: Llama
# 3's from 1536 down to 1036.
PUBLISHED_CURVES = {
    "llama2": Sigmoid(
        8.673006440952035e-05, -0.648012322406978, 2489.1055552214357, 4096, 8192, 1536
    ),
    "llama3": Sigmoid(
        1.0493097327094324e-04, -2.466638011138158, 6204.409324666837, 8192, 8192, 1536
    ),
    # Llama 3's slope and intercept, with three quarters of the window as ceiling.
    "mistral": Sigmoid(1.0493097327094324e-04, -2.466638011138158, 24576.0, 32768, 8192, 1536),
    "llama3.1": Sigmoid(4.505261149632588e-05, -2.788576860718702, 82358.52413056031, 131072),
}
"""Curves in the authors' release (scar-on/LaMPE, ``remap_uselen``)."""


def effective_mapping_length(last: int, *, length: int, head_tokens: int, tail_tokens: int) -> int:
    """Return the mapping length that the release arrives at, head and tail kept exact.

    The release maps index ``x`` to ``floor(last * x / (length - 1))`` between the exact ends, which
    makes ``tail + head + id(length - 1 - tail) - id(head)`` positions in all.

    Args:
        last: mapped index of the last token, ``use_length`` in the release.
        length: tokens of the prompt.
        head_tokens: local tokens at exact distances.
        tail_tokens: first tokens of the prompt at unit spacing.
    """
    # Integers throughout: a quotient in float32 may fall below a whole number.
    span = length - 1
    head_end = last * head_tokens // span
    tail_begin = last * (span - tail_tokens) // span
    return tail_tokens + head_tokens + tail_begin - head_end
