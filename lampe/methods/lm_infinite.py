"""LM-Infinite: the first tokens and a local window, farther sinks at one distance (2308.16137).

With n sinks, a local window of w tokens and the limit L, query i sees key j

    at   d                     where d < w
    at   min(L, tokens - 1)    where j < n and d >= w

and no other; ``tokens`` are those of the call, so the minimum matters only in texts that are
shorter than the limit. The authors (Glaciohound/LM-Infinite) call the sinks the global branch of
their lambda-shaped mask. Not reproduced is their option to insert, for the last query, a few keys
of the middle that have the largest logits. Without the mask every key beyond the local window is at
the limit, which is ReRoPE (``rerope`` with ``attention_factor=none``).
"""

from dataclasses import dataclass
from typing import ClassVar

from lampe.geometry import Geometry
from lampe.methods.method import (
    IndexMethod,
    require_below_window,
    require_positive,
    setting,
)
from lampe.positions import PositionPlan, Region, constant


@dataclass(frozen=True, kw_only=True)
class LMInfinite(IndexMethod):
    """Method that forgets all but sinks and a local window, with sinks at a limited distance.

    Attributes:
        sinks: ``n``, first tokens that stay visible; "globals" in the authors' code.
        local: ``w``, tokens that a token sees, itself included.
        limit: ``L``, position of the sinks beyond the local window.
    """

    name: ClassVar[str] = "lm-infinite"
    forgets: ClassVar[bool] = True
    sinks: int = setting(10, rule="10, the least of the authors' 10 to 100")
    local: int | None = setting(
        derive=lambda method, geometry, length: geometry.window - 1,
        rule="the largest below the window; the authors run the window itself, 4096 of Llama 2",
    )
    limit: int | None = setting(
        derive=lambda method, geometry, length: method.value_of("local", geometry, length),
        rule="the local window, as released",
    )

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        assert self.local is not None and self.limit is not None
        require_positive(self.name, sinks=self.sinks, local=self.local, limit=self.limit)
        require_below_window(self.name, geometry.window, local=self.local)
        # Sinks are not rotated, so the query's position is the distance.
        query, key = constant(self._sink_position(length)), constant(0)
        sinks = Region(self.local, None, query=query, key=key, name="sinks", until=self.sinks)
        return PositionPlan((Region(0, self.local, name="local"), sinks), sparse=True)

    def decode_plan(self, geometry: Geometry, length: int, stop: int) -> PositionPlan | None:
        """Return the plan of a generated token, until the text is as long as the limit."""
        method = self.resolved(geometry, length)
        if method._sink_position(length) == method.limit:
            return None
        return method.plan(geometry, stop)

    def _sink_position(self, tokens: int) -> int:
        """Return the position of sinks beyond the local window, in a call over so many tokens."""
        assert self.local is not None and self.limit is not None
        # In a shorter text no sink is beyond the local window, and no position depends on it.
        return min(self.limit, max(tokens - 1, self.local))
