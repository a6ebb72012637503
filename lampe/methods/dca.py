"""Dual chunk attention: exact positions within a chunk, capped query positions beyond (arXiv 2402.17463).

Keys sit at their phase in the chunk, ``j mod s``. Queries sit at ``i mod s`` for their own chunk, at ``min(i mod s + s,
cap)`` for the one before, and at a constant for all earlier ones.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Self

from lampe.attention_factor import AttentionFactor, PerTokenAttentionFactor
from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import IndexMethod, require_positive, value_or
from lampe.positions import PositionMap, PositionPlan, Region, constant

RATE = 0.05
"""Growth of ChunkLlama's attention_factor with the logarithm of the length."""


def chunk_plan(chunk: int, cap: int) -> PositionPlan:
    """Three regions by chunk distance; ``chunk`` tokens each, no query beyond position ``cap``."""
    phase = PositionMap(modulo=chunk)
    after = PositionMap(modulo=chunk, offset=chunk, cap=cap)
    return PositionPlan(
        (
            Region(0, 1, query=phase, key=phase, block=chunk, name="intra"),
            Region(1, 2, query=after, key=phase, block=chunk, name="successive"),
            Region(2, None, query=constant(cap), key=phase, block=chunk, name="inter"),
        )
    )


@dataclass(frozen=True, kw_only=True)
class DCA(IndexMethod):
    """As the paper defines it.

    Args:
        chunk_size: tokens of a chunk, ``s``; three quarters of the window by default.
        cap: largest query position; the window's last by default.
    """

    name: ClassVar[str] = "dca"
    chunk_size: int | None = None
    cap: int | None = None

    def resolved(self, geometry: Geometry, length: int) -> Self:
        chunk = value_or(self.chunk_size, geometry.window * 3 // 4)
        return dataclasses.replace(
            self, chunk_size=chunk, cap=value_or(self.cap, geometry.window - 1)
        )

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        assert self.chunk_size is not None and self.cap is not None
        require_positive(self.name, chunk_size=self.chunk_size)
        if self.cap < self.chunk_size:
            raise BadSetting(f"dca: cap={self.cap} is below chunk_size={self.chunk_size}")
        return chunk_plan(self.chunk_size, self.cap)


@dataclass(frozen=True, kw_only=True)
class ChunkLlama(IndexMethod):
    """As the authors' code runs it (HKUNLP/ChunkLlama): positions stay below three quarters of the window.

    Its released attention_factor is ``0.05 ln(length / window) + 1``; the README says the paper's results did
    not use it. Not reproduced: the code rounds the weights by which a prompt's chunks are merged to bfloat16, which
    moves logits by up to 2e-2 (``tests/golden``).

    Args:
        pretraining_length: tokens; the window by default. Queries are capped at three quarters of it.
        local_window: tokens by which a chunk is shorter than that cap; an eighth of the pretraining length by default.
        variant: "steady" keeps the prompt's attention_factor for the answer; under "reference" the attention_factor goes on
            growing with the answer, while cached keys keep what they were stored with, as released.
    """

    name: ClassVar[str] = "chunkllama"
    pretraining_length: int | None = None
    local_window: int | None = None
    variant: str = "steady"

    def resolved(self, geometry: Geometry, length: int) -> Self:
        trained = value_or(self.pretraining_length, geometry.window)
        local = value_or(self.local_window, trained // 8)
        return dataclasses.replace(self, pretraining_length=trained, local_window=local)

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        assert self.pretraining_length is not None and self.local_window is not None
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
