"""Rotary modules of vLLM that do not rotate, because the attention of a method does.

vLLM replaces a module by the subclass that is registered under its class's name. Every rotary class
gets such a subclass. It is the class itself unless a method is served.
"""

import weakref
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from vllm.config import get_current_vllm_config
from vllm.model_executor.custom_op import CustomOp, op_registry_oot
from vllm.model_executor.layers import rotary_embedding
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbeddingBase

from lampe_vllm.gpu_selection import check_gpu_backend
from lampe_vllm.served_method import ServedMethod

LIVE: WeakSet[RotaryEmbeddingBase] = WeakSet()
"""Rotary modules that do not rotate."""


def register_rotary_modules() -> None:
    """Register a subclass for each of vLLM's rotary classes."""
    for kind in (RotaryEmbeddingBase, *_subclasses(RotaryEmbeddingBase)):
        # vLLM refuses a second registration, and may load plug-ins twice.
        if kind.__name__ in op_registry_oot:
            continue
        replacement = _unrotated(kind)
        CustomOp.register_oot(replacement, name=kind.__name__)
        # Options of vLLM's compiler name an operation so; registration changes it.
        replacement.name = kind.name


def _subclasses(kind: Any) -> Iterator[Any]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _unrotated(kind: Any) -> Any:
    """Return the subclass of a rotary class that does not rotate where a method is served."""

    class UnrotatedEmbedding(kind):
        """Rotary module that returns queries and keys as they are."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            vllm_config = get_current_vllm_config()
            config = vllm_config.model_config
            served = config is not None and ServedMethod.of(config.hf_config) is not None
            self.lampe_rows = config.max_model_len if served else None
            self.model_config = weakref.ref(config) if served else None
            super().__init__(*arguments, **options)
            if served:
                check_gpu_backend(vllm_config)
                self._forward_method = _same
                LIVE.add(self)

        def _compute_cos_sin_cache(self) -> Any:
            # Some models read the table past the module's forward call.
            if self.lampe_rows is None:
                return super()._compute_cos_sin_cache()
            table = torch.zeros(self.lampe_rows, self.rotary_dim)
            table[:, : self.rotary_dim // 2] = 1
            return table

        def trained_table(self) -> Any:
            """Return the cos and sin ``[positions, 2 P]`` by which the model was trained."""
            return super()._compute_cos_sin_cache()

    UnrotatedEmbedding.__name__ = f"Unrotated{kind.__name__}"
    return UnrotatedEmbedding


def _same(
    positions: Tensor, query: Tensor, key: Tensor | None = None, *others: Any, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """Return queries and keys as they are; in place of a rotary module's forward call."""
    return query, key


def modules_of(model_config: Any) -> set[Any]:
    """Return the rotary modules that a model may use.

    Those that vLLM shares between all models of a process are among them.
    """
    own = [module for module in list(LIVE) if module.model_config() is model_config]
    return {*rotary_embedding._ROPE_DICT.values(), *own}
