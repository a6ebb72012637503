"""DPRoPE: each pair interpolated or not, by which spreads its angles more as in training.

For every pair, histograms of the angle modulo a full turn: over the window (o), over s windows
with the pair's own frequency, and over s windows with an s-th of it. The pair takes the one whose
histogram x is nearer to o, by the mean over the bins of ``o ln(o / x)``; a tie keeps the own
frequency. Source: arXiv 2410.01490; the authors train after it, and so published no number of a
model that was only extended.
"""

# Names and settings of methods are checked without torch, which takes seconds to import: functions
# that make tensors import it themselves.
from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from lampe.errors import BadSetting
from lampe.geometry import Geometry
from lampe.methods.method import Method, extension_factor, require_positive, setting
from lampe.rope import Rope

if TYPE_CHECKING:
    from torch import Tensor

SMOOTHING = 6.1e-5
"""Count that the release adds to every bin, the smallest normal float16."""
LONGEST = 1 << 24
"""Positions of a histogram at most; more than any prompt has."""
MOST_INTERVALS = 1 << 16
"""Bins of a histogram at most."""


@dataclass(frozen=True, kw_only=True)
class DPRoPE(Method):
    """Frequencies of which some are an s-th of the model's own, in no order.

    Attributes:
        factor: ``s``, the extension.
        intervals: bins of a full turn.
    """

    name: ClassVar[str] = "dprope"
    factor: float | int | None = setting(derive=extension_factor, rule="prompt length over window")
    intervals: int = setting(360, rule="360, as released")

    def rope(self, geometry: Geometry, length: int) -> Rope:
        factor = self.factor
        assert factor is not None
        require_positive(self.name, factor=factor)
        if not 1 <= self.intervals <= MOST_INTERVALS:
            raise BadSetting(
                f"dprope: intervals={self.intervals} must lie between 1 and {MOST_INTERVALS}"
            )
        if not 1 <= factor * geometry.window <= LONGEST:
            raise BadSetting(
                f"dprope: factor={factor:g} times the window of {geometry.window} must lie between "
                f"1 and {LONGEST} positions"
            )
        rope = geometry.rope(length)
        if factor == 1:
            return rope
        return dataclasses.replace(
            rope,
            inv_freq=tuple(
                _nearer(frequency, geometry.window, float(factor), self.intervals)
                for frequency in rope.inv_freq
            ),
        )


@lru_cache(maxsize=4096)
def _nearer(frequency: float, window: int, factor: float, intervals: int) -> float:
    """Return the frequency or its ``factor``-th part, whichever spreads angles as the window does.

    Cached, because it takes milliseconds and every prompt of a length needs it.
    """
    trained = _shares(frequency, window, intervals)
    longer = int(factor * window)
    divergence = {
        changed: (trained * (trained.log() - _shares(changed, longer, intervals).log())).mean()
        for changed in (frequency, frequency / factor)
    }
    # ``min`` takes the first of equals.
    return min(divergence, key=lambda changed: float(divergence[changed]))


def _shares(frequency: float, positions: int, intervals: int) -> Tensor:
    """Return the share of positions whose angle is in each interval of a turn, smoothed."""
    import torch

    # In float32, as released: fast pairs spread evenly over all three histograms, and rounding
    # decides which is nearest. A model that rotates in the opposite direction has a mirrored one.
    angles = torch.arange(positions, dtype=torch.float32) * abs(frequency)
    interval = (angles.fmod_(math.tau) * (intervals / math.tau)).long()
    # An angle just below a full turn may be rounded up to it.
    counts = interval.clamp_(max=intervals - 1).bincount(minlength=intervals)
    return (counts.double() + SMOOTHING) / positions
