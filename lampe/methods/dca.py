"""Dual chunk attention: exact within a chunk, capped query positions beyond (arXiv 2402.17463).

Keys are at their phase in the chunk, ``j mod s``. Queries are at ``i mod s`` for their own chunk,
at ``min(i mod s + s, cap)`` for the one before, and at ``cap`` for all earlier ones.

HKUNLP/ChunkLlama released three files for Llama, with P the pretraining length and w the local
window:

| file | variant | cap | w | attention factor |
|---|---|---|---|---|
| chunkllama_attn_replace.py | reference | 3 P / 4 | P / 8 | 0.05 ln(length / P) + 1 |
| flash_decoding_chunkllama.py | flash-decoding | 3 P / 4 | P / 16 | 0.1 ln(length / P) + 1 |
| vllm/.../dual_chunk_flash_attn.py | vllm | P | P / 8 | 0.1 ln(length / P) + 1 |

The cap is what they call ``chunk_size``, and ``s = cap - w``. All three read a prompt alike, chunk
after chunk: causal attention within the chunk, full attention to the chunk before with queries at
``min(i mod s + s, cap)``, full attention to all earlier chunks with queries at ``cap``, and a merge
of the three by the logarithms of their sums. Keys are rotated once, at ``j mod s``. A generated
token is read as the row of its index, and its own factor follows the length so far.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from lampe.attention_factor import AttentionFactor, PerTokenAttentionFactor
from lampe.errors import BadSetting, UnknownName
from lampe.geometry import Geometry
from lampe.methods.method import IndexMethod, require_positive, setting
from lampe.positions import PositionMap, PositionPlan, Region, constant


@dataclass(frozen=True)
class ChunkLlamaFile:
    """Constants of one of the released files, as shares of the pretraining length.

    Attributes:
        cap: largest position of a query.
        local_window: tokens by which a chunk is shorter than that cap.
        rate: growth of the attention factor with the logarithm of the length.
        drifts: whether the attention factor goes on growing with the answer.
    """

    cap: Fraction = Fraction(3, 4)
    local_window: Fraction = Fraction(1, 8)
    rate: float = 0.05
    drifts: bool = True


CHUNKLLAMA_VARIANTS = {
    "steady": ChunkLlamaFile(drifts=False),
    "reference": ChunkLlamaFile(),
    "flash-decoding": ChunkLlamaFile(local_window=Fraction(1, 16), rate=0.1),
    "vllm": ChunkLlamaFile(cap=Fraction(1), rate=0.1),
}


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

    The README says that the paper's results did not use the released attention factor. One thing is
    not reproduced: the code rounds the weights by which a prompt's chunks are merged to bfloat16,
    which moves logits by up to 2e-2 (``tests/golden``); ``flash_decoding_chunkllama.py`` rounds
    those of generated tokens as well.

    Attributes:
        pretraining_length: tokens; queries are capped at three quarters of it ("vllm": at it).
        local_window: tokens by which a chunk is shorter than that cap.
        variant: "steady" is "reference" with the prompt's attention factor for the answer. Under
            "reference", "flash-decoding" and "vllm", the released files, it goes on growing with
            the answer, while cached keys keep what they were stored with.
    """

    name: ClassVar[str] = "chunkllama"
    pretraining_length: int | None = setting(
        derive=lambda method, geometry, length: geometry.window, rule="the window"
    )
    local_window: int | None = setting(
        derive=lambda method, geometry, length: method._released_local_window(geometry, length),
        rule=(
            "an eighth of the window, as released for Llama 2; "
            "a sixteenth with variant=flash-decoding"
        ),
    )
    variant: str = "steady"

    @property
    def _file(self) -> ChunkLlamaFile:
        if self.variant not in CHUNKLLAMA_VARIANTS:
            raise UnknownName("variant of chunkllama", self.variant, CHUNKLLAMA_VARIANTS)
        return CHUNKLLAMA_VARIANTS[self.variant]

    def _released_local_window(self, geometry: Geometry, length: int) -> int:
        pretraining_length = self.value_of("pretraining_length", geometry, length)
        return int(pretraining_length * self._file.local_window)

    def plan(self, geometry: Geometry, length: int) -> PositionPlan:
        assert self.pretraining_length is not None and self.local_window is not None
        # ``chunk_size`` in the code: most files never use the last quarter, the paper uses all.
        cap = int(self.pretraining_length * self._file.cap)
        if not 0 < self.local_window < cap:
            raise BadSetting(
                f"chunkllama: local_window={self.local_window} must lie between 0 and {cap}"
            )
        return chunk_plan(cap - self.local_window, cap)

    def released_attention_factor(self, geometry: Geometry, length: int) -> AttentionFactor:
        window, rate = geometry.window, self._file.rate
        factor = 1 + rate * math.log(max(1.0, length / window))
        if not self._file.drifts:
            return AttentionFactor(factor)
        return PerTokenAttentionFactor(factor, prompt=length, window=window, rate=rate)
