"""Keys of a cache, each turned as that region needs it in which the next query sees it.

While an answer is generated every key is in one region, and only one key per boundary changes region with each token.
So a step turns those and the new key, and reads all others as they are. A key that changes region is turned by the
difference of its two positions, so that the cache's own keys can be the turned ones, and nothing is kept beside them.

Shapes: B batch, G key heads, K keys, D head dimensions, P rotated pairs, S regions.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lampe.attention.rotation import cos_sin, cos_sin_between, rotate
from lampe.attention.tiling import KeyRange, tile_plan
from lampe.encoding import Encoding
from lampe.positions import PositionMap
from lampe.rope import Rope

CHUNK = 512
"""Keys by which a copy grows."""
KINDS = 63
"""Other encodings and devices whose latest steps are remembered: kinds of layers, rows of a batch."""


class RotatedRun(NamedTuple):
    """The keys ``low..high`` (token indices), rotated to a map's positions."""

    low: int
    high: int
    positions: PositionMap


Runs = tuple[RotatedRun, ...]


class RotationChange(NamedTuple):
    """The keys ``low..high``, to be turned from one map's positions to another's; None is the keys as they came."""

    low: int
    high: int
    old: PositionMap | None
    new: PositionMap | None


@dataclass(frozen=True, eq=False)
class KeyRotations:
    """Keys to turn: token indices ``[n]``, cos and sin ``[n, P]``."""

    index: Tensor
    cos: Tensor
    sin: Tensor

    @classmethod
    def of(
        cls, changes: Iterable[RotationChange], encoding: Encoding, device: torch.device
    ) -> "KeyRotations | None":
        """What changes ask for; None where there are none."""
        index, tables = [], []
        for change in changes:
            index.append(torch.arange(change.low, change.high, device=device))
            tables.append(cos_sin_between(change.old, change.new, encoding, index[-1]))
        return cls(torch.cat(index), *map(torch.cat, zip(*tables, strict=True))) if index else None

    def turn(self, keys: Tensor, rope: Rope) -> None:
        """Turns ``keys[B, G, K, D]`` in place."""
        keys.index_copy_(
            2,
            self.index,
            rotate(keys.index_select(2, self.index), self.cos, self.sin, rope.layout, rope.begin),
        )


class DecodeStep:
    """What the layers of one encoding share in a step of an answer: the query of token ``at`` over all keys.

    Attributes:
        pieces: the run of keys that the query owns in each region.
        cos, sin: of the query in each region, ``[S, 1, 1, 1, 1, P]``.
        heat: the log-n scale of the query, ``[1]``, or None.
        runs: the keys in the rotations they are needed in; None where a key is needed in two.
    """

    def __init__(self, encoding: Encoding, at: int, device: torch.device) -> None:
        self.encoding, self.at, self.device = encoding, at, device
        self.pieces: tuple[KeyRange, ...] = tile_plan(encoding.plan, at, at + 1, 0)[0].pieces
        self.runs = _joined(
            RotatedRun(piece.low, piece.high, piece.region.key) for piece in self.pieces
        )
        token, factor = (
            torch.tensor([at], device=device),
            encoding.effective_attention_factor.factor**2,
        )
        tables = [cos_sin(piece.region.query, encoding, token, factor) for piece in self.pieces]
        self.cos, self.sin = (
            torch.stack(x)[:, None, None, None] for x in zip(*tables, strict=True)
        )
        self.heat = encoding.attention_factor.query_scale(token)
        self._moves: dict[Runs, tuple[KeyRotations | None, Runs]] = {}

    def moves(self, held: Runs) -> tuple[KeyRotations | None, Runs]:
        """What is to be turned where ``held`` is turned already, and what is turned then; once for all layers."""
        if held not in self._moves:
            assert self.runs is not None
            runs = self.runs
            left = [
                RotatedRun(low, high, old)
                for low, high, old, new in _changes(held, runs)
                if old and not new
            ]
            changes = [
                change for change in _changes(held, runs) if change.new and change.old != change.new
            ]
            after = _joined((*runs, *left))
            assert after is not None
            self._moves[held] = KeyRotations.of(changes, self.encoding, self.device), after
        return self._moves[held]


class DecodeSteps:
    """The latest step of each encoding, which all layers of a model share."""

    def __init__(self) -> None:
        self._latest: list[DecodeStep] = []

    def of(self, encoding: Encoding, at: int, device: torch.device) -> DecodeStep:
        """The step of token ``at`` under an encoding."""
        for step in self._latest:
            if step.encoding is encoding and (step.at, step.device) == (at, device):
                return step
        others = [
            step for step in self._latest if step.encoding is not encoding or step.device != device
        ]
        self._latest = [*others[-KINDS:], DecodeStep(encoding, at, device)]
        return self._latest[-1]


@dataclass
class RotatedKeys:
    """The turned keys of one layer of a cache: the cache's own where it gives them away, else a copy.

    Args:
        steps: shared with the other layers.
        own: whether the cache's own keys are turned, in place. In half precision a key is rounded once for each time
            it is turned.
    """

    steps: DecodeSteps = field(default_factory=DecodeSteps)
    own: bool = False
    _encoding: Encoding | None = None
    _runs: Runs = ()
    _copy: Tensor | None = None
    _copied: int = 0

    def forget(self) -> None:
        """Takes no key for turned from now on."""
        self._runs, self._copy, self._copied = (), None, 0

    def restore(self, key: Tensor) -> None:
        """Turns a cache's own keys back to what they were when they came; leaves others alone."""
        if self.own and self._runs:
            assert self._encoding is not None
            back = (
                RotationChange(run.low, min(run.high, key.shape[2]), run.positions, None)
                for run in self._runs
            )
            moves = KeyRotations.of(
                (change for change in back if change.low < change.high), self._encoding, key.device
            )
            if moves:
                moves.turn(key, self._encoding.rope)
        self.forget()

    def update(self, key: Tensor, step: DecodeStep) -> Tensor:
        """``key[B, G, K, D]`` in the rotations that a step needs; what has been turned so is not turned again."""
        if self._encoding is None or not _alike(self._encoding, step.encoding):
            self.restore(key)
            self._encoding = step.encoding
        keys = key if self.own else self._copy_of(key)
        moves, runs = step.moves(self._runs)
        if moves:
            moves.turn(keys, step.encoding.rope)
        self._runs = runs
        return keys

    def _copy_of(self, key: Tensor) -> Tensor:
        """The copy, with the keys that are new."""
        stop, old = key.shape[2], self._copy
        if old is None or old.shape[2] < stop:
            self._copy = key.new_empty(*key.shape[:2], stop + CHUNK, key.shape[3])
            if old is not None:
                self._copy[:, :, : self._copied] = old[:, :, : self._copied]
        assert self._copy is not None
        self._copy[:, :, self._copied : stop] = key[:, :, self._copied :]
        self._copied = stop
        return self._copy


class RotatedKeyRows:
    """The turned keys of one layer: of all its rows together, or where rows are padded, of each by itself.

    Args:
        own: as ``Turned`` has it.
    """

    def __init__(self, steps: DecodeSteps, own: bool = False) -> None:
        self._steps, self._own = steps, own
        self._of: dict[tuple[int, int] | None, RotatedKeys] = {}

    def whole(self, key: Tensor) -> RotatedKeys:
        """Of all rows of ``key[B, G, K, D]``."""
        return self._part(key, None)

    def row(self, key: Tensor, index: int, start: int) -> RotatedKeys:
        """Of the row ``index``, whose tokens begin at the column ``start``."""
        return self._part(key, (index, start))

    def restore(self, key: Tensor) -> None:
        """Turns a cache's own keys back to what they were when they came; leaves others alone."""
        for part, turned in self._of.items():
            turned.restore(key if part is None else key[part[0] : part[0] + 1, :, part[1] :])

    def forget(self) -> None:
        """Takes no key for turned from now on."""
        self._of.clear()

    def _part(self, key: Tensor, part: tuple[int, int] | None) -> RotatedKeys:
        if part not in self._of:
            if any(_overlap(part, other) for other in self._of):
                self.restore(key)
                self.forget()
            self._of[part] = RotatedKeys(self._steps, self._own)
        return self._of[part]


def _overlap(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    """Whether two parts of a layer, all of it or a row from a column on, have keys in common."""
    return one is None or other is None or one[0] == other[0]


def _alike(one: Encoding, other: Encoding) -> bool:
    """Whether two encodings turn a key to a position alike."""
    return (one.rope, one.attention_factor) == (other.rope, other.attention_factor)


def _joined(runs: Iterable[RotatedRun]) -> Runs | None:
    """Runs in the order of their keys, neighbours of one map joined; None where a key is needed in two rotations."""
    joined: list[RotatedRun] = []
    for run in sorted(runs, key=lambda run: run.low):
        last = joined[-1] if joined else None
        if last and last.positions == run.positions and run.low <= last.high:
            joined[-1] = RotatedRun(last.low, max(last.high, run.high), run.positions)
        elif last and run.low < last.high:
            return None
        else:
            joined.append(run)
    return tuple(joined)


def _changes(held: Runs, wanted: Runs) -> Iterator[RotationChange]:
    """All keys of either, by what they are turned to and what they shall be turned to."""
    edges = sorted({edge for run in (*held, *wanted) for edge in (run.low, run.high)})
    for low, high in pairwise(edges):
        old, new = _at(held, low), _at(wanted, low)
        if old or new:
            yield RotationChange(low, high, old, new)


def _at(runs: Runs, key: int) -> PositionMap | None:
    """How a key is turned in runs that are in order; None where it is in none of them."""
    index = bisect_right(runs, key, key=lambda run: run.low) - 1
    return runs[index].positions if index >= 0 and key < runs[index].high else None
