"""Keys of a cache, each rotated as the region needs it in which the next query sees it.

A key must be rotated by the key map of the region that owns the pair of the query and the key. As
the answer grows, the distance from the newest query to a key grows too, so the key crosses from one
region into the next: its stored rotation is then stale. Usually one key per boundary of the plan
crosses it with each generated token. So a decode step rotates those few keys and the new one, and
reads all others as they are stored; only the first step rotates every key of the prompt.

A key that changes region is rotated by the difference of its two positions. The unrotated key is
not needed for that, so a cache may store the rotated keys alone (``RotatedKeys.in_place``) and
rotate them back for whoever wants the originals. In half precision each rotation rounds a key once
more.

A cache may drop keys that no later query sees (``lampe.caches.growing_cache``). They are one run of
tokens, called the gap: keys after it are stored in earlier columns than those of their tokens.

Shapes: B batch, G key heads, R query heads per key head, K keys, D head dimensions, P rotated
pairs, S regions.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lampe.attention.rotation import Rotation, cos_sin, cos_sin_between
from lampe.attention.tiling import KeyRange, QueryTile, tile_plan
from lampe.encoding import Encoding
from lampe.positions import PositionMap, VisibleTokens

COPY_GROWTH_TOKENS = 512
"""Spare keys that a copy gets when it must grow, so that it is not moved for each token."""
MAX_OTHER_STEPS = 63
"""Decode steps to remember besides the newest: one per kind of layer, row of a batch and device."""
ROWS_AHEAD = 256
"""Rows of cos and sin that are made at a time, for the regions of the next tokens together."""
NO_GAP = range(0)
"""Gap of a cache that has dropped no keys."""


def columns_of(start: int, stop: int, gap: range, first: int = 0) -> slice:
    """Return the columns of the keys of a run of tokens, which lies on one side of the gap.

    Args:
        start: token index of the first key.
        stop: token index after the last key.
        gap: tokens whose keys are not stored.
        first: token index of the first key that is stored.
    """
    missing = first + (len(gap) if start >= gap.stop else 0)
    return slice(start - missing, stop - missing)


class RotatedRun(NamedTuple):
    """Contiguous keys that are rotated by the same map.

    Attributes:
        start: token index of the first key.
        stop: token index after the last key.
        positions: the map by which they are rotated.
    """

    start: int
    stop: int
    positions: PositionMap


RotatedRuns = tuple[RotatedRun, ...]
"""Disjoint runs in the order of their keys. Keys in none of them are not rotated."""


class RotationChange(NamedTuple):
    """Contiguous keys to rotate from one map's positions to another's.

    Attributes:
        start: token index of the first key.
        stop: token index after the last key.
        old: map by which they are rotated now; None for keys that are not rotated.
        new: map by which they shall be rotated; None to undo their rotation.
    """

    start: int
    stop: int
    old: PositionMap | None
    new: PositionMap | None


@dataclass(frozen=True, eq=False)
class KeyRotations:
    """Rotations to apply to ``n`` keys.

    Attributes:
        index: columns ``[n]`` of the keys.
        rotation: rotation of each of them.
    """

    index: Tensor
    rotation: Rotation

    @classmethod
    def from_changes(
        cls,
        changes: Iterable[RotationChange],
        tables: "ChangeTables",
        device: torch.device,
        gap: range,
    ) -> "KeyRotations | None":
        """Return the rotations of all changes together, or None where there are no changes."""
        # One list for all changes: a layer then needs one gather and one scatter per step.
        index, cos, sin = [], [], []
        for change in changes:
            rotation = tables.rotation(change)
            stored = columns_of(change.start, change.stop, gap)
            index.append(torch.arange(stored.start, stored.stop, device=device))
            cos.append(rotation.cos)
            sin.append(rotation.sin)
        if not index:
            return None
        return cls(torch.cat(index), Rotation(torch.cat(cos), torch.cat(sin), tables.encoding.rope))

    def rotate_in_place(self, keys: Tensor) -> None:
        """Rotate these keys within ``keys[B, G, K, D]``."""
        rotated = self.rotation.apply(keys.index_select(2, self.index))
        keys.index_copy_(2, self.index, rotated)


class ChangeTables:
    """Rotations of keys from one map's positions to another's, made for several keys at a time.

    One key after another crosses a boundary of a plan, so the keys after it come next.

    Attributes:
        encoding: rope and attention factor.
    """

    def __init__(self, encoding: Encoding, device: torch.device, ahead: int) -> None:
        """Begin without tables.

        Args:
            encoding: rope and attention factor.
            device: where the tables are.
            ahead: keys to make rotations for at a time.
        """
        self.encoding, self._device, self._ahead = encoding, device, ahead
        self._made: dict[tuple[PositionMap | None, PositionMap | None], tuple[int, Rotation]] = {}

    def rotation(self, change: RotationChange) -> Rotation:
        """Return the rotation of each key of a change."""
        maps, count = (change.old, change.new), change.stop - change.start
        start, rotation = self._made.get(maps, (0, None))
        if rotation is None or not start <= change.start <= change.stop <= start + self._ahead:
            start, length = change.start, max(count, self._ahead)
            # Tables may outlive inference mode, and an inference tensor cannot serve gradients.
            with torch.inference_mode(False):
                index = torch.arange(start, start + length, device=self._device)
                cos, sin = cos_sin_between(*maps, self.encoding, index)
                rotation = Rotation.of_pairs(cos, sin, self.encoding.rope)
            # Those of a whole prompt are used once.
            if length == self._ahead:
                self._made[maps] = start, rotation
        return rotation[change.start - start : change.stop - start]


class StepTables:
    """Tables of a run of generated tokens, each region of which begins and ends in one way.

    Attributes:
        tile: the tokens as queries, with their keys.
        changes: rotations of keys that change region.
    """

    # Tables may outlive inference mode, and an inference tensor cannot serve gradients.
    @torch.inference_mode(False)
    def __init__(self, encoding: Encoding, query_token: int, device: torch.device) -> None:
        """Make tables for a token, and for those after it that have the same regions."""
        ahead = max(1, ROWS_AHEAD // len(encoding.plan.regions))
        # From key 0: a step over stored keys holds the prompt from its first token on.
        self.tile: QueryTile = tile_plan(encoding.plan, query_token, query_token + ahead, 0)[0]
        self.changes = ChangeTables(encoding, device, ahead)
        index = torch.arange(self.tile.start, self.tile.stop, device=device)
        tables = [
            cos_sin(keys.region.query, encoding, index, encoding.logit_factor)
            for keys in self.tile.key_ranges
        ]
        # [tokens, S, 1, 1, 1, 1, P], to broadcast with queries [S, B, G, R, 1, D].
        cos, sin = (
            torch.stack(each, dim=1)[:, :, None, None, None, None]
            for each in zip(*tables, strict=True)
        )
        self._rotations = Rotation.of_pairs(cos, sin, encoding.rope)
        self._query_scales = encoding.attention_factor.query_scale(index)

    def query_rotation(self, query_token: int) -> Rotation:
        """Return the rotations of a token's query, ``[S, 1, 1, 1, 1, 2P]``."""
        return self._rotations[query_token - self.tile.start]

    def query_scale(self, query_token: int) -> Tensor | None:
        """Return the log-n scale ``[1]`` of a token's query, or None where there is none."""
        scales, index = self._query_scales, query_token - self.tile.start
        return None if scales is None else scales[index : index + 1]


class DecodeStep:
    """Attention of one generated token under an encoding, as far as all layers share it.

    Attributes:
        encoding: rope, plan and attention factor.
        query_token: token index of the query, which is also that of the last key.
        device: device of the tensors.
        gap: tokens whose keys the cache has dropped; the query owns none of them.
        key_ranges: the keys that the query owns, one range for each of S regions.
        tables: tables of this token and of those after it.
        rotation: rotations of the query in each region, which broadcast with queries
            ``[S, B, G, R, 1, D]``.
        query_scale: log-n scale of the query, ``[1]``, or None.
        rotated_runs: the rotation in which the query needs each key. None where it needs a key in
            two rotations (plans of authors' releases whose regions overlap): one stored key cannot
            serve both.
    """

    def __init__(
        self,
        encoding: Encoding,
        query_token: int,
        device: torch.device,
        gap: range,
        tables: StepTables,
    ) -> None:
        """Find the keys of the query in each region, and rotations of the query."""
        self.encoding, self.query_token = encoding, query_token
        self.device, self.gap, self.tables = device, gap, tables
        self.key_ranges: tuple[KeyRange, ...] = tables.tile.of_query(query_token)
        self.rotated_runs = _joined(
            RotatedRun(keys.start, keys.stop, keys.region.key) for keys in self.key_ranges
        )
        self.rotation = tables.query_rotation(query_token)
        self.query_scale = tables.query_scale(query_token)
        self._rotations: list[tuple[RotatedRuns, KeyRotations | None, RotatedRuns]] = []

    def rotations_from(self, stored: RotatedRuns) -> tuple[KeyRotations | None, RotatedRuns]:
        """Return the rotations that this step needs, and the runs after they are applied.

        Args:
            stored: how a layer's stored keys are rotated.
        """
        # All layers usually store the same runs, so the first layer computes the answer for all.
        # Compared, not hashed: they are usually the same object.
        for known, rotations, after in self._rotations:
            if known == stored:
                return rotations, after
        rotations, after = self._find_rotations(stored)
        self._rotations.append((stored, rotations, after))
        return rotations, after

    def _find_rotations(self, stored: RotatedRuns) -> tuple[KeyRotations | None, RotatedRuns]:
        """Return what ``rotations_from`` returns, which remembers it."""
        assert self.rotated_runs is not None
        needed, unused = [], []
        for change in _changes(stored, self.rotated_runs):
            if change.new is None:
                # This query does not see the key, for instance in a layer with a local window.
                # It stays as it is, and the runs must go on to say how it is rotated.
                assert change.old is not None
                unused.append(RotatedRun(change.start, change.stop, change.old))
            elif change.old != change.new:
                needed.append(change)
        after = _joined((*self.rotated_runs, *unused))
        assert after is not None
        changes = self.tables.changes
        return KeyRotations.from_changes(needed, changes, self.device, self.gap), after


class DecodeSteps:
    """Newest decode step of each encoding and device, shared by all layers of a model."""

    def __init__(self) -> None:
        """Begin without steps."""
        self._newest: list[DecodeStep] = []

    def get(
        self, encoding: Encoding, query_token: int, device: torch.device, gap: range = NO_GAP
    ) -> DecodeStep:
        """Return the decode step of a token under an encoding, the same object for all layers.

        Args:
            encoding: compared by identity: all layers of a kind share one object.
            query_token: token index of the query.
            device: device of the step's tensors.
            gap: tokens whose keys the cache has dropped.
        """
        # Shared, because launches are what a step costs: with a store per region and tables per
        # token it took 1.5 to 3.4 times plain attention at 4096 tokens, computed once for all
        # layers 1.43.
        others: list[DecodeStep] = []
        tables: StepTables | None = None
        for step in self._newest:
            if step.encoding is not encoding or step.device != device:
                others.append(step)
            elif (step.query_token, step.gap) == (query_token, gap):
                return step
            else:
                tables = step.tables
        if tables is None or not tables.tile.start <= query_token < tables.tile.stop:
            tables = StepTables(encoding, query_token, device)
        step = DecodeStep(encoding, query_token, device, gap, tables)
        # Bounded, since encodings of earlier prompts would otherwise stay for the cache's lifetime.
        self._newest = [*others[-MAX_OTHER_STEPS:], step]
        return step


@dataclass
class RotatedKeys:
    """Rotated keys of one layer: those of the cache itself, or a copy of them.

    Attributes:
        steps: shared with the other layers.
        in_place: whether the cache's own keys are rotated, which needs no memory for a copy. Keys
            after ``restore`` then differ from the original keys by the rounding of their dtype.
        gap: tokens whose keys the cache has dropped.
    """

    steps: DecodeSteps = field(default_factory=DecodeSteps)
    in_place: bool = False
    gap: range = NO_GAP
    _encoding: Encoding | None = None
    _runs: RotatedRuns = ()
    _copy: Tensor | None = None
    _copied: int = 0

    def invalidate(self) -> None:
        """Treat all keys as not rotated from now on, and free the copy."""
        self._runs, self._copy, self._copied = (), None, 0

    def drop(self, gap: range) -> None:
        """Record that the cache has dropped the keys of these tokens."""
        runs: list[RotatedRun] = []
        for run in self._runs:
            before = run._replace(stop=min(run.stop, gap.start))
            after = run._replace(start=max(run.start, gap.stop))
            runs += [part for part in (before, after) if part.start < part.stop]
        self._runs, self.gap = tuple(runs), gap

    @property
    def rotated_in_place(self) -> bool:
        """Return whether any of the cache's own keys are rotated."""
        return self.in_place and bool(self._runs)

    def restore(self, key: Tensor) -> None:
        """Undo the rotation of a cache's own keys ``[B, G, K, D]``; a copy is freed instead."""
        if self.rotated_in_place:
            assert self._encoding is not None
            changes = []
            for run in self._runs:
                # A cropped cache has fewer keys than were rotated.
                stop = min(run.stop, key.shape[2] + len(self.gap))
                if run.start < stop:
                    changes.append(RotationChange(run.start, stop, run.positions, None))
            tables = ChangeTables(self._encoding, key.device, ahead=1)
            rotations = KeyRotations.from_changes(changes, tables, key.device, self.gap)
            if rotations is not None:
                rotations.rotate_in_place(key)
        self.invalidate()

    def update(self, key: Tensor, step: DecodeStep) -> Tensor:
        """Return keys ``[B, G, at least K, D]`` in the rotations that a decode step needs.

        Args:
            key: ``[B, G, K, D]``, all keys of the layer, the new one not rotated.
            step: the decode step; only keys whose stored rotation is stale are rotated.
        """
        # A difference of positions is a rotation only under one rope. Under another one the keys
        # have to be unrotated first.
        if self._encoding is None or not _same_rotations(self._encoding, step.encoding):
            self.restore(key)
            self._encoding = step.encoding
        # Rotating all keys in each step instead took 3 to 5 times plain attention.
        keys = key if self.in_place else self._extended_copy(key)
        rotations, runs = step.rotations_from(self._runs)
        if rotations is not None:
            rotations.rotate_in_place(keys)
        # Recorded last: if the rotation raises, the runs still say what the keys are.
        self._runs = runs
        return keys

    def _extended_copy(self, key: Tensor) -> Tensor:
        """Return the copy with the keys that it does not have yet, not rotated."""
        length = key.shape[2]
        copy = self._copy
        if copy is None or copy.shape[2] < length:
            copy = key.new_empty(*key.shape[:2], length + COPY_GROWTH_TOKENS, key.shape[3])
            if self._copy is not None:
                copy[:, :, : self._copied] = self._copy[:, :, : self._copied]
            self._copy = copy
        # Only the new keys: those before them are rotated already in the copy.
        copy[:, :, self._copied : length] = key[:, :, self._copied :]
        self._copied = length
        return copy


RowStart = tuple[int, int]
"""A row of a batch: its index, and the column of its first token."""


class RotatedKeyRows:
    """Rotated keys of one layer: of all rows together, or of each row alone where rows are padded.

    Rows of different lengths are at different tokens, so their keys change region at different
    columns and need ``RotatedKeys`` of their own.

    Attributes:
        gap: columns of the batch that the cache has dropped, the same for all rows.
        visible: what later calls see of the cache, in columns of the batch, as the plans of the
            latest call say; None where they may see everything.
    """

    def __init__(self, steps: DecodeSteps, in_place: bool = False) -> None:
        """Begin without rotated keys.

        Args:
            steps: shared with the other layers.
            in_place: whether the cache's own keys are rotated, see ``RotatedKeys``.
        """
        self._steps, self._in_place = steps, in_place
        self._parts: dict[RowStart | None, RotatedKeys] = {}
        self.gap = NO_GAP
        self.visible: VisibleTokens | None = None

    def all_rows(self, key: Tensor) -> RotatedKeys:
        """Return the rotated keys of all rows together.

        Args:
            key: ``[B, G, K, D]``, the cache's keys.
        """
        return self._part(key, None)

    def single_row(self, key: Tensor, index: int, start: int) -> RotatedKeys:
        """Return the rotated keys of one row.

        Args:
            key: ``[B, G, K, D]``, the cache's keys.
            index: the row.
            start: column of the row's first token.
        """
        return self._part(key, (index, start))

    def restore(self, key: Tensor) -> None:
        """Undo all rotations of a cache's own keys ``[B, G, K, D]``; copies are freed instead."""
        for row, rotated_keys in self._parts.items():
            if row is None:
                rotated_keys.restore(key)
            else:
                index, start = row
                rotated_keys.restore(key[index : index + 1, :, start:])

    def invalidate(self) -> None:
        """Treat all keys as not rotated from now on, and free all copies."""
        self._parts.clear()

    def drop(self, gap: range) -> None:
        """Record that the cache has dropped these columns."""
        self.gap = gap
        for row, rotated_keys in self._parts.items():
            rotated_keys.drop(_gap_of_row(gap, row))

    def _part(self, key: Tensor, row: RowStart | None) -> RotatedKeys:
        """Return the rotated keys of a row, or of all rows for None."""
        if row not in self._parts:
            # Two parts with keys in common would each rotate them.
            if any(_overlap(row, other) for other in self._parts):
                self.restore(key)
                self.invalidate()
            self._parts[row] = RotatedKeys(self._steps, self._in_place, _gap_of_row(self.gap, row))
        return self._parts[row]


def _gap_of_row(gap: range, row: RowStart | None) -> range:
    """Return dropped columns as tokens of a row, or of all rows for None."""
    if row is None or not gap:
        return gap
    return range(gap.start - row[1], gap.stop - row[1])


def _overlap(a: RowStart | None, b: RowStart | None) -> bool:
    """Return whether two parts of a layer have keys in common; None is the whole layer."""
    return a is None or b is None or a[0] == b[0]


def _same_rotations(a: Encoding, b: Encoding) -> bool:
    """Return whether two encodings rotate a key to a position in the same way; plans may differ."""
    # Releases with a plan for each generated token have a new encoding at every step, and their
    # stored keys must not all be rotated again each time.
    return (a.rope, a.attention_factor) == (b.rope, b.attention_factor)


def _joined(runs: Iterable[RotatedRun]) -> RotatedRuns | None:
    """Return runs in order, neighbors with the same map joined.

    The result is None where two runs with different maps have keys in common.
    """
    joined: list[RotatedRun] = []
    for run in sorted(runs, key=lambda run: run.start):
        last = joined[-1] if joined else None
        if last and last.positions == run.positions and run.start <= last.stop:
            joined[-1] = RotatedRun(last.start, max(last.stop, run.stop), run.positions)
        elif last and run.start < last.stop:
            return None
        else:
            joined.append(run)
    return tuple(joined)


def _changes(stored: RotatedRuns, needed: RotatedRuns) -> Iterator[RotationChange]:
    """Yield the keys of either in order, with the map that they have and the map that they need."""
    # Between two neighbouring edges no run begins or ends, so one key stands for the stretch.
    edges = set()
    for run in (*stored, *needed):
        edges |= {run.start, run.stop}
    for start, stop in pairwise(sorted(edges)):
        old, new = _map_at(stored, start), _map_at(needed, start)
        if old is not None or new is not None:
            yield RotationChange(start, stop, old, new)


def _map_at(runs: RotatedRuns, token: int) -> PositionMap | None:
    """Return the map by which a key is rotated, or None where it is in none of the runs."""
    index = bisect_right(runs, token, key=lambda run: run.start) - 1
    if index >= 0 and token < runs[index].stop:
        return runs[index].positions
    return None
