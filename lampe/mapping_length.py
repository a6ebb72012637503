"""LaMPE's scaled sigmoid: how many positions a prompt of a given length is mapped onto.

    m(l) = ceiling / (1 + exp(-(slope * l + intercept)))

| paper | here |
|---|---|
| L_max | ceiling |
| a, b | slope, intercept |
| l | length |

The constants in the authors' release give the mapped index of the *last* token (``use_length`` there); the head and
tail add their own exact positions on top, so the mapping length that their code arrives at is larger: see
``effective``.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sigmoid:
    """A length curve of one model family.

    Args:
        slope: per token.
        intercept: no unit.
        ceiling: positions.
        window: tokens of the family's pretraining, the unit in which the curve can be carried to another model.
        short_below: prompts shorter than this many tokens get ``short`` positions instead (a rule of the release).
        short: see ``short_below``.
    """

    slope: float
    intercept: float
    ceiling: float
    window: int
    short_below: int = 0
    short: int = 0

    def __call__(self, length: int) -> int:
        """Mapped index of the last token of a prompt of ``length`` tokens."""
        if length < self.short_below:
            return self.short
        exponent = min(-(self.slope * length + self.intercept), 700.0)  # exp of more is no float
        return int(self.ceiling / (1 + math.exp(exponent)))

    def in_units_of(self, window: int) -> "Sigmoid":
        """The same curve for a model with another window, all lengths and positions in proportion."""
        ratio = window / self.window
        return Sigmoid(
            slope=self.slope / ratio,
            intercept=self.intercept,
            ceiling=self.ceiling * ratio,
            window=window,
            short_below=round(self.short_below * ratio),
            short=round(self.short * ratio),
        )


PUBLISHED_CURVES = {
    "llama2": Sigmoid(
        8.673006440952035e-05, -0.648012322406978, 2489.1055552214357, 4096, 8192, 1536
    ),
    "llama3": Sigmoid(
        1.0493097327094324e-04, -2.466638011138158, 6204.409324666837, 8192, 8192, 1536
    ),
    "mistral": Sigmoid(1.0493097327094324e-04, -2.466638011138158, 24576.0, 32768, 8192, 1536),
    "llama3.1": Sigmoid(4.505261149632588e-05, -2.788576860718702, 82358.52413056031, 131072),
}
"""The curves in the authors' release (scar-on/LaMPE, ``remap_uselen``)."""


def effective_mapping_length(last: int, *, length: int, head_tokens: int, tail_tokens: int) -> int:
    """Mapping length of a prompt whose last token is mapped to index ``last``, head and tail kept exact.

    The release maps index ``x`` to ``floor(last * x / (length - 1))`` between the exact ends, which makes
    ``tail + head + id(length - 1 - tail) - id(head)`` positions in all.
    """
    span = length - 1
    near = last * head_tokens // span
    far = last * (span - tail_tokens) // span
    return tail_tokens + head_tokens + far - near
