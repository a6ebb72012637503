"""Prompt boundary: which tokens of a forward call belong to the prompt and which to the answer.

A plan is made for the prompt's length and stays in force for the answer that follows. A forward
call over a piece of a prompt cannot know how much is still to come. ``generate`` can: its inputs
end where the prompt ends. So while a patch is on, the model's ``generate`` states that length, and
may then feed the prompt in chunks, verify several guessed tokens at a time, or do without a KV
cache.
"""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lampe.errors import BadSetting, UnsupportedModel
from lampe.patching.forward_layout import ForwardLayout
from lampe.patching.model_methods import unwrap_method, wrap_method
from lampe.patching.unmasked_batch import ForwardInputs


class _ThreadState(threading.local):
    """Prompt boundaries of the calling thread.

    Attributes:
        stated_length: length that a ``with`` block or ``generate`` states; None outside of one.
        last_end: end of the latest prompt; 0 before the first.
        has_ended_rows: whether rows of the latest prompt end before others, without a mask.
        inputs: arguments of the model's forward call that is running; None outside of one.
    """

    def __init__(self) -> None:
        self.stated_length: int | None = None
        self.last_end = 0
        self.has_ended_rows = False
        self.inputs: ForwardInputs | None = None


class PromptTracker:
    """Owner of the question where the prompt of a forward call ends.

    All lengths are in tokens from the start of the KV cache, padding included. Every thread has
    prompts of its own, so several threads may call one patched model at the same time.
    """

    def __init__(self) -> None:
        self._thread = _ThreadState()

    @property
    def stated_length(self) -> int | None:
        """Length of the prompt that the calling thread states; None where it states none."""
        return self._thread.stated_length

    @property
    def inputs(self) -> ForwardInputs | None:
        """Arguments of the forward call that the calling thread runs; None where not known."""
        return self._thread.inputs

    @property
    def has_ended_rows(self) -> bool:
        """True where rows of this thread's latest prompt end before others, without a mask."""
        return self._thread.has_ended_rows

    @has_ended_rows.setter
    def has_ended_rows(self, value: bool) -> None:
        self._thread.has_ended_rows = value

    def watch_inputs(self, model: nn.Module) -> list[RemovableHandle]:
        """Register hooks that tell with which arguments a model, or its body, is called.

        A mask function gets neither token ids nor labels.
        """
        # The body is hooked too, because it may be called without the head.
        body = getattr(model, "base_model", model)
        hooks = _watch(model, self._thread)
        return hooks if body is model else hooks + _watch(body, self._thread)

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

    def prompt_end(self, layout: ForwardLayout) -> int:
        """Return where the prompt ends that a forward call of this layout belongs to.

        Where no length is stated, a call over an empty KV cache or over several new tokens is a
        prompt, and a call over one new token continues the answer to the latest prompt.

        Raises:
            UnsupportedModel: for a token that does not continue the latest prompt, or a prompt in
                chunks whose rows are padded on the right.
        """
        last_end = self._thread.last_end
        if self._thread.stated_length is not None:
            end = self._thread.stated_length
        elif layout.start == 0 or layout.stop - layout.start > 1:
            end = layout.stop
        elif 0 < last_end < layout.stop:
            end = last_end
        else:
            raise UnsupportedModel(
                f"token {layout.stop} does not continue the last prompt of this thread, which has "
                f"{last_end} tokens: finish one answer before you begin the next prompt, or state "
                "the length of this token's prompt with handle.prompt(length)"
            )
        if layout.start and any(0 < row.stop < layout.stop for row in layout.rows):
            raise UnsupportedModel(
                "a row of this batch ended before this call: where prompts come in chunks, pad "
                "rows on the left"
            )
        # A model makes one mask per kind of layer. Later masks of the same call get the same end,
        # because a prompt's end does not depend on the latest one and a token's keeps it.
        self._thread.last_end = end
        return end

    def wrap_generate(self, model: nn.Module) -> None:
        """Make ``model.generate`` state its prompt's length; a model without it is left alone."""
        wrap_method(model, "generate", self._stating)

    def unwrap_generate(self, model: nn.Module) -> None:
        """Restore the ``generate`` that ``wrap_generate`` replaced."""
        unwrap_method(model, "generate")

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


def _watch(module: nn.Module, thread: _ThreadState) -> list[RemovableHandle]:
    """Register hooks on a module that keep its arguments in a thread's state during a call."""
    # Names are read once: reading a signature takes longer than the rest of the hook.
    names = list(inspect.signature(module.forward).parameters)

    # Closures, not methods: copy.deepcopy of a model copies the owners of bound methods, and
    # thread-local state cannot be copied.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def before_forward(called: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        if thread.inputs is None:
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
    """Return where the prompt of a call of ``generate`` ends; None where no argument tells.

    An attention mask covers the KV cache and the new tokens. Without a mask the tokens do, because
    otherwise transformers could not tell which of them are new.
    """
    mask = options.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return mask.shape[1]
    for tokens in (options.get("inputs_embeds"), inputs, options.get("input_ids")):
        if tokens is not None:
            return int(tokens.shape[1])
    return None
