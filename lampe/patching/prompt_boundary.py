"""Prompt boundary: which tokens of a forward call belong to the prompt and which to the answer.

A plan is made for the prompt's length and stays in force for the answer that follows. A forward
call over a piece of a prompt cannot know how much is still to come. ``generate`` can: its inputs
end where the prompt ends. So while a patch is on, the model's ``generate`` states that length, and
may then feed the prompt in chunks, verify several guessed tokens at a time, or do without a KV
cache.

The prompt's end is noted on the KV cache. So an answer goes on from its cache in any thread, and
answers with several caches may alternate.
"""

import dataclasses
import inspect
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache

from lampe.errors import BadSetting, UnsupportedModel
from lampe.patching.forward_layout import ForwardLayout
from lampe.patching.model_methods import wrap_method
from lampe.patching.unmasked_batch import ForwardInputs

PROMPT_ATTRIBUTE = "_lampe_prompt"
"""Attribute of a KV cache that holds a ``PromptNote``."""


class PromptNote(NamedTuple):
    """Note on a KV cache about its prompt.

    Attributes:
        patch_id: the patch that read the prompt.
        end: the prompt's end; 0 where there is no prompt yet.
        reserved_tokens: tokens after the end for which the prompt's plan was made as well.
        has_ended_rows: whether rows of it end before others without a mask.
    """

    patch_id: str
    end: int = 0
    reserved_tokens: int = 0
    has_ended_rows: bool = False


class _ThreadState(threading.local):
    """Prompt length that the calling thread states, and the arguments of its forward call.

    Attributes:
        stated_length: length that a ``with`` block or ``generate`` states; None outside of one.
        reserved_tokens: tokens of the answer that the block states the plan must count.
        inputs: arguments of the model's forward call that is running; None outside of one.
    """

    def __init__(self) -> None:
        self.stated_length: int | None = None
        self.reserved_tokens = 0
        self.inputs: ForwardInputs | None = None


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
        """Return the length of the prompt that the calling thread states, if it does."""
        return self._thread.stated_length

    @property
    def reserved_tokens(self) -> int:
        """Return the tokens of the answer that the calling thread states the plan must count."""
        return self._thread.reserved_tokens

    @property
    def inputs(self) -> ForwardInputs | None:
        """Return the arguments of the forward call that the calling thread runs, or None."""
        return self._thread.inputs

    def watch_inputs(self, model: nn.Module) -> list[RemovableHandle]:
        """Register hooks that tell with which arguments a model, or its body, is called.

        A mask function gets neither token ids nor labels.
        """
        # The body is hooked too, because it may be called without the head.
        body = getattr(model, "base_model", model)
        hooks = _watch(model, self._thread)
        return hooks if body is model else hooks + _watch(body, self._thread)

    @contextmanager
    def state_length(self, length: int, reserved_tokens: int = 0) -> Iterator[None]:
        """State the prompt's length for the forward calls of this thread within the block.

        Args:
            length: tokens of the prompt.
            reserved_tokens: tokens of the answer that the plan counts as well.

        Raises:
            BadSetting: for a length below 1, or a negative number of reserved tokens.
        """
        if length < 1:
            raise BadSetting(f"a prompt has at least one token, not {length}")
        if reserved_tokens < 0:
            raise BadSetting(
                f"an answer has no negative number of tokens such as {reserved_tokens}"
            )
        thread = self._thread
        outer = thread.stated_length, thread.reserved_tokens
        thread.stated_length, thread.reserved_tokens = length, reserved_tokens
        try:
            yield
        finally:
            thread.stated_length, thread.reserved_tokens = outer

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

    def layout_with_end(self, layout: ForwardLayout, cache: Cache | None) -> ForwardLayout:
        """Return a call's layout with the prompt's end, and note that on the call's KV cache.

        Args:
            layout: layout of the call, with the end that ``end_without_cache`` returned.
            cache: KV cache that the layer was called with; None where it was called with none.

        Raises:
            UnsupportedModel: for a token that does not continue a prompt of this patch, or tokens
                without a mask after a prompt whose rows ended.
        """
        note: PromptNote = getattr(cache, PROMPT_ATTRIBUTE, PromptNote(self._patch_id))
        # Every cache belongs to the patch under which it was filled, and an empty one has no prompt
        # yet: it may have been reset.
        if note.patch_id != self._patch_id or layout.start == 0:
            note = PromptNote(self._patch_id)
        if note.has_ended_rows and layout.unmasked:
            raise ended_rows_without_mask()
        if layout.prompt_end:
            if cache is not None:
                has_ended_rows = note.has_ended_rows or (layout.unmasked and layout.padded)
                # On the cache itself: its copies must know the prompt too, and it may be cropped,
                # reset and reordered.
                note = PromptNote(
                    self._patch_id, layout.prompt_end, layout.reserved_tokens, has_ended_rows
                )
                setattr(cache, PROMPT_ATTRIBUTE, note)
            return layout
        if not 0 < note.end < layout.stop:
            raise UnsupportedModel(
                f"token {layout.stop} does not continue the prompt of its KV cache, which has "
                f"{note.end} tokens under this patch: read the prompt under this patch, or state "
                "its length with handle.prompt(length)"
            )
        return dataclasses.replace(
            layout, prompt_end=note.end, reserved_tokens=note.reserved_tokens
        )

    def wrap_generate(self, model: nn.Module) -> None:
        """Make ``model.generate`` state its prompt's length; a model without it is left alone."""
        wrap_method(model, "generate", self._stating)

    def _stating(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        def generate_with_stated_length(model: nn.Module, *inputs: Any, **options: Any) -> Any:
            with self._state_unless_stated(generate_prompt_end(*inputs, **options)):
                return generate(model, *inputs, **options)

        return generate_with_stated_length

    def _state_unless_stated(self, length: int | None) -> AbstractContextManager[None]:
        """State a length, unless it is not known or the caller of ``generate`` states one."""
        if not length or self.stated_length is not None:
            return nullcontext()
        return self.state_length(length)


def ended_rows_without_mask() -> UnsupportedModel:
    """Return the error for tokens after a prompt of rows of unequal length without a mask."""
    return UnsupportedModel(
        "a row of this batch ends before others, and there is no attention mask: to go on after "
        "such a prompt, pad rows on the left and give a mask"
    )


def _watch(module: nn.Module, thread: _ThreadState) -> list[RemovableHandle]:
    """Register hooks on a module that keep its arguments in a thread's state during a call."""
    # Names are read once: reading a signature takes longer than the rest of the hook.
    names = list(inspect.signature(module.forward).parameters)

    # Closures, not methods: copy.deepcopy of a model copies the owners of bound methods, and
    # thread-local state cannot be copied.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def before_forward(
        called: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any] | None = None
    ) -> None:
        # PyTorch passes no options to a hook that was removed while the call waited at its gate.
        if options is not None and thread.inputs is None:
            arguments = dict(zip(names, inputs, strict=False)) | options
            thread.inputs = ForwardInputs.of(called, arguments)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def after_forward(called: nn.Module, inputs: Any, output: Any) -> None:
        if thread.inputs is not None and thread.inputs.model is called:
            thread.inputs = None

    return [
        module.register_forward_pre_hook(before_forward, with_kwargs=True),
        # Also after an error: the next call must not find these arguments.
        module.register_forward_hook(after_forward, always_call=True),
    ]


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
