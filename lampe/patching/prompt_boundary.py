"""``generate`` of a patched model, which tells the patch where the prompt ends.

A forward call over a piece of a prompt cannot know what is still to come. ``generate`` can, so while a patch is on, the
model's own is called with the prompt's length stated.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import MethodType
from typing import Any

from torch import Tensor, nn

StatePromptEnd = Callable[[nn.Module, int | None], AbstractContextManager[None]]
"""States the end of a prompt, or that none is known, for the calls of a model within."""


def wrap_generate(model: nn.Module, stating: StatePromptEnd) -> None:
    """Makes ``model.generate`` state where its prompt ends; a copy of the model does so for itself."""
    generate = getattr(type(model), "generate", None)
    if generate is None:
        return

    @functools.wraps(generate)
    def stated(self: nn.Module, *inputs: Any, **options: Any) -> Any:
        with stating(self, prompt_end(*inputs, **options)):
            return generate(self, *inputs, **options)

    vars(model)["generate"] = MethodType(stated, model)


def unwrap_generate(model: nn.Module) -> None:
    """Gives a model its own ``generate`` back."""
    vars(model).pop("generate", None)


def prompt_end(inputs: Tensor | None = None, *_: Any, **options: Any) -> int | None:
    """Where the prompt of a call of ``generate`` ends, in tokens from the start of the cache, padding included.

    An attention mask is over all of it. Without one, so are the tokens, or transformers could not tell which are new.
    None where the call has neither.
    """
    mask, embeds = options.get("attention_mask"), options.get("inputs_embeds")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return mask.shape[1]
    tokens = next((x for x in (embeds, inputs, options.get("input_ids")) if x is not None), None)
    return None if tokens is None else int(tokens.shape[1])
