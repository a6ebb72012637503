"""Rotation of queries and keys to positions, which are real numbers.

Shapes: B batch, H heads, L tokens, D head dimensions, P rotated pairs, V position maps.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lampe.attention_factor import AttentionFactor
from lampe.encoding import Encoding
from lampe.positions import PositionMap
from lampe.rope import Layout, Rope

MAX_TABLES = 16
"""Tables to store. A method with a new map for each generated token makes new tables for each."""


def rotate(
    x_BHLD: Tensor, cos_LP: Tensor, sin_LP: Tensor, layout: Layout, begin: int = 0
) -> Tensor:
    """Return ``x`` with pair ``p`` of token ``t`` rotated by the angle at ``[t, p]``.

    The product is computed in the float32 of the tables and rounded once, to the dtype of ``x``.

    Args:
        x_BHLD: queries or keys, with any leading dimensions that broadcast with the tables.
        cos_LP: cosines, times any factor.
        sin_LP: sines, times the same factor.
        layout: how dimensions are paired, see ``lampe.rope.Rope``.
        begin: first rotated dimension. Those before it and those after the pairs stay the same.
    """
    stop = begin + 2 * cos_LP.shape[-1]
    before, rotary, after = x_BHLD[..., :begin], x_BHLD[..., begin:stop], x_BHLD[..., stop:]
    axis = -2 if layout == "half" else -1
    pairs = torch.unflatten(rotary, -1, (2, -1) if layout == "half" else (-1, 2))
    first, second = pairs.unbind(axis)
    # Three operations and no join: for long prompts two to four times as fast as four operations
    # on halves that are joined by ``cat``.
    product = pairs * cos_LP.unsqueeze(axis)
    product.select(axis, 0).addcmul_(second, sin_LP, value=-1)
    product.select(axis, 1).addcmul_(first, sin_LP)
    rotated = product.flatten(-2)
    # An empty part would still cost a copy of the others in ``cat``.
    parts = [part for part in (before, rotated.to(x_BHLD.dtype), after) if part.shape[-1]]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


@dataclass(frozen=True, eq=False)
class Rotation:
    """Rotation of a few vectors in three operations, for decode steps: launches are their cost.

    Long prompts use ``rotate``, which reads and writes less.

    Attributes:
        cos: cosines ``[..., 2P]`` float32 of the rotated dimensions, times any factor.
        sin: sines ``[..., 2P]``, negative for the first dimension of each pair.
        rope: says which dimensions are rotated, and how they are paired.
    """

    cos: Tensor
    sin: Tensor
    rope: Rope

    @classmethod
    def of_pairs(cls, cos: Tensor, sin: Tensor, rope: Rope) -> "Rotation":
        """Return the rotation of pairs by cos and sin ``[..., P]``."""
        axis = -2 if rope.layout == "half" else -1
        cos = torch.stack((cos, cos), axis).flatten(-2)
        return cls(cos, torch.stack((-sin, sin), axis).flatten(-2), rope)

    def __getitem__(self, index: int | slice) -> "Rotation":
        """Return a part of the vectors' rotations."""
        return Rotation(self.cos[index], self.sin[index], self.rope)

    def apply(self, x: Tensor) -> Tensor:
        """Return vectors ``x[..., D]``, which broadcast with the rotation, rotated."""
        if self.cos.shape[-1] == x.shape[-1]:
            return self._rotated(x)
        before, rotary, after = self.rope.split(x)
        return torch.cat((before, self._rotated(rotary), after), dim=-1)

    def _rotated(self, x: Tensor) -> Tensor:
        """Return the rotated dimensions ``x[..., 2P]`` after the rotation."""
        if self.rope.layout == "half":
            partner = x.roll(x.shape[-1] // 2, -1)
        else:
            partner = torch.unflatten(x, -1, (-1, 2)).flip(-1).flatten(-2)
        return (x * self.cos).addcmul_(partner, self.sin).to(x.dtype)


@dataclass
class RotaryTables:
    """Cos and sin at the positions of many maps, shared by the layers and steps of one rope.

    Angles are computed in float64 and rounded to float32 before cos and sin. At whole positions
    transformers computes the same, so original positions give the logits of the unpatched model.
    The attention factor is a part of the tables, so applying it costs nothing.
    """

    _tables: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def rotate_queries(
        self, x: Tensor, positions: PositionMap, encoding: Encoding, start: int
    ) -> Tensor:
        """Return queries ``x[..., L, D]`` of the tokens from ``start`` on, rotated."""
        return self._rotated(x, positions, encoding, start, encoding.logit_factor)

    def rotate_keys(
        self, x: Tensor, positions: PositionMap, encoding: Encoding, start: int
    ) -> Tensor:
        """Return keys ``x[..., L, D]`` of the tokens from ``start`` on, rotated."""
        return self._rotated(x, positions, encoding, start, 1.0)

    def stacked(
        self,
        positions: tuple[PositionMap, ...],
        encoding: Encoding,
        factor: float,
        stop: int,
        device: torch.device,
    ) -> tuple[Tensor, Tensor]:
        """Return cos and sin ``[V, L, P]`` float32 of the tokens from 0 to at least ``stop``.

        Args:
            positions: V maps.
            encoding: rope and attention factor.
            factor: number that multiplies cos and sin.
            stop: token index after the last one needed.
            device: where the tables are.
        """
        key = positions, encoding.rope, encoding.attention_factor, factor, device
        # Taken out and put back, so that the least recently used tables come first in the dict.
        tables = self._tables.pop(key, None)
        if tables is None or tables[0].shape[1] < stop:
            # Growing by a quarter makes extensions rare. Doubling would make the first generated
            # token pay for as many tokens as the prompt has.
            length = stop if tables is None else max(stop, tables[0].shape[1] * 5 // 4)
            # Tables may outlive inference mode, and an inference tensor cannot serve gradients.
            with torch.inference_mode(False):
                index = torch.arange(length, device=device)
                pairs = [cos_sin(each, encoding, index, factor) for each in positions]
                cos = torch.stack([cos for cos, _ in pairs])
                sin = torch.stack([sin for _, sin in pairs])
            tables = cos, sin
        self._tables[key] = tables
        while len(self._tables) > MAX_TABLES:
            del self._tables[next(iter(self._tables))]
        return tables

    def clear(self) -> None:
        """Free all tables; a decode step over stored rotated keys needs none."""
        self._tables.clear()

    def _rotated(
        self, x: Tensor, positions: PositionMap, encoding: Encoding, start: int, factor: float
    ) -> Tensor:
        stop = start + x.shape[-2]
        # Where all tokens have one position and no per-token factor, one row serves all of them.
        if (
            positions.scale == 0
            and type(encoding.rope) is Rope
            and type(encoding.attention_factor) is AttentionFactor
        ):
            start, stop = 0, 1
        cos, sin = self.stacked((positions,), encoding, factor, stop, x.device)
        rope = encoding.rope
        return rotate(x, cos[0, start:stop], sin[0, start:stop], rope.layout, rope.begin)


def cos_sin(
    positions: PositionMap, encoding: Encoding, index: Tensor, factor: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return cos and sin ``[L, P]`` float32 of some tokens at their positions.

    Args:
        positions: map of token indices to positions.
        encoding: rope, and the factor per token if the attention factor has one.
        index: token indices ``[L]``.
        factor: number that multiplies cos and sin.
    """
    # Rounded before cos and sin, as transformers rounds at whole positions.
    cos, sin = _unit_cos_sin(positions, encoding.rope, index, torch.float32)
    per_token = encoding.attention_factor.per_token_factor(index)
    amplitude = factor if per_token is None else factor * per_token[:, None]
    return cos * amplitude, sin * amplitude


def _unit_cos_sin(
    positions: PositionMap, rope: Rope, index: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return cos and sin ``[L, P]`` of tokens, without any factor, from angles of a dtype."""
    position = positions.per_pair(index)
    if not positions.interpolated:
        angle = rope.angles(position, index).to(dtype)
        return angle.cos(), angle.sin()
    below, above = position.floor(), position.ceil()
    share = (position - below)[:, None].to(dtype)
    low, high = (rope.angles(whole, index).to(dtype) for whole in (below, above))
    return torch.lerp(low.cos(), high.cos(), share), torch.lerp(low.sin(), high.sin(), share)


def cos_sin_between(
    old: PositionMap | None, new: PositionMap | None, encoding: Encoding, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Return cos and sin ``[L, P]`` float32 that rotate keys from one map's positions to another's.

    Args:
        old: map by which the keys are rotated now; None for keys that are not rotated, which have
            no factor per token either.
        new: map by which they shall be rotated; None to undo their rotation.
        encoding: rope, and the factor per token if the attention factor has one.
        index: token indices ``[L]`` of the keys.
    """
    # Rotations add, so keys rotated by the old map need only the difference of two angles.
    new_angle, new_amplitude = _angle_and_amplitude(new, encoding, index)
    old_angle, old_amplitude = _angle_and_amplitude(old, encoding, index)
    # Subtracted in float64: angles of late tokens are large, and their difference is often small.
    angle = (new_angle - old_angle).float()
    # Keys carry only a factor per token; the common one is in the tables of queries.
    amplitude = new_amplitude / old_amplitude
    return angle.cos() * amplitude, angle.sin() * amplitude


def _angle_and_amplitude(
    positions: PositionMap | None, encoding: Encoding, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the angles ``[L, P]`` float64 of a map, and what it multiplies keys by.

    The factors are ``[L, 1]`` or ``[L, P]`` float32. None stands for keys that are not rotated.
    """
    rope = encoding.rope
    if positions is None:
        zeros = torch.zeros_like(index, dtype=torch.float64)
        return rope.angles(zeros, index), torch.ones_like(zeros).float()[:, None]
    if positions.interpolated:
        # Between two rotations a pair turns by an angle in between, and becomes a little shorter.
        cos, sin = _unit_cos_sin(positions, rope, index, torch.float64)
        angle, amplitude = torch.atan2(sin, cos), torch.hypot(cos, sin).float()
    else:
        angle = rope.angles(positions.per_pair(index), index)
        amplitude = torch.ones_like(index).float()[:, None]
    per_token = encoding.attention_factor.per_token_factor(index)
    return angle, amplitude if per_token is None else amplitude * per_token[:, None]
