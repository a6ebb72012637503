"""Prompt boundary: which tokens of a forward call belong to the prompt and which to the answer.

A plan is made for the prompt's length and stays in force for the answer that follows. A forward
call over a piece of a prompt cannot know how much is still to come. ``generate`` can: its inputs
end where the prompt ends. So while a patch is on, the model's ``generate`` states that length, and
may then feed the prompt in chunks, verify several guessed tokens at a time, or do without a KV
cache.

The prompt's end is noted on the KV cache. So an answer goes on from its cache in any thread, and
answers with several caches may alternate.
"""

import functools
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MethodType
from typing import Any

from torch import Tensor, nn
from transformers import Cache

from lampe.errors import BadSetting, UnsupportedModel
from lampe.patching.forward_layout import ForwardLayout

PROMPT_ATTRIBUTE = "_lampe_prompt"
"""Attribute of a KV cache: the patch that read its prompt, and the prompt's end."""


class _ThreadState(threading.local):
    """Prompt length that the calling thread states.

    Attributes:
        stated_length: length that a ``with`` block or ``generate`` states; None outside of one.
    """

    def __init__(self) -> None:
        self.stated_length: int | None = None


class PromptTracker:
    """Owner of the question where the prompt of a forward call ends.

    All lengths are in tokens from the start of the KV cache, padding included. Statements hold for
    one thread, and the end of a prompt is noted on its KV cache, so several threads may call one
    patched model at the same time.
    """

    def __init__(self) -> None:
        self._thread = _ThreadState()
        # A string, because copies of a cache must carry an equal one, also to another process.
        self._patch_id = uuid.uuid4().hex

    @property
    def stated_length(self) -> int | None:
        """Length of the prompt that the calling thread states; None where it states none."""
        return self._thread.stated_length

    @contextmanager
    def state_length(self, length: int) -> Iterator[None]:
        """State the prompt's length for the forward calls of this thread within the block.

        Raises:
            BadSetting: for a length below 1.
        """
        if length < 1:
            raise BadSetting(f"a prompt has at least one token, not {length}")
        outer = self._thread.stated_length
        self._thread.stated_length = length
        try:
            yield
        finally:
            self._thread.stated_length = outer

    def end_without_cache(self, layout: ForwardLayout) -> int:
        """Return where the prompt of a forward call ends, as far as its KV cache is not needed.

        Where no length is stated, a call over an empty KV cache or over several new tokens is a
        prompt, and a call over one new token continues the answer of its KV cache.

        Returns:
            The prompt's end, or 0 for a call that continues the answer of its KV cache.

        Raises:
            UnsupportedModel: for a prompt in chunks whose rows are padded on the right.
        """
        if layout.start and any(0 < row.stop < layout.stop for row in layout.rows):
            raise UnsupportedModel(
                "a row of this batch ended before this call: where prompts come in chunks, pad "
                "rows on the left"
            )
        if self._thread.stated_length is not None:
            return self._thread.stated_length
        if layout.start == 0 or layout.stop - layout.start > 1:
            return layout.stop
        return 0

    def end_with_cache(self, layout: ForwardLayout, cache: Cache | None) -> int:
        """Return where the prompt of a forward call ends, and note it on the call's KV cache.

        Args:
            layout: layout of the call, with the end that ``end_without_cache`` returned.
            cache: KV cache that the layer was called with; None where it was called with none.

        Raises:
            UnsupportedModel: for a token that does not continue a prompt of this patch.
        """
        if layout.prompt_end:
            if cache is not None:
                # On the cache itself: its copies must know the prompt too, and it may be cropped,
                # reset and reordered.
                setattr(cache, PROMPT_ATTRIBUTE, (self._patch_id, layout.prompt_end))
            return layout.prompt_end
        patch_id, end = getattr(cache, PROMPT_ATTRIBUTE, (self._patch_id, 0))
        # Every cache belongs to the patch under which it was filled.
        if patch_id != self._patch_id:
            end = 0
        if not 0 < end < layout.stop:
            raise UnsupportedModel(
                f"token {layout.stop} does not continue the prompt of its KV cache, which has "
                f"{end} tokens under this patch: read the prompt under this patch, or state its "
                "length with handle.prompt(length)"
            )
        return int(end)

    def wrap_generate(self, model: nn.Module) -> None:
        """Make ``model.generate`` state its prompt's length; a model without it is left alone."""
        # The function, not the bound method: that would keep the model alive, and a copy of the
        # model would go on calling the original.
        generate = getattr(vars(model).get("generate"), "__func__", None)
        generate = generate or getattr(type(model), "generate", None)
        if generate is not None:
            vars(model)["generate"] = MethodType(self._stating(generate), model)

    def unwrap_generate(self, model: nn.Module) -> None:
        """Restore the ``generate`` that ``wrap_generate`` replaced."""
        wrapper = getattr(vars(model).get("generate"), "__func__", None)
        generate = getattr(wrapper, "__wrapped__", None)
        if generate is None:
            return  # replaced by somebody since: theirs to restore
        del vars(model)["generate"]
        if generate is not getattr(type(model), "generate", None):
            vars(model)["generate"] = MethodType(generate, model)

    def _stating(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(generate)
        def generate_with_stated_length(model: nn.Module, *inputs: Any, **options: Any) -> Any:
            with self._state_unless_stated(generate_prompt_end(*inputs, **options)):
                return generate(model, *inputs, **options)

        return generate_with_stated_length

    def _state_unless_stated(self, length: int | None) -> AbstractContextManager[None]:
        """State a length, unless it is not known or the caller of ``generate`` states one."""
        if not length or self.stated_length is not None:
            return nullcontext()
        return self.state_length(length)


def generate_prompt_end(inputs: Tensor | None = None, *_: Any, **options: Any) -> int | None:
    """Return where the prompt of a call of ``generate`` ends; None where no argument tells."""
    # An attention mask covers the KV cache and the new tokens. Without a mask the tokens do,
    # because otherwise transformers could not tell which of them are new.
    mask = options.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return mask.shape[1]
    for tokens in (options.get("inputs_embeds"), inputs, options.get("input_ids")):
        if tokens is not None:
            return int(tokens.shape[1])
    return None
