"""Patching a live transformers model: a position method in, and out again.

transformers looks attention up by name and asks a rotary module for cos and sin. A patch therefore has two parts:
forward hooks make every rotary module answer with the identity (cos 1, sin 0), and the registered attention rotates by
the plan instead. No model code is copied, the cache holds unrotated keys in transformers' own classes, and taking the
patch off restores the model exactly.

A plan is made for the prompt's length, frozen for the answer that follows. A forward call over an empty cache, or over
several new tokens, begins a prompt; a call over one new token continues the answer. Where a prompt is fed in chunks,
state its length:

    with handle.prompt(length):
        ...
"""

import dataclasses
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from lampe.attention import BACKENDS
from lampe.attention.rotary import RotaryTables
from lampe.checks import check_causal, check_exact, proof_of
from lampe.encoding import Encoding
from lampe.errors import BadSetting, PositionWarning, UnknownName, UnsupportedModel
from lampe.frame import Frame, mask
from lampe.geometry import Geometry, geometry_of
from lampe.methods import Method, method_of

NAME = "lampe"


class Handle:
    """A patched model. As a context manager, takes the patch off at the end.

    Attributes:
        model: the patched model.
        method: the method it runs.
        geometry: what the method was told of the model.
    """

    def __init__(self, model: PreTrainedModel, method: Method, geometry: Geometry, attention: str) -> None:
        self._model = weakref.ref(model)
        self.method, self.geometry = method, geometry
        self._attend = BACKENDS[attention]
        self._stated: int | None = None
        self._prompt_stop = 0
        self._mask: Tensor | None = None
        self._frame = Frame(0, 0, ())
        self._rows: list[Row] = []
        self._warned: set[int] = set()
        self._below = _HANDLES.get(model)
        self._implementation = model.config._attn_implementation
        rotaries = _rotaries(model)
        model.set_attn_implementation(NAME)
        if model.config._attn_implementation != NAME:
            raise UnsupportedModel(f"{type(model).__name__} does not look its attention up by name")
        self._hooks = [] if self._below else [module.register_forward_hook(_identity) for module in rotaries]
        for module in model.modules():
            _HANDLES[module] = self

    @property
    def model(self) -> PreTrainedModel:
        """The patched model, which a handle does not keep alive.

        Raises:
            UnsupportedModel: where it is gone.
        """
        model = self._model()
        if model is None:
            raise UnsupportedModel("the patched model is gone")
        return model

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unpatch()

    def unpatch(self) -> None:
        """Restores the model, or the patch that was below this one."""
        if _HANDLES.get(self.model) is not self:
            raise UnsupportedModel("this patch is not the outermost one of its model: take the later patch off first")
        for hook in self._hooks:
            hook.remove()
        for module in self.model.modules():
            if self._below:
                _HANDLES[module] = self._below
            else:
                del _HANDLES[module]
        self.model.set_attn_implementation(self._implementation)

    @contextmanager
    def prompt(self, length: int) -> Iterator[None]:
        """States the prompt's length for the calls within, which may then feed it in chunks."""
        before, self._stated = self._stated, length
        try:
            yield
        finally:
            self._stated = before

    def encoding(self, length: int) -> Encoding:
        """The encoding of a prompt of ``length`` tokens.

        Raises:
            BadSetting: where the plan does not cover every causal pair exactly once.
        Warns:
            PositionWarning: where a relative position leaves the window.
        """
        encoding = self.method.encode(self.geometry, length)
        if fault := encoding.plan.coverage_fault():
            raise BadSetting(f"{self.method.label}: pairs not covered exactly once: {fault}")
        reach = encoding.reach(length, self.geometry.rope(length))
        if reach >= self.geometry.window and length not in self._warned:
            self._warned.add(length)
            warnings.warn(
                f"{self.method.label}: a prompt of {length} tokens reaches relative position {reach:g}, "
                f"beyond the window of {self.geometry.window}",
                PositionWarning,
                stacklevel=2,
            )
        return encoding

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """Attention of one layer, ``[B, H, Q, D]``; rows of different lengths are run one by one."""
        if mask is not self._mask:
            self._begin(Frame.from_mask(mask))
            self._mask = mask
        frame = self._frame
        if len(self._rows) == 1 and len(self._rows[0].tokens) == frame.stop:
            return self._attend_row(self._rows[0], query, key, value, scale)
        out = query.new_zeros(*query.shape[:3], value.shape[-1])
        for index, row in enumerate(self._rows):
            columns = slice(max(0, row.tokens.start - frame.start), max(0, row.tokens.stop - frame.start))
            if columns.start < columns.stop:
                one = slice(index, index + 1)
                out[one, :, columns] = self._attend_row(row, query[one, :, columns], key[one], value[one], scale)
        return out

    def _attend_row(self, row: "Row", query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        tokens = slice(row.tokens.start, row.tokens.stop)
        start = max(self._frame.start - row.tokens.start, 0)
        k, v = key[:, :, tokens], value[:, :, tokens]
        return self._attend(query, k, v, row.encoding, scale=scale, start=start, tables=row.tables)

    def _begin(self, frame: Frame) -> None:
        """Settles the encoding of every row for the forward call that ``frame`` belongs to."""
        if self._stated:
            self._prompt_stop = self._stated
        elif frame.start == 0 or frame.stop - frame.start > 1:
            self._prompt_stop = frame.stop
        answered = frame.stop - self._prompt_stop
        lengths = [self._stated or max(1, len(tokens) - answered) for tokens in frame.rows]
        known = {row.length: row for row in self._rows}
        self._rows = [
            self._row(known.get(length), tokens, length, answered)
            for tokens, length in zip(frame.rows, lengths, strict=True)
        ]
        self._frame = frame

    def _row(self, known: "Row | None", tokens: range, length: int, answered: int) -> "Row":
        """A row as it was but for its tokens, or a new one; with the encoding of a generated token where it has one."""
        if known is None:
            encoding = self.encoding(length)
            known = Row(tokens, length, encoding, RotaryTables(encoding.rope))
        if answered > 0 and (own := self.method.answering(self.geometry, length, length + answered)):
            return dataclasses.replace(known, tokens=tokens, encoding=own)
        return dataclasses.replace(known, tokens=tokens)


@dataclass(frozen=True)
class Row:
    """One row of a batch: which columns hold its tokens, and the encoding of its prompt of ``length`` tokens."""

    tokens: range
    length: int
    encoding: Encoding
    tables: RotaryTables


_HANDLES: WeakKeyDictionary[nn.Module, Handle] = WeakKeyDictionary()
"""The outermost patch of every module of every patched model."""


def _rotaries(model: PreTrainedModel) -> list[nn.Module]:
    """Modules that answer with cos and sin: those that hold inverse frequencies."""
    found = [m for m in model.modules() if any(name.endswith("inv_freq") for name, _ in m.named_buffers(recurse=False))]
    if not found:
        raise UnsupportedModel(f"{type(model).__name__} has no module with inverse frequencies, so no rotary positions")
    return found


def _identity(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Forward hook: the rotation by nothing, in the shapes the module answered with."""
    cos, sin = output
    return torch.ones_like(cos), torch.zeros_like(sin)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in every layer; takes ``[B, H, Q, D]``, returns ``[B, Q, H, D]``."""
    for option in ("softcap", "s_aux", "sliding_window"):
        if options.get(option) is not None:
            raise UnsupportedModel(f"{type(module).__name__} uses {option}, which is not supported yet")
    if module not in _HANDLES:
        raise UnsupportedModel("this model is not patched, but shares its configuration object with one that is")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _HANDLES[module].attend(query, key, value, attention_mask, scale).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, mask)


def patch(
    model: PreTrainedModel,
    method: str | Method = "lampe",
    *,
    window: int | None = None,
    attention: str = "blockwise",
    check: bool = True,
    **settings: Any,
) -> Handle:
    """Gives a model's attention the positions of a method, in place.

    A handle follows one sequence of calls at a time: a call on an empty cache, or over several new tokens, begins a
    prompt, and its length holds for the single tokens that follow. So finish one answer before you begin the next, and
    where a prompt comes in pieces (chunked prefill, prompt lookup) state its length with ``handle.prompt``.

    Args:
        model: a causal decoder with rotary positions, loaded by transformers.
        method: a method or its name.
        window: tokens the model was pretrained on; read from its configuration where not given.
        attention: the backend, one of ``lampe.attention.BACKENDS``.
        check: whether to prove on a few tokens that the patch is exact and causal (see ``lampe.checks``).
        settings: hyper-parameters of a method given by name.

    Returns:
        The handle; ``handle.unpatch()`` or ``lampe.unpatch(model)`` takes the patch off.

    Raises:
        UnknownName: for a method, setting or backend that does not exist.
        BadSetting: for a hyper-parameter the method cannot take.
        UnsupportedModel: for a model that cannot be patched exactly.
    """
    if attention not in BACKENDS:
        raise UnknownName("attention backend", attention, BACKENDS)
    if isinstance(method, str):
        method = method_of(method, **settings)
    elif settings:
        raise BadSetting(f"settings ({', '.join(settings)}) go with a method's name; this method has its own already")
    geometry = geometry_of(model.config, window)
    if check and model not in _HANDLES:
        check_exact(model, lambda: Handle(model, method_of("original"), geometry, attention))
    if check:
        small, tokens = proof_of(method, geometry)
        check_causal(model, lambda: Handle(model, method, small, attention), tokens)
    return Handle(model, method, geometry, attention)


def unpatch(model: PreTrainedModel) -> None:
    """Takes the outermost patch off a model.

    Raises:
        UnsupportedModel: where the model is not patched.
    """
    if model not in _HANDLES:
        raise UnsupportedModel(f"this {type(model).__name__} is not patched")
    _HANDLES[model].unpatch()
