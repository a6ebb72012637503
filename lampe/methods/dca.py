"""Dual chunk attention: exact within a chunk, capped query positions beyond (arXiv 2402.17463).

Keys are at their phase in the chunk, ``j mod s``. Queries are at ``i mod s`` for their own chunk,
at ``min(i mod s + s, cap)`` for the one before, and at ``cap`` for all earlier ones.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from lampe.attention_factor import AttentionFactor, PerTokenAttentionFactor
from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import IndexMethod, require_positive, setting
from lampe.positions import PositionMap, PositionPlan, Region, constant

# That of ``chunkllama_attn_replace.py``; the release's flash-decoding file has 0.1.
RATE = 0.05
"""Growth of ChunkLlama's attention factor with the logarithm of the length."""


def chunk_plan(chunk: int, cap: int) -> PositionPlan:
    """Return three regions by chunk distance.

    Args:
        chunk: tokens of a chunk.
        cap: largest position of a query.
    """
    phase = PositionMap(modulo=chunk)
    # Queries continue where the chunk of their keys ended, as far as the cap allows.
    next_chunk = PositionMap(modulo=chunk, offset=chunk, cap=cap)
    return PositionPlan(
        (
            # Block distances: the query's own chunk, the one before, and all earlier ones.
            Region(0, 1, query=phase, key=phase, block=chunk, name="intra"),
            Region(1, 2, query=next_chunk, key=phase, block=chunk, name="successive"),
            Region(2, None, query=constant(cap), key=phase, block=chunk, name="inter"),
        )
    )


@dataclass(frozen=True, kw_only=True)
class DCA(IndexMethod):
    """Dual chunk attention as the paper defines it.

    Attributes:
        chunk_size: ``s``, tokens of a chunk.
        cap: largest position of a query.
    """

    name: ClassVar[str] = "dca"
    chunk_size: int | None = setting(
        derive=lambda method, geometry, length: geometry.window * 3 // 4,
        rule="three quarters of the window, as released",
    )
    cap: int | None = setting(
        derive=lambda method, geometry, length: geometry.window - 1,
        rule="the last position of the window",
    )

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        assert self.chunk_size is not None and self.cap is not None
        require_positive(self.name, chunk_size=self.chunk_size)
        if self.cap < self.chunk_size:
            raise BadSetting(f"dca: cap={self.cap} is below chunk_size={self.chunk_size}")
        return chunk_plan(self.chunk_size, self.cap)


@dataclass(frozen=True, kw_only=True)
class ChunkLlama(IndexMethod):
    """Dual chunk attention as the authors' code runs it (HKUNLP/ChunkLlama).

    Positions stay below three quarters of the pretraining length. The released attention factor is
    ``0.05 ln(length / window) + 1``; the README says that the paper's results did not use it. One
    thing is not reproduced: the code rounds the weights by which a prompt's chunks are merged to
    bfloat16, which moves logits by up to 2e-2 (``tests/golden``).

    Attributes:
        pretraining_length: tokens; queries are capped at three quarters of it.
        local_window: tokens by which a chunk is shorter than that cap.
        variant: "steady" keeps the prompt's attention factor for the answer. Under "reference" it
            goes on growing with the answer, while cached keys keep what they were stored with, as
            released.
    """

    name: ClassVar[str] = "chunkllama"
    pretraining_length: int | None = setting(
        derive=lambda method, geometry, length: geometry.window, rule="the window"
    )
    local_window: int | None = setting(
        derive=lambda method, geometry, length: (
            # The release has three: P/8 here, P/16 in its flash-decoding file, P/4 for perplexity.
            method.value_of("pretraining_length", geometry, length) // 8
        ),
        rule="an eighth of the window, as released for Llama 2",
    )
    variant: str = "steady"

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        assert self.pretraining_length is not None and self.local_window is not None
        # ``chunk_size`` in the code: it never uses the last quarter, where the paper uses all.
        cap = self.pretraining_length * 3 // 4
        if not 0 < self.local_window < cap:
            raise BadSetting(
                f"chunkllama: local_window={self.local_window} must lie between 0 and {cap}"
            )
        return chunk_plan(cap - self.local_window, cap)

    def released_attention_factor(self, geometry: Geometry, length: int) -> AttentionFactor:
        factor = 1 + RATE * math.log(max(1.0, length / geometry.window))
        match self.variant:
            case "steady":
                return AttentionFactor(factor)
            case "reference":
                return PerTokenAttentionFactor(
                    factor, prompt=length, window=geometry.window, rate=RATE
                )
        raise UnknownName("variant of chunkllama", self.variant, ("steady", "reference"))
