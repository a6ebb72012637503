"""Encoding of a prompt: rope, position plan and attention factor together."""

import math
from bisect import bisect_left
from dataclasses import dataclass, replace

from lampe.attention_factor import AttentionFactor
from lampe.positions import IDENTITY_PLAN, PositionPlan
from lampe.rope import Rope

NO_LIMIT = 1 << 31
"""Number of tokens that stands for "any length": more than any prompt with its answer has."""


@dataclass(frozen=True)
class Encoding:
    """Positions of one prompt, with all that attention needs to know about them.

    Attributes:
        rope: frequencies by which pairs of dimensions rotate.
        plan: relative position of every pair of tokens.
        attention_factor: factor on cos and sin, and scale of queries.
    """

    rope: Rope
    plan: PositionPlan = IDENTITY_PLAN
    attention_factor: AttentionFactor = AttentionFactor()

    @property
    def effective_attention_factor(self) -> AttentionFactor:
        """Return the factor that logits feel: the method's times the scaling of the rope (YaRN)."""
        factor = self.attention_factor.factor * self.rope.scaling
        return replace(self.attention_factor, factor=factor)

    @property
    def logit_factor(self) -> float:
        """Return the factor on rotated logits: that of queries times that of keys.

        Rotated queries carry it whole, so that keys need no multiplication.
        """
        return (self.attention_factor.factor * self.rope.scaling) ** 2

    def position_scale(self, model_rope: Rope) -> float:
        """Return the factor by which this encoding's rope slows positions of the model's rope.

        It is measured on the slowest pair that rotates under both ropes and is not clipped.

        Args:
            model_rope: rope of the unpatched model, with the same number of pairs.

        Returns:
            1 where frequencies are the model's own, 1 / s where they are interpolated by s, and 0
            where no pair rotates under both.
        """
        slowest = self._slowest_pair(model_rope, range(len(model_rope.inv_freq)))
        return 0.0 if slowest is None else self._pair_scale(model_rope, slowest)

    def _slowest_pair(self, model_rope: Rope, pairs: range) -> int | None:
        """Return the slowest of some pairs that rotates under both ropes and is not clipped."""
        # A pair of frequency 0 carries no position, and so cannot leave the trained range.
        changed, trained = self.rope.inv_freq, model_rope.inv_freq
        unclipped = pairs[: max(0, len(changed) - self.rope.clipped - pairs.start)]
        rotating = [pair for pair in unclipped if changed[pair] and trained[pair]]
        # The slowest pair is the last to complete a turn: beyond the window it meets angles it was
        # not trained on, while faster pairs have seen every angle.
        return min(rotating, key=lambda pair: abs(trained[pair]), default=None)

    def _pair_scale(self, model_rope: Rope, pair: int) -> float:
        return self.rope.inv_freq[pair] / model_rope.inv_freq[pair]

    def largest_position(self, length: int, model_rope: Rope) -> float:
        """Return the largest relative position of ``length`` tokens, in positions of the model.

        Methods that slow frequencies and methods that map positions become comparable in this unit:
        a model is outside of what it was trained on where the result is its window or more.

        Args:
            length: tokens of prompt and answer.
            model_rope: rope of the unpatched model.
        """
        everywhere = range(len(model_rope.inv_freq))
        slowest = self._slowest_pair(model_rope, everywhere)
        if slowest is None:
            return 0.0
        largest = self._largest_of_pair(slowest, length, model_rope)
        begin = 0
        for stop in self.plan.pair_stops:
            pair = self._slowest_pair(model_rope, everywhere[begin:stop])
            begin = stop
            if pair is not None:
                # A faster pair meets no new angle after a full turn.
                turn = 2 * math.pi / abs(model_rope.inv_freq[pair])
                reach = self._largest_of_pair(pair, length, model_rope)
                largest = max(largest, min(reach, turn))
        return largest

    def _largest_of_pair(self, pair: int, length: int, model_rope: Rope) -> float:
        return self.plan.of_pair(pair).largest(length) * self._pair_scale(model_rope, pair)

    def length_within_window(self, window: int, length: int, model_rope: Rope) -> int:
        """Return the number of tokens, answer included, at which positions leave the window.

        Args:
            window: tokens of pretraining.
            length: tokens of the prompt; the search begins there.
            model_rope: rope of the unpatched model.

        Returns:
            ``NO_LIMIT`` where positions stay inside the window at any length.
        """
        # Positions grow with the length, so a bisection finds the first that leaves the window.
        return length + bisect_left(
            range(length, NO_LIMIT),
            True,
            key=lambda stop: self.largest_position(stop, model_rope) >= window,
        )
