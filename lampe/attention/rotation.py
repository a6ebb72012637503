"""Rotating queries and keys to real-valued positions.

Shapes: B batch, H heads, L tokens, D head dimensions, P rotated pairs.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lampe.attention_factor import AttentionFactor
from lampe.encoding import Encoding
from lampe.positions import PositionMap
from lampe.rope import Layout, Rope

TABLES = 16
"""Tables kept; a method that maps anew for each token makes one for each."""


def rotate(
    x_BHLD: Tensor, cos_LP: Tensor, sin_LP: Tensor, layout: Layout, begin: int = 0
) -> Tensor:
    """Turns pair ``p`` of token ``t`` by the angle at ``[t, p]``; dimensions before ``begin`` or after the pairs pass.

    The product is taken in the tables' float32 and rounded once, to the dtype of ``x``.
    """
    stop = begin + 2 * cos_LP.shape[-1]
    before, rotated, after = x_BHLD[..., :begin], x_BHLD[..., begin:stop], x_BHLD[..., stop:]
    first, second = (
        rotated.chunk(2, dim=-1) if layout == "half" else (rotated[..., 0::2], rotated[..., 1::2])
    )
    turned = (
        torch.addcmul(first * cos_LP, second, sin_LP, value=-1),
        torch.addcmul(second * cos_LP, first, sin_LP),
    )
    both = (
        torch.cat(turned, dim=-1) if layout == "half" else torch.stack(turned, dim=-1).flatten(-2)
    )
    parts = [part for part in (before, both.to(x_BHLD.dtype), after) if part.shape[-1]]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


@dataclass
class RotaryTables:
    """Cos and sin at the positions of many maps, times what the attention_factor asks, kept between layers and steps.

    Angles are built in float64 and rounded once to float32. At whole positions that is what transformers computes, so
    original positions give the unpatched model's logits. Tables grow by a quarter; the latest ``TABLES`` are kept.
    """

    _tables: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def queries(self, x: Tensor, positions: PositionMap, encoding: Encoding, start: int) -> Tensor:
        """Queries ``x[..., L, D]`` from token ``start`` on, rotated to their positions, as sharp as attention is."""
        return self._rotated(
            x, positions, encoding, start, encoding.effective_attention_factor.factor**2
        )

    def keys(self, x: Tensor, positions: PositionMap, encoding: Encoding, start: int) -> Tensor:
        """Keys ``x[..., L, D]`` from token ``start`` on, rotated to their positions."""
        return self._rotated(x, positions, encoding, start, 1.0)

    def stacked(
        self,
        positions: tuple[PositionMap, ...],
        encoding: Encoding,
        factor: float,
        stop: int,
        device: torch.device,
    ) -> tuple[Tensor, Tensor]:
        """Cos and sin ``[V, L, P]`` by ``V`` maps of all tokens up to ``stop`` and some more, times ``factor``."""
        key = positions, encoding.rope, encoding.attention_factor, factor, device
        known = self._tables.pop(key, None)
        if known is None or known[0].shape[1] < stop:
            length = stop if known is None else max(stop, known[0].shape[1] * 5 // 4)
            with torch.inference_mode(False):  # they may outlive it
                index = torch.arange(length, device=device)
                tables = [cos_sin(each, encoding, index, factor) for each in positions]
                known = (
                    torch.stack([cos for cos, _ in tables]),
                    torch.stack([sin for _, sin in tables]),
                )
        self._tables[key] = known
        while len(self._tables) > TABLES:
            del self._tables[next(iter(self._tables))]
        return known

    def forget(self) -> None:
        """Gives the tables back, as an answer can whose steps have rows of their own."""
        self._tables.clear()

    def _rotated(
        self, x: Tensor, positions: PositionMap, encoding: Encoding, start: int, factor: float
    ) -> Tensor:
        stop = start + x.shape[-2]
        if (
            positions.scale == 0
            and type(encoding.rope) is Rope
            and type(encoding.attention_factor) is AttentionFactor
        ):
            start, stop = 0, 1
        cos, sin = self.stacked((positions,), encoding, factor, stop, x.device)
        return rotate(
            x, cos[0, start:stop], sin[0, start:stop], encoding.rope.layout, encoding.rope.begin
        )


def cos_sin(
    positions: PositionMap, encoding: Encoding, index: Tensor, factor: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Cos and sin ``[L, P]`` float32 of the tokens ``index[L]`` at their positions, times ``factor``."""
    angle = encoding.rope.angles(positions(index), index).float()
    drift = encoding.attention_factor.per_token_factor(index)
    size = factor if drift is None else factor * drift[:, None]
    return angle.cos() * size, angle.sin() * size


def cos_sin_between(
    old: PositionMap | None, new: PositionMap | None, encoding: Encoding, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Cos and sin ``[L, P]`` float32 that turn keys ``index[L]`` from one map's positions to another's.

    None is a key that is not rotated, nor as sharp as ``Attention factor.drift`` makes rotated ones.
    """
    (angle, size), (angle_before, size_before) = (
        _turned(positions, encoding, index) for positions in (new, old)
    )
    turn, change = (angle - angle_before).float(), (size / size_before)[:, None]
    return turn.cos() * change, turn.sin() * change


def _turned(
    positions: PositionMap | None, encoding: Encoding, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Angles ``[L, P]`` float64 of keys at a map's positions, and their size ``[L]`` float32."""
    drift = None if positions is None else encoding.attention_factor.per_token_factor(index)
    at = torch.zeros_like(index, dtype=torch.float64) if positions is None else positions(index)
    return encoding.rope.angles(at, index), torch.ones_like(at).float() if drift is None else drift
