"""StreamingLLM: the first tokens and a window of recent ones; all others leave (arXiv 2309.17453).

With s sinks and w recent tokens, query i sees key j

    at   d                   where d <= w
    at   min(i, s + w) - j   where j < s and d > w

and no other. The authors' cache (mit-han-lab/streaming-llm) holds unrotated keys, and positions are
indices in it, so the sinks stay right before the recent tokens. After each token it is cut to s + w
keys: a token sees the w before it. This is how ``eval_long_ppl.py`` reads a text, token by token.

``run_streaming_llama.py``, a chat, reads each prompt in one call and cuts the cache only between
prompts: within one long prompt it is plain attention, at distances up to the prompt's length. Here
a prompt is read by the rule above, whatever its length.
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
from lampe.positions import PositionMap, PositionPlan, Region


@dataclass(frozen=True, kw_only=True)
class StreamingLLM(IndexMethod):
    """Method that forgets all but sinks and recent tokens, at positions of its cache.

    Attributes:
        sinks: ``s``, first tokens that stay visible.
        recent: ``w``, tokens that a token sees before itself.
    """

    name: ClassVar[str] = "streaming-llm"
    forgets: ClassVar[bool] = True
    sinks: int = setting(4, rule="4, as in the paper and the authors' chat")
    recent: int | None = setting(
        derive=lambda method, geometry, length: min(2000, geometry.window // 2),
        rule="2000 tokens, as in the authors' chat, but at most half of the window",
    )

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        sinks, recent = self.sinks, self.recent
        assert recent is not None
        require_positive(self.name, sinks=sinks, recent=recent)
        require_below_window(self.name, geometry.window, recent=recent)
        query = PositionMap(cap=sinks + recent)
        return PositionPlan(
            (
                Region(0, recent + 1, name="recent"),
                Region(recent + 1, None, query=query, name="sinks", until=sinks),
            ),
            sparse=True,
        )
