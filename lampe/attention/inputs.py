"""What a backend is asked: attention of some queries over some keys under an encoding."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lampe.attention.logit_options import PLAIN_LOGITS, LogitOptions
from lampe.attention.rotated_keys import DecodeStep, RotatedKeys
from lampe.attention.rotation import RotaryTables
from lampe.encoding import Encoding


@dataclass(frozen=True, eq=False)
class AttentionInputs:
    """Attention of ``query[B, H, Q, D]`` over ``key[B, G, K, D]`` and ``value[B, G, K, D]``, none of them rotated.

    Key heads are shared by groups of ``H // G`` query heads.

    Args:
        encoding: rope, plan and attention_factor.
        scale: softmax scale.
        start: token index of the first query; the last query is that of the last key.
        first: token index of the first key; all before it are out of the sight of every query.
        logits: what the layer does to its logits beside positions.
        tables: kept between calls of one rope.
        turned: the keys as an earlier call of the same answer turned them, if it kept them.
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
    turned: RotatedKeys | None = None

    @property
    def stop(self) -> int:
        """Token index after the last query."""
        return self.start + self.query.shape[2]

    def step(self) -> DecodeStep | None:
        """The step of an answer that this is: one query over all keys, where turned keys may be kept; else None."""
        if self.turned is None or self.query.shape[2] != 1 or self.first or self.key.requires_grad:
            return None
        step = self.turned.steps.of(self.encoding, self.start, self.query.device)
        return None if step.runs is None else step

    def grouped_query(self) -> Tensor:
        """The queries ``[B, G, R, Q, D]``, ``R`` heads to a key head, under a log-n attention_factor times its scale."""
        query = torch.unflatten(self.query, 1, (self.key.shape[1], -1))
        heat = self.encoding.attention_factor.query_scale(
            torch.arange(self.start, self.stop, device=query.device)
        )
        return query if heat is None else (query * heat[:, None]).to(query.dtype)
