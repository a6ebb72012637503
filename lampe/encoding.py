"""An encoding: everything attention needs to know about positions, for one prompt."""

from bisect import bisect_left
from dataclasses import dataclass, replace

from lampe.positions import PLAIN, PositionPlan
from lampe.rope import Rope
from lampe.temperature import Temperature

FAR = 1 << 31
"""More tokens than any answer has."""


@dataclass(frozen=True)
class Encoding:
    """How fast pairs turn (rope), by which relative position (plan), and how sharp attention is (temperature)."""

    rope: Rope
    plan: PositionPlan = PLAIN
    temperature: Temperature = Temperature()

    @property
    def sharpness(self) -> Temperature:
        """The temperature that attention really has: the method's, and the rope's own scaling (YaRN's)."""
        return replace(self.temperature, factor=self.temperature.factor * self.rope.scaling)

    def reach(self, length: int, own: Rope) -> float:
        """Largest relative position of a prompt of ``length`` tokens, as far as the slowest pair turns by it.

        Measured in positions of the model's ``own`` rope, so that a method that slows frequencies and one that maps
        positions compare: a model is outside what it was trained on where this is its window or more.
        """
        turning = [pair for pair, speed in enumerate(own.inv_freq) if speed]
        slowed = self.rope.inv_freq[turning[-1]] / own.inv_freq[turning[-1]] if turning else 0.0
        return self.plan.largest(length) * slowed

    def leaves(self, window: int, length: int, own: Rope) -> int:
        """At how many tokens, prompt and answer, the reach comes to ``window``; ``FAR`` where it never does."""
        return length + bisect_left(
            range(length, FAR), True, key=lambda stop: self.reach(stop, own) >= window
        )
