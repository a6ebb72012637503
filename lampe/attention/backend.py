"""Base class of attention backends, each of which computes attention over the regions of a plan.

Shapes: B batch, H query heads, G key heads, Q queries, K keys, D head dimensions.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from lampe.attention.inputs import AttentionInputs
from lampe.encoding import Encoding


class Backend:
    """Implementation of attention under an encoding.

    Attributes:
        name: the name under which users select the backend.
        uses_rotated_keys: whether ``attend_run`` reads ``AttentionInputs.rotated_keys`` in a decode
            step. Other backends need a cache's keys as they were before any rotation.
    """

    name: ClassVar[str] = ""
    uses_rotated_keys: ClassVar[bool] = False

    def refuses(self, inputs: AttentionInputs) -> str | None:
        """Return the reason why this backend cannot process the inputs, or None where it can."""
        return None

    def attend(self, inputs: AttentionInputs) -> Tensor:
        """Return attention ``[B, H, Q, D]`` in the dtype of the queries."""
        runs = [self.attend_run(run) for run in inputs.runs()]
        return runs[0] if len(runs) == 1 else torch.cat(runs, dim=2)

    def attend_run(self, inputs: AttentionInputs) -> Tensor:
        """Return attention of queries for which the regions of the plan hold."""
        raise NotImplementedError

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, encoding: Encoding, **options: Any
    ) -> Tensor:
        """Return ``attend`` of an ``AttentionInputs`` with these fields.

        Args:
            query: ``[B, H, Q, D]``, not rotated.
            key: ``[B, G, K, D]``, not rotated.
            value: ``[B, G, K, D]``.
            encoding: rope, plan and attention factor.
            options: the other fields of ``AttentionInputs``.
        """
        return self.attend(AttentionInputs(query, key, value, encoding, **options))
