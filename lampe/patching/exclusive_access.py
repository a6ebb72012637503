"""Exclusive access to a model while its attention is being changed.

Patching runs a model with attention that returns zeros, and replaces attention between two layers
of whatever call is running. Other threads may be calling the model meanwhile. Calls that begin
while it is being changed wait until the change is complete. Calls that are running already cannot
be waited for, because ``generate`` makes many forward calls, so the change is refused.

Hooks cannot tell which calls are running: they see only calls that begin after they were
registered, and a model that was never patched has none. The stacks of the threads show all calls.
"""

import gc
import inspect
import sys
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lampe.errors import UnsupportedModel

_LOCK = threading.RLock()
"""Lock that is held while any model is being changed."""

_WAITING: dict[int, nn.Module] = {}
"""Module in whose call a thread waits for a change to be complete, by the thread's number."""

_MODULE_FILE = nn.Module.__call__.__code__.co_filename
"""Source file of the functions through which every call of a module passes."""


@contextmanager
def exclusive_access(model: PreTrainedModel) -> Iterator[None]:
    """Keep other threads from calling a model within a block; blocks may be nested.

    Raises:
        UnsupportedModel: where another thread is running the model, its ``generate`` or one of its
            modules, or the object is not a transformers model.
    """
    require_transformers_model(model)
    modules = set(model.modules())
    with _LOCK:
        gates = [
            module.register_forward_pre_hook(_wait_for_change, prepend=True) for module in modules
        ]
        try:
            # After the gates are in place: a call that this misses has not begun, and will wait.
            _refuse_running_calls(model, modules)
            yield
        finally:
            for gate in gates:
                gate.remove()


def require_transformers_model(model: object) -> None:
    """Raise UnsupportedModel for an object that is not a transformers model."""
    if not isinstance(getattr(model, "config", None), PreTrainedConfig):
        raise UnsupportedModel(
            f"a {type(model).__name__} is no model of transformers; give what from_pretrained "
            "returns"
        )


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _wait_for_change(module: nn.Module, inputs: Any) -> None:
    """Wait until no model is being changed by another thread; a forward pre-hook."""
    thread = threading.get_ident()
    _WAITING[thread] = module
    with _LOCK:
        # Under the lock: the next change must not take a thread that goes on for one that waits.
        del _WAITING[thread]


def _refuse_running_calls(model: PreTrainedModel, modules: Set[nn.Module]) -> None:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for thread in sys._current_frames():
        if thread != threading.get_ident() and _is_running(thread, modules):
            raise UnsupportedModel(
                f"cannot change the attention of this {type(model).__name__}: thread "
                f"{names.get(thread, thread)!r} is running it; wait until its calls have ended"
            )


def _is_running(thread: int, modules: Set[nn.Module]) -> bool:
    """Return whether a thread is running one of the modules."""
    frame = sys._current_frames().get(thread)
    while not _is_inside(frame, modules, _WAITING.get(thread)):
        # A thread may run on while its stack is read, and a frame that has returned names no
        # caller. The stack was read as a whole only if its innermost frame is still the same.
        latest = sys._current_frames().get(thread)
        if latest is frame:
            return False
        frame = latest
    return True


def _is_inside(frame: FrameType | None, modules: Set[nn.Module], entered: nn.Module | None) -> bool:
    """Return whether a stack has a method of one of the modules.

    Args:
        frame: innermost frame of the stack.
        modules: the modules of a model.
        entered: module whose call waits to begin; the functions that lead into it do not count.
    """
    while frame is not None:
        code = frame.f_code
        has_self = "self" in code.co_varnames or "self" in code.co_freevars
        if has_self and code.co_flags & inspect.CO_OPTIMIZED:
            owner = _owner(frame)
            leads_in = owner is entered and code.co_filename == _MODULE_FILE
            # By type first: looking up any object would call its own ``__hash__``.
            if isinstance(owner, nn.Module) and owner in modules and not leads_in:
                return True
        frame = frame.f_back
    return False


def _owner(frame: FrameType) -> object:
    """Return the ``self`` of a method that another thread is running."""
    # Before Python 3.13 reading f_locals copies all variables of the running frame into a dict. If
    # an object is freed meanwhile, be it a value that stands in the dict from the time before or
    # garbage, torch lets the other thread run on, which pops the frame that is being read, and the
    # process crashes. So nothing is collected meanwhile, and nothing is left in the dict.
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        variables = frame.f_locals
        owner = variables.get("self")
    finally:
        if is_collecting:
            gc.enable()
    if isinstance(variables, dict):
        variables.clear()
    return owner
