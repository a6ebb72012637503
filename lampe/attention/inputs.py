"""Inputs of an attention backend: queries, keys and values of one layer under an encoding.

Shapes: B batch, H query heads, G key heads, R query heads per key head, Q queries, K keys,
D head dimensions.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from lampe.attention.logit_options import PLAIN_LOGITS, LogitOptions
from lampe.attention.rotated_keys import NO_GAP, DecodeStep, RotatedKeys, columns_of
from lampe.attention.rotation import RotaryTables
from lampe.encoding import Encoding


@dataclass(frozen=True, eq=False)
class AttentionInputs:
    """Queries, keys and values of one layer, and how they attend.

    Query heads are grouped: ``R = H // G`` consecutive query heads share one key head. Token
    indices count from the start of the prompt.

    Attributes:
        query: ``[B, H, Q, D]``, not rotated.
        key: ``[B, G, K, D]``, not rotated unless ``key_is_rotated``. Every backend receives keys
            that are not rotated, except for a ``decode_step`` of a backend that reads
            ``rotated_keys``: ``BackendDispatcher`` restores the keys for all others.
        value: ``[B, G, K, D]``; its head dimension may differ from that of the keys.
        encoding: rope, plan and attention factor.
        scale: factor on the logits before the softmax.
        start: token index of the first query. The last query and the last key are the same token.
        first: token index of the first key. No query sees an earlier one.
        logits: soft cap and sinks of the layer.
        tables: cos and sin, shared by the calls that have the same rope.
        rotated_keys: the keys as earlier decode steps rotated them; None where nobody stores them.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    encoding: Encoding
    scale: float
    start: int = 0
    first: int = 0
    logits: LogitOptions = PLAIN_LOGITS
    tables: RotaryTables = field(default_factory=RotaryTables)
    rotated_keys: RotatedKeys | None = None

    @property
    def stop(self) -> int:
        """Return the token index after the last query."""
        return self.start + self.query.shape[2]

    @property
    def gap(self) -> range:
        """Return the tokens whose keys the cache has dropped; no query sees them."""
        return NO_GAP if self.rotated_keys is None else self.rotated_keys.gap

    @cached_property
    def key_tokens(self) -> Tensor:
        """Return the token index ``[K]`` of each key."""
        index = torch.arange(self.first, self.first + self.key.shape[2], device=self.key.device)
        return index + len(self.gap) * (index >= self.gap.start) if self.gap else index

    def key_columns(self, start: int, stop: int) -> slice:
        """Return the columns of the keys from token ``start`` to ``stop``, which it leaves out."""
        return columns_of(start, stop, self.gap, self.first)

    @property
    def key_is_rotated(self) -> bool:
        """Return whether earlier decode steps rotated any of ``key`` in place."""
        return self.rotated_keys is not None and self.rotated_keys.rotated_in_place

    @cached_property
    def decode_step(self) -> DecodeStep | None:
        """Return the decode step that can run over stored rotated keys, or None.

        Such a step has one query that sees all keys from the first token on, each key in one
        rotation.
        """
        if self.rotated_keys is None or self.query.shape[2] != 1:
            return None
        # Keys are stored from token 0 on, and carry no gradient.
        if self.first or self.key.requires_grad:
            return None
        if self.start < self.encoding.plan.begin:
            return None
        step = self.rotated_keys.steps.get(
            self.encoding, self.start, self.query.device, self.rotated_keys.gap
        )
        return None if step.rotated_runs is None else step

    def runs(self) -> "list[AttentionInputs]":
        """Return the queries in runs, for each of which the regions of one plan hold."""
        plan = self.encoding.plan
        if self.start >= plan.begin:
            return [self]
        return [
            replace(
                self,
                query=self.query[:, :, start - self.start : stop - self.start],
                key=self.key[:, :, : stop - self.first],
                value=self.value[:, :, : stop - self.first],
                encoding=replace(self.encoding, plan=run_plan),
                start=start,
                rotated_keys=None,
            )
            for start, stop, run_plan in plan.runs(self.start, self.stop)
        ]

    def grouped_query(self) -> Tensor:
        """Return the queries ``[B, G, R, Q, D]``, multiplied by their log-n scale if they have one.

        The product is rounded to the dtype of the queries.
        """
        query = torch.unflatten(self.query, 1, (self.key.shape[1], -1))
        if self.encoding.attention_factor.logn_base is None:
            return query
        index = torch.arange(self.start, self.stop, device=query.device)
        query_scale = self.encoding.attention_factor.query_scale(index)
        assert query_scale is not None
        # The scale is float32 and would promote queries of half precision.
        return (query * query_scale[:, None]).to(query.dtype)
