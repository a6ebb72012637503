"""Encoding of a prompt: rope, position plan and attention factor together."""

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
        pairs = list(zip(self.rope.inv_freq, model_rope.inv_freq, strict=True))
        pairs = pairs[: len(pairs) - self.rope.clipped]
        # A pair of frequency 0 carries no position, and so cannot leave the trained range.
        rotating = [(changed, trained) for changed, trained in pairs if changed and trained]
        if not rotating:
            return 0.0
        # The slowest pair is the last to complete a turn: beyond the window it meets angles it was
        # not trained on, while faster pairs have seen every angle.
        changed, trained = min(rotating, key=lambda pair: abs(pair[1]))
        return changed / trained

    def largest_position(self, length: int, model_rope: Rope) -> float:
        """Return the largest relative position of ``length`` tokens, in positions of the model.

        Methods that slow frequencies and methods that map positions become comparable in this unit:
        a model is outside of what it was trained on where the result is its window or more.

        Args:
            length: tokens of prompt and answer.
            model_rope: rope of the unpatched model.
        """
        return self.plan.largest(length) * self.position_scale(model_rope)

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
