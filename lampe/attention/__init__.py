"""Attention over the regions of a plan. ``dense`` is the oracle, ``blockwise`` runs anywhere."""

from lampe.attention.backend import Backend
from lampe.attention.dispatch import BACKENDS, BackendChoice, BackendDispatcher
from lampe.attention.inputs import AttentionInputs
from lampe.attention.logit_options import LogitOptions
from lampe.backend_names import AUTO

__all__ = [
    "AUTO",
    "BACKENDS",
    "AttentionInputs",
    "Backend",
    "BackendChoice",
    "BackendDispatcher",
    "LogitOptions",
]
