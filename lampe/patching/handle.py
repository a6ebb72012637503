"""Handle of a patch: puts a method on a model and takes it off again.

Of forward calls of your own, one over an empty KV cache, or over several new tokens, is a prompt,
and one over a single new token continues the answer of its KV cache
(``lampe.patching.prompt_boundary``). Where that is not so, state the prompt's length:

    with handle.prompt(length):
        ...

Several threads may call a patched model at the same time. A patch goes on, or comes off, only while
no other thread is running the model.
"""

import weakref
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from lampe.attention import BackendChoice, BackendDispatcher
from lampe.encoding import Encoding
from lampe.errors import UnsupportedModel
from lampe.geometry import Geometry
from lampe.methods import Method
from lampe.patching.attention_interface import attach, detach, refuse_other_attention
from lampe.patching.exclusive_access import exclusive_access, require_transformers_model
from lampe.patching.layer_encodings import LayerEncodings
from lampe.patching.layer_probe import ProbedLayers
from lampe.patching.method_attention import MethodAttention
from lampe.patching.model_methods import (
    refusal_of_continuous_batching,
    unwrap_method,
    warning_of_checkpoint,
    wrap_method,
)
from lampe.patching.rotary_modules import disable_rotary

WRAPPED = {
    "init_continuous_batching": refusal_of_continuous_batching,
    "save_pretrained": warning_of_checkpoint,
}
"""Methods of a patched model that are wrapped, beside ``generate``, and their wrappers."""


class Handle:
    """Patch on a model, from ``lampe.patch`` to ``unpatch`` or to the end of its ``with`` block.

    Attributes:
        method: the method that the model runs.
        layers: what each of the model's layers does with positions.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        method: Method,
        layers: ProbedLayers,
        window: int,
        dispatcher: BackendDispatcher,
    ) -> None:
        # Weak, because the patches of a model are held for as long as it lives.
        self._model = weakref.ref(model)
        self.method = method
        self.layers = layers
        encodings = LayerEncodings(method, layers, window)
        self._attention = MethodAttention(layers, encodings, dispatcher)
        with exclusive_access(model):
            # First, because it refuses models that cannot be patched and leaves them unchanged.
            attach(model, self._attention, layers.by_module)
            self._hooks = self._attention.rotated_keys.watch(layers.by_module)
            patches = _PATCHES.setdefault(model, [])
            # A later patch finds the rotary modules disabled already.
            if not patches:
                self._hooks += disable_rotary(layers.rotary_modules)
                self._hooks += refuse_other_attention(layers.rotary_modules, layers.by_module)
                for name, wrapper in WRAPPED.items():
                    wrap_method(model, name, wrapper)
            patches.append(self)
            self._hooks += self._attention.prompts.watch_inputs(model)
            self._attention.prompts.wrap_generate(model)

    @property
    def backends(self) -> tuple[str, ...]:
        """Return the attention backends that have run so far."""
        return tuple(dict.fromkeys(choice.backend for choice in self._attention.dispatcher.choices))

    @property
    def geometry(self) -> Geometry:
        """Return the geometry of the layers that the method changes."""
        return self._attention.encodings.geometry

    @property
    def attention(self) -> str:
        """Return the attention backend that was requested."""
        return self._attention.dispatcher.name

    @property
    def stated_length(self) -> int | None:
        """Return the tokens that this thread states with ``prompt``; None where it states none."""
        return self._attention.prompts.stated_length

    @property
    def model(self) -> PreTrainedModel:
        """Return the patched model, which a handle does not keep alive.

        Raises:
            UnsupportedModel: where it has been deleted.
        """
        model = self._model()
        if model is None:
            raise UnsupportedModel("the patched model is gone")
        return model

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unpatch()

    def unpatch(self) -> None:
        """Restore the model, or the patch below this one.

        Calls that other threads begin meanwhile wait.

        Raises:
            UnsupportedModel: for a patch that is off already, or below a later one, or a model that
                another thread is running; the patch then stays on.
        """
        if not self._hooks:
            raise UnsupportedModel("this patch is off already")
        model = self.model
        with exclusive_access(model):
            patches = _PATCHES[model]
            if patches[-1] is not self:
                raise UnsupportedModel(
                    "this patch is not the outermost one of its model: take the later patch off "
                    "first"
                )
            patches.pop()
            while self._hooks:
                self._hooks.pop().remove()
            unwrap_method(model, "generate")
            if not patches:
                for name in WRAPPED:
                    unwrap_method(model, name)
            detach(model, patches[-1]._attention if patches else None)
            self._attention.release()

    def prompt(self, length: int, reserved_tokens: int = 0) -> AbstractContextManager[None]:
        """State the prompt's length for the calls within a ``with`` block, which may then chunk it.

        The statement holds for the calling thread. Tokens beyond the length are the answer, however
        many a call has. Rows are padded on the left where a prompt comes in chunks.

        By default a method plans for the prompt, and its plan goes on in the answer, whose
        positions may leave the window. With reserved tokens it plans for prompt and answer
        together, and both have that one plan. Also a variant whose release makes other plans for
        generated tokens does so only beyond the reserved ones.

        Args:
            length: tokens from the start of the KV cache; of a batch, those of its longest row.
            reserved_tokens: tokens of the answer that the plan counts.

        Raises:
            BadSetting: for a length below 1, or a negative number of reserved tokens.
        """
        return self._attention.prompts.state_length(length, reserved_tokens)

    @torch.no_grad()
    def measure_backends(self) -> tuple[BackendChoice, ...]:
        """Return which backends run in a prompt of two tokens and in a step after it, and why.

        Other threads may call the model meanwhile.
        """
        model = self.model
        dispatcher = BackendDispatcher(self.attention)
        ids = torch.zeros(1, 3, dtype=torch.long, device=model.device)
        with self.prompt(2), self._attention.dispatching(dispatcher):
            cache = model(ids[:, :2], use_cache=True).past_key_values
            model(ids[:, 2:], past_key_values=cache, use_cache=True)
        return tuple(dispatcher.choices)

    def encoding(self, length: int) -> Encoding:
        """Return the encoding of a prompt of ``length`` tokens in the layers the method changes.

        Raises:
            BadSetting: where the plan does not cover every causal pair.

        Warns:
            PositionWarning: where a relative position leaves the window.
        """
        return self._attention.encodings.for_prompt(length)


_PATCHES: WeakKeyDictionary[nn.Module, list[Handle]] = WeakKeyDictionary()
"""Patches of each model, the outermost last."""


def outermost_handle(model: nn.Module) -> Handle | None:
    """Return the outermost patch of a model; None where it is not patched.

    Raises:
        UnsupportedModel: for an object that is not a transformers model.
    """
    require_transformers_model(model)
    patches = _PATCHES.get(model)
    return patches[-1] if patches else None
