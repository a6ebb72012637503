"""A patch that is on a model: it answers for the model's attention, one prompt and its answer at a time.

A plan is made for the prompt's length, frozen for the answer that follows. ``generate`` tells its patch where the
prompt ends (``lampe.patching.prompt_boundary``), so it may feed it in chunks, guess several tokens at a time, or do without a cache;
what a cache holds already is part of the prompt. Of forward calls of your own, one over an empty cache, or over several
new tokens, begins a prompt, and one over a single new token continues the answer. Where that is not so, state it:

    with handle.prompt(length):
        ...
"""

import dataclasses
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from lampe.attention import AttentionInputs, BackendDispatcher, LogitOptions
from lampe.attention.rotated_keys import RotatedKeys
from lampe.caches.rotated_key_cache import RotatedKeyCache
from lampe.encoding import Encoding
from lampe.errors import BadSetting, UnsupportedModel
from lampe.geometry import Geometry
from lampe.methods import Method
from lampe.patching.attention_interface import attach, detach, handler_of
from lampe.patching.forward_layout import ForwardLayout
from lampe.patching.layer_encodings import LayerEncoding, LayerEncodings
from lampe.patching.layer_probe import LayerPositions, ProbedLayers
from lampe.patching.prompt_boundary import unwrap_generate, wrap_generate
from lampe.patching.rotary_modules import disable_rotary


class Handle:
    """A patched model. As a context manager, takes the patch off at the end.

    Attributes:
        model: the patched model.
        method: the method it runs.
        layers: what each of the model's layers does with positions.
        stated: the prompt's length where ``prompt`` states one.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        method: Method,
        layers: ProbedLayers,
        window: int,
        attention: BackendDispatcher,
    ) -> None:
        self._model = weakref.ref(model)
        self.method, self.layers = method, layers
        self._encodings = LayerEncodings(method, layers, window)
        self._attention = attention
        self.stated: int | None = None
        self._prompt_stop = 0
        self._call: tuple[Any, ...] = ()
        self._frames: list[tuple[Tensor, ForwardLayout]] = []
        self._rows: dict[tuple[LayerPositions, ForwardLayout], list[BatchRow]] = {}
        self._below = outermost_handle(model)
        attach(model, self, layers.of)
        self._kept = RotatedKeyCache()
        self._hooks = self._kept.watch(layers.of)
        if not self._below:
            self._hooks += disable_rotary(layers.rotaries)
            wrap_generate(model, _state_prompt_end)

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that have attended so far."""
        return tuple(dict.fromkeys(choice.backend for choice in self._attention.choices))

    @property
    def geometry(self) -> Geometry:
        """What the method is told of the model."""
        return self._encodings.geometry

    @property
    def attention(self) -> str:
        """The backend that was asked for."""
        return self._attention.name

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
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unpatch()

    def unpatch(self) -> None:
        """Restores the model, or the patch that was below this one.

        Raises:
            UnsupportedModel: for a patch that is off already, or under a later one.
        """
        if not self._hooks:
            raise UnsupportedModel("this patch is off already")
        if handler_of(self.model) is not self:
            raise UnsupportedModel(
                "this patch is not the outermost one of its model: take the later patch off first"
            )
        while self._hooks:
            self._hooks.pop().remove()
        if not self._below:
            unwrap_generate(self.model)
        detach(self.model, self._below)

    @contextmanager
    def prompt(self, length: int) -> Iterator[None]:
        """States the prompt's length for the calls within, which may then feed it in chunks.

        Args:
            length: in tokens from the start of the cache; of a batch, that of its longest row. Rows are padded on the
                left where they come in chunks. Tokens beyond it are the answer, however many a call has.

        Raises:
            BadSetting: for a length below 1.
        """
        if length < 1:
            raise BadSetting(f"a prompt has at least one token, not {length}")
        before, self.stated = self.stated, length
        try:
            yield
        finally:
            self.stated = before

    def encoding(self, length: int) -> Encoding:
        """The encoding of a prompt of ``length`` tokens, in the layers that the method changes.

        Raises:
            BadSetting: where the plan does not cover every causal pair exactly once.
        Warns:
            PositionWarning: where a relative position leaves the window.
        """
        return self._encodings.of(length)

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        *,
        scale: float,
        logits: LogitOptions,
    ) -> Tensor:
        """Attention of one layer, ``[B, H, Q, D]``; rows of different lengths are run one by one."""
        if module not in self.layers.of:
            raise UnsupportedModel(
                f"{type(module).__name__} attends to more than the tokens of a text"
            )
        frame = self._frame(mask)
        rows = self._rows_of(dataclasses.replace(self.layers.of[module], local=frame.local), frame)
        kept = self._kept.of(module, key)
        if frame.rows == (range(frame.stop),):
            turned = None if kept is None else kept.all_rows(key)
            return self._attend_row(rows[0], frame, query, key, value, scale, logits, turned)
        out = query.new_zeros(*query.shape[:3], value.shape[-1])
        for row in rows:
            columns = slice(
                max(0, row.tokens.start - frame.start), max(0, row.tokens.stop - frame.start)
            )
            if columns.start < columns.stop:
                one = slice(row.index, row.index + 1)
                q = query[one, :, columns]
                start = max(0, row.tokens.start - frame.offset)
                turned = None if kept is None else kept.single_row(key, row.index, start)
                out[one, :, columns] = self._attend_row(
                    row, frame, q, key[one], value[one], scale, logits, turned
                )
        return out

    def _attend_row(
        self,
        row: "BatchRow",
        frame: ForwardLayout,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        logits: LogitOptions,
        turned: RotatedKeys | None,
    ) -> Tensor:
        first = max(row.tokens.start, frame.offset)
        tokens = slice(first - frame.offset, row.tokens.stop - frame.offset)
        call = AttentionInputs(
            query,
            key[:, :, tokens],
            value[:, :, tokens],
            row.settled.encoding,
            scale=scale,
            start=max(frame.start - row.tokens.start, 0),
            first=first - row.tokens.start,
            logits=logits,
            tables=row.settled.tables,
            rotated_keys=turned,
        )
        return self._attention.attend(call)

    def _frame(self, mask: Tensor | None) -> ForwardLayout:
        """The frame that a mask carries; read once for all layers that get the same."""
        for known, frame in self._frames:
            if known is mask:
                return frame
        frame = ForwardLayout.from_mask(mask)
        if self._call != (call := (frame.start, frame.stop, frame.rows, self.stated)):
            self._begin(frame)
            self._call = call
        assert mask is not None
        self._frames = [*self._frames[-3:], (mask, frame)]
        return frame

    def _begin(self, frame: ForwardLayout) -> None:
        """Begins the forward call that ``frame`` belongs to: a prompt, or a token of its answer."""
        if self.stated:
            self._prompt_stop = self.stated
        elif frame.start == 0 or frame.stop - frame.start > 1:
            self._prompt_stop = frame.stop
        elif not 0 < self._prompt_stop < frame.stop:
            raise UnsupportedModel(
                f"token {frame.stop} is no answer to the last prompt, of {self._prompt_stop} tokens: finish one answer "
                "before you begin the next prompt, or state this one's length with handle.prompt(length)"
            )
        if frame.start and any(0 < row.stop < frame.stop for row in frame.rows):
            raise UnsupportedModel(
                "where prompts come in chunks, pad rows on the left: one has ended before this call"
            )
        self._frames.clear()
        self._rows.clear()
        self._encodings.keep({self._length(tokens, frame) for tokens in frame.rows})

    def _length(self, tokens: range, frame: ForwardLayout) -> int:
        """The length of a row's prompt, of which ``tokens`` are there."""
        return max(1, len(tokens) + self._prompt_stop - frame.stop)

    def _rows_of(self, layer: LayerPositions, frame: ForwardLayout) -> "list[BatchRow]":
        """The rows that have begun."""
        if (layer, frame) not in self._rows:
            answered = frame.stop - self._prompt_stop
            self._rows[layer, frame] = [
                BatchRow(
                    index,
                    tokens,
                    self._encodings.settle(layer, self._length(tokens, frame), answered),
                )
                for index, tokens in enumerate(frame.rows)
                if tokens
            ]
        return self._rows[layer, frame]


@dataclass(frozen=True)
class BatchRow:
    """One row of a batch in a layer: which it is, which columns hold its tokens, and how they attend."""

    index: int
    tokens: range
    settled: LayerEncoding


def outermost_handle(model: nn.Module) -> Handle | None:
    """The outermost patch of a model.

    Raises:
        UnsupportedModel: for what is no model of transformers.
    """
    if not isinstance(getattr(model, "config", None), PreTrainedConfig):
        raise UnsupportedModel(
            f"a {type(model).__name__} is no model of transformers; give what from_pretrained returns"
        )
    found = handler_of(model)
    return found if isinstance(found, Handle) else None


def _state_prompt_end(model: nn.Module, end: int | None) -> AbstractContextManager[None]:
    """States the end of a prompt to a model's outermost patch, unless its caller has done so."""
    handle = outermost_handle(model)
    return handle.prompt(end) if handle and end and not handle.stated else nullcontext()
