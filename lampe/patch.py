"""Patching a live transformers model: a position method in, and out again.

transformers looks attention up by name and asks a rotary module for cos and sin. A patch therefore has two parts:
forward hooks make every rotary module answer with the identity (cos 1, sin 0), and the registered attention rotates by
the plan instead, each layer as the probe found it to (``lampe.probe``). No model code is copied, the cache holds
unrotated keys in transformers' own classes, and taking the patch off restores the model exactly.

A method changes layers that see further than the window. A layer with a sliding window, or chunks, no larger than that
meets no distance it was not trained on, so it goes on as it was: true distances, its own rope, its own limit. A layer
that does not turn queries and keys has no positions to change.

A plan is made for the prompt's length, frozen for the answer that follows. ``generate`` tells its patch where the
prompt ends (``lampe.generating``), so it may feed it in chunks, guess several tokens at a time, or do without a cache;
what a cache holds already is part of the prompt. Of forward calls of your own, one over an empty cache, or over several
new tokens, begins a prompt, and one over a single new token continues the answer. Where that is not so, state it:

    with handle.prompt(length):
        ...
"""

import dataclasses
import warnings
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from lampe.attention import AUTO, Call, Chooser, Logits
from lampe.attention.rotary import RotaryTables
from lampe.attention.turned import Turned
from lampe.checks import check_causal, check_exact, proof_of
from lampe.encoding import Encoding
from lampe.errors import BadSetting, PositionWarning, UnsupportedModel
from lampe.frame import Frame
from lampe.generating import leave_prompts, state_prompts
from lampe.geometry import Geometry, geometry_of
from lampe.interface import behind, stand_aside, stand_behind
from lampe.kept import KeptKeys
from lampe.methods import Method, method_of
from lampe.positions import Local, PositionPlan
from lampe.probe import Layer, Layers, inside, probe
from lampe.rope import Rope
from lampe.rotaries import silence


class Handle:
    """A patched model. As a context manager, takes the patch off at the end.

    Attributes:
        model: the patched model.
        method: the method it runs.
        layers: what each of the model's layers does with positions.
        geometry: what the method was told of the model.
        stated: the prompt's length where ``prompt`` states one.
    """

    def __init__(self, model: PreTrainedModel, method: Method, layers: Layers, window: int, attention: Chooser) -> None:
        self._model = weakref.ref(model)
        self.method, self.layers = method, layers
        self._geometries = [dataclasses.replace(geometry, window=window) for geometry in layers.geometries]
        self.geometry = self._geometries[layers.main(window)]
        self._attention = attention
        self.stated: int | None = None
        self._prompt_stop = 0
        self._call: tuple[Any, ...] = ()
        self._frames: list[tuple[Tensor, Frame]] = []
        self._rows: dict[tuple[Layer, Frame], list[Row]] = {}
        self._settled: dict[tuple[Layer, int], Settled] = {}
        self._warned: set[float] = set()
        self._below = _outermost(model)
        stand_behind(model, self, layers.of)
        self._kept = KeptKeys()
        self._hooks = self._kept.watch(layers.of)
        if not self._below:
            self._hooks += silence(layers.rotaries)
            state_prompts(model, _stating)

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that have attended so far."""
        return tuple(dict.fromkeys(choice.backend for choice in self._attention.made))

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
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unpatch()

    def unpatch(self) -> None:
        """Restores the model, or the patch that was below this one.

        Raises:
            UnsupportedModel: for a patch that is off already, or under a later one.
        """
        if not self._hooks:
            raise UnsupportedModel("this patch is off already")
        if behind(self.model) is not self:
            raise UnsupportedModel("this patch is not the outermost one of its model: take the later patch off first")
        while self._hooks:
            self._hooks.pop().remove()
        if not self._below:
            leave_prompts(self.model)
        stand_aside(self.model, self._below)

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
        return self._extended(self.geometry, None, length)

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        *,
        scale: float,
        logits: Logits,
    ) -> Tensor:
        """Attention of one layer, ``[B, H, Q, D]``; rows of different lengths are run one by one."""
        if module not in self.layers.of:
            raise UnsupportedModel(f"{type(module).__name__} attends to more than the tokens of a text")
        frame = self._frame(mask)
        rows = self._rows_of(dataclasses.replace(self.layers.of[module], local=frame.local), frame)
        turned = self._kept.of(module, key)
        if frame.rows == (range(frame.stop),):
            return self._attend_row(rows[0], frame, query, key, value, scale, logits, turned)
        if turned:
            turned.restore(key)
        out = query.new_zeros(*query.shape[:3], value.shape[-1])
        for row in rows:
            columns = slice(max(0, row.tokens.start - frame.start), max(0, row.tokens.stop - frame.start))
            if columns.start < columns.stop:
                one = slice(row.index, row.index + 1)
                q = query[one, :, columns]
                out[one, :, columns] = self._attend_row(row, frame, q, key[one], value[one], scale, logits)
        return out

    def _attend_row(
        self,
        row: "Row",
        frame: Frame,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        logits: Logits,
        turned: Turned | None = None,
    ) -> Tensor:
        first = max(row.tokens.start, frame.offset)
        tokens = slice(first - frame.offset, row.tokens.stop - frame.offset)
        call = Call(
            query,
            key[:, :, tokens],
            value[:, :, tokens],
            row.settled.encoding,
            scale=scale,
            start=max(frame.start - row.tokens.start, 0),
            first=first - row.tokens.start,
            logits=logits,
            tables=row.settled.tables,
            turned=turned,
        )
        return self._attention.attend(call)

    def _frame(self, mask: Tensor | None) -> Frame:
        """The frame that a mask carries; read once for all layers that get the same."""
        for known, frame in self._frames:
            if known is mask:
                return frame
        frame = Frame.from_mask(mask)
        if self._call != (call := (frame.start, frame.stop, frame.rows, self.stated)):
            self._begin(frame)
            self._call = call
        assert mask is not None
        self._frames = [*self._frames[-3:], (mask, frame)]
        return frame

    def _begin(self, frame: Frame) -> None:
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
            raise UnsupportedModel("where prompts come in chunks, pad rows on the left: one has ended before this call")
        self._frames.clear()
        self._rows.clear()
        lengths = {self._length(tokens, frame) for tokens in frame.rows}
        self._settled = {key: settled for key, settled in self._settled.items() if key[1] in lengths}

    def _length(self, tokens: range, frame: Frame) -> int:
        """The length of a row's prompt, of which ``tokens`` are there."""
        return max(1, len(tokens) + self._prompt_stop - frame.stop)

    def _rows_of(self, layer: Layer, frame: Frame) -> "list[Row]":
        """The rows that have begun."""
        if (layer, frame) not in self._rows:
            answered = frame.stop - self._prompt_stop
            self._rows[layer, frame] = [
                Row(index, tokens, self._settle(layer, self._length(tokens, frame), answered))
                for index, tokens in enumerate(frame.rows)
                if tokens
            ]
        return self._rows[layer, frame]

    def _settle(self, layer: Layer, length: int, answered: int) -> "Settled":
        """The encoding of a prompt in a layer; a generated token has a plan of its own where the method has one."""
        if (layer, length) not in self._settled:
            encoding = self._encoding(layer, length)
            geometry = self._changed(layer)
            leaves = None if geometry is None else encoding.leaves(geometry.window, length, geometry.rope(length))
            self._settled[layer, length] = Settled(encoding, RotaryTables(), leaves)
        settled = self._settled[layer, length]
        if answered > 0 and (geometry := self._changed(layer)):
            stop = length + answered
            plan = self.method.answering(geometry, length, stop)
            if plan is not None:
                settled = settled.under(plan.within(layer.local))
            if settled.leaves is None or stop >= settled.leaves:
                self._warn(settled.encoding, geometry, length, stop)
        return settled

    def _changed(self, layer: Layer) -> Geometry | None:
        """The geometry of a layer that the method changes; None for the others."""
        if layer.rope is None or inside(layer.local, self.geometry.window):
            return None
        return self._geometries[layer.rope]

    def _encoding(self, layer: Layer, length: int) -> Encoding:
        if layer.rope is None:
            return _within(Encoding(Rope(())), layer.local)
        geometry = self._changed(layer)
        if geometry is None:
            return _within(Encoding(self._geometries[layer.rope].rope(length)), layer.local)
        return self._extended(geometry, layer.local, length)

    def _extended(self, geometry: Geometry, local: Local | None, length: int) -> Encoding:
        encoding = self.method.encode(geometry, length)
        if fault := encoding.plan.coverage_fault():
            raise BadSetting(f"{self.method.label}: pairs not covered exactly once: {fault}")
        encoding = _within(encoding, local)
        self._warn(encoding, geometry, length, length)
        return encoding

    def _warn(self, encoding: Encoding, geometry: Geometry, length: int, stop: int) -> None:
        """Warns once of a prompt which, or whose answer up to ``stop``, reaches beyond the window."""
        if length in self._warned:
            return
        reach = encoding.reach(stop, geometry.rope(length))
        if reach >= geometry.window:
            self._warned.add(length)
            answer = f" and {stop - length} of its answer" if stop > length else ""
            warnings.warn(
                f"{self.method.label}: a prompt of {length} tokens{answer} reaches relative position {reach:g}, "
                f"beyond the window of {geometry.window}",
                PositionWarning,
                stacklevel=2,
            )


@dataclass(frozen=True)
class Settled:
    """The encoding of a prompt in a layer, with the tables of its rope.

    Args:
        leaves: tokens of prompt and answer at which a relative position leaves the window; None where not known.
    """

    encoding: Encoding
    tables: RotaryTables
    leaves: int | None

    def under(self, plan: PositionPlan) -> Self:
        """The same with the plan of one generated token."""
        return dataclasses.replace(self, encoding=dataclasses.replace(self.encoding, plan=plan), leaves=None)


@dataclass(frozen=True)
class Row:
    """One row of a batch in a layer: which it is, which columns hold its tokens, and how they attend."""

    index: int
    tokens: range
    settled: Settled


def _within(encoding: Encoding, local: Local | None) -> Encoding:
    return dataclasses.replace(encoding, plan=encoding.plan.within(local))


def _outermost(model: nn.Module) -> Handle | None:
    """The outermost patch of a model.

    Raises:
        UnsupportedModel: for what is no model of transformers.
    """
    if not isinstance(getattr(model, "config", None), PreTrainedConfig):
        raise UnsupportedModel(
            f"a {type(model).__name__} is no model of transformers; give what from_pretrained returns"
        )
    found = behind(model)
    return found if isinstance(found, Handle) else None


def _stating(model: nn.Module, end: int | None) -> AbstractContextManager[None]:
    """States the end of a prompt to a model's outermost patch, unless its caller has done so."""
    handle = _outermost(model)
    return handle.prompt(end) if handle and end and not handle.stated else nullcontext()


def patch(
    model: PreTrainedModel,
    method: str | Method = "lampe",
    *,
    window: int | None = None,
    attention: str = AUTO,
    check: bool = True,
    **settings: Any,
) -> Handle:
    """Gives a model's attention the positions of a method, in place.

    A handle follows one sequence of calls at a time: a call of ``generate``, on an empty cache, or over several new
    tokens begins a prompt, and its length holds for the single tokens that follow. So finish one answer before you
    begin the next, and where you feed a prompt in pieces yourself state its length with ``handle.prompt``.
    transformers refuses ``generate_batch`` of a patched model: its paged cache goes with attention of its own.

    Args:
        model: a causal decoder with rotary positions, loaded by transformers.
        method: a method or its name.
        window: tokens the model was pretrained on; read from its configuration where not given.
        attention: the backend, one of ``lampe.BACKENDS``; "auto" is the fastest that can take a call.
        check: whether to prove on a few tokens that the patch is exact and causal (see ``lampe.checks``).
        settings: hyper-parameters of a method given by name.

    Returns:
        The handle; ``handle.unpatch()`` or ``lampe.unpatch(model)`` takes the patch off.

    Raises:
        UnknownName: for a method, setting or backend that does not exist.
        BadSetting: for a hyper-parameter the method cannot take.
        UnsupportedModel: for a model that cannot be patched exactly.
    Warns:
        PositionWarning: where the method changes nothing, for no layer sees further than the window.
    """
    chooser = Chooser(attention)
    if isinstance(method, str):
        method = method_of(method, **settings)
    elif settings:
        raise BadSetting(f"settings ({', '.join(settings)}) go with a method's name; this method has its own already")
    below = _outermost(model)
    geometry = geometry_of(model.config, window)
    layers = below.layers if below else probe(model, geometry)
    if check and not below:
        original = method_of("original")
        check_exact(model, layers.of, lambda: Handle(model, original, layers, geometry.window, chooser))
    if check:
        main = dataclasses.replace(layers.geometries[layers.main(geometry.window)], window=geometry.window)
        small, tokens = proof_of(method, main)
        check_causal(model, layers.of, lambda: Handle(model, method, layers, small.window, chooser), tokens)
    handle = Handle(model, method, layers, geometry.window, chooser)
    if not layers.extendable(geometry.window):
        warnings.warn(
            f"{type(model).__name__}: no layer with rotary positions sees further than the window of "
            f"{geometry.window}, so {method.label} changes nothing; load the model without its sliding window if it "
            "is to be extended",
            PositionWarning,
            stacklevel=2,
        )
    return handle


@torch.no_grad()
def explain(model: PreTrainedModel) -> str:
    """Which backend attends in a patched model, and why the faster ones do not, found out on a few tokens.

    Raises:
        UnsupportedModel: where the model is not patched.
    """
    handle = _patch_of(model)
    attention = Chooser(handle.attention)
    with Handle(model, handle.method, handle.layers, handle.geometry.window, attention), warnings.catch_warnings():
        warnings.simplefilter("ignore", PositionWarning)
        ids = torch.zeros(1, 3, dtype=torch.long, device=model.device)
        cache = model(ids[:, :2], use_cache=True).past_key_values
        model(ids[:, 2:], past_key_values=cache, use_cache=True)
    return "\n".join(str(choice) for choice in attention.made)


def unpatch(model: PreTrainedModel) -> None:
    """Takes the outermost patch off a model.

    Raises:
        UnsupportedModel: where the model is not patched.
    """
    _patch_of(model).unpatch()


def _patch_of(model: PreTrainedModel) -> Handle:
    handle = _outermost(model)
    if handle is None:
        raise UnsupportedModel(f"this {type(model).__name__} is not patched")
    return handle
