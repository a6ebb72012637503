"""An encoding: everything attention needs to know about positions, for one prompt."""

from bisect import bisect_left
from dataclasses import dataclass, replace

from lampe.attention_factor import AttentionFactor
from lampe.positions import IDENTITY_PLAN, PositionPlan
from lampe.rope import Rope

NO_LIMIT = 1 << 31
"""More tokens than any answer has."""


@dataclass(frozen=True)
class Encoding:
    """How fast pairs turn (rope), by which relative position (plan), and how sharp attention is (attention_factor)."""

    rope: Rope
    plan: PositionPlan = IDENTITY_PLAN
    attention_factor: AttentionFactor = AttentionFactor()

    @property
    def effective_attention_factor(self) -> AttentionFactor:
        """The attention_factor that attention really has: the method's, and the rope's own scaling (YaRN's)."""
        return replace(
            self.attention_factor, factor=self.attention_factor.factor * self.rope.scaling
        )

    def largest_position(self, length: int, own: Rope) -> float:
        """Largest relative position of a prompt of ``length`` tokens, as far as the slowest pair turns by it.

        Measured in positions of the model's ``own`` rope, so that a method that slows frequencies and one that maps
        positions compare: a model is outside what it was trained on where this is its window or more.
        """
        turning = [pair for pair, speed in enumerate(own.inv_freq) if speed]
        slowed = self.rope.inv_freq[turning[-1]] / own.inv_freq[turning[-1]] if turning else 0.0
        return self.plan.largest(length) * slowed

    def length_within_window(self, window: int, length: int, own: Rope) -> int:
        """At how many tokens, prompt and answer, the reach comes to ``window``; ``FAR`` where it never does."""
        return length + bisect_left(
            range(length, NO_LIMIT),
            True,
            key=lambda stop: self.largest_position(stop, own) >= window,
        )
