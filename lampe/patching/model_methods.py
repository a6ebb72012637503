"""Methods of a model that a patch wraps, such as ``generate``, and their restoration."""

import functools
import warnings
from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import nn

from lampe.errors import CheckpointWarning, UnsupportedModel

ModelMethod = Callable[..., Any]
"""Method of a model as a function, which takes the model first."""


def wrap_method(model: nn.Module, name: str, wrap: Callable[[ModelMethod], ModelMethod]) -> None:
    """Replace a method of one model by a wrapper of it; a model without it is left alone."""
    # The function, not the bound method: that would keep the model alive, and a copy of the
    # model would go on calling the original.
    method = getattr(vars(model).get(name), "__func__", None) or getattr(type(model), name, None)
    if method is not None:
        vars(model)[name] = MethodType(functools.wraps(method)(wrap(method)), model)


def unwrap_method(model: nn.Module, name: str) -> None:
    """Restore the method that ``wrap_method`` replaced."""
    wrapper = getattr(vars(model).get(name), "__func__", None)
    method = getattr(wrapper, "__wrapped__", None)
    if method is None:
        return  # replaced by somebody since: theirs to restore
    del vars(model)[name]
    if method is not getattr(type(model), name, None):
        vars(model)[name] = MethodType(method, model)


def warning_of_checkpoint(save: ModelMethod) -> ModelMethod:
    """Return a ``save_pretrained`` that warns that the checkpoint is not patched."""

    def save_with_warning(model: nn.Module, *inputs: Any, **options: Any) -> Any:
        warnings.warn(
            f"{type(model).__name__}: the checkpoint is written without lampe's patch, which is no "
            "part of weights or configuration; lampe.export writes one that has it, or call "
            "lampe.patch again after loading it",
            CheckpointWarning,
            stacklevel=2,
        )
        return save(model, *inputs, **options)

    return save_with_warning


def refusal_of_continuous_batching(start: ModelMethod) -> ModelMethod:
    """Return an ``init_continuous_batching`` that refuses; ``generate_batch`` calls it too.

    transformers would replace the patch's attention where flash attention is installed. Its packed
    rows and paged cache do not say where the prompt of each request ends.
    """

    def refuse(model: nn.Module, *inputs: Any, **options: Any) -> Any:
        raise UnsupportedModel(
            f"{type(model).__name__}: continuous batching (generate_batch) of transformers does "
            "not support lampe's patch; use generate, or serve the model with vLLM and lampe's "
            "plug-in for it"
        )

    return refuse
