"""Encodings of each layer, for a prompt and for the tokens of its answer."""

import dataclasses
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from lampe.attention.rotation import RotaryTables
from lampe.encoding import Encoding
from lampe.errors import BadSetting, PositionWarning
from lampe.geometry import Geometry
from lampe.methods import Method
from lampe.patching.layer_probe import LayerPositions, ProbedLayers, fits_window
from lampe.positions import LocalWindow, PositionPlan
from lampe.rope import Rope


@dataclass(frozen=True)
class LayerEncoding:
    """Encoding of a prompt, or of one generated token, in a layer.

    Attributes:
        encoding: rope, plan and attention factor.
        tables: rotary tables of its rope, shared by prompt and answer.
        stop: tokens of prompt and answer that it was built for.
        new_tokens: tokens of the call that it was built for, where it depends on them.
        within_window: tokens of prompt and answer at which a relative position leaves the window;
            None where that is not known.
    """

    encoding: Encoding
    tables: RotaryTables
    stop: int
    within_window: int | None
    new_tokens: int = 0


_Key = tuple[LayerPositions, int]
"""Kind of layer, and length of the prompt in tokens."""


class _ThreadEncodings(threading.local):
    """Encodings in use by the calling thread.

    They are not shared between threads: rotary tables change while they are used.

    Attributes:
        prompts: encodings of prompts.
        tokens: encoding of the latest generated token of each prompt.
    """

    def __init__(self) -> None:
        self.prompts: dict[_Key, LayerEncoding] = {}
        self.tokens: dict[_Key, LayerEncoding] = {}


class LayerEncodings:
    """Encodings of a method on a model's layers, built once for each prompt.

    Attributes:
        geometry: geometry of the layers that the method changes.
    """

    def __init__(self, method: Method, layers: ProbedLayers, window: int) -> None:
        self._method = method
        self._geometries = [
            dataclasses.replace(geometry, window=window) for geometry in layers.geometries
        ]
        self.geometry = self._geometries[layers.main_geometry(window)]
        self._kinds = set(layers.by_module.values())
        self._thread = _ThreadEncodings()
        self._warned_lengths: set[int] = set()
        self._warning_lock = threading.Lock()

    def release(self) -> None:
        """Free the encodings of all threads; rotary tables may be large."""
        self._thread = _ThreadEncodings()

    def for_prompt(self, length: int) -> Encoding:
        """Return the encoding of a prompt of ``length`` tokens in the layers the method changes.

        Raises:
            BadSetting: where the plan does not cover every causal pair.
        """
        return self._extended_encoding(self.geometry, None, length)

    def depend_on_length(self, lengths: Sequence[int]) -> bool:
        """Return whether prompts of these lengths in tokens differ in rope, plan or factor."""
        distinct = list(dict.fromkeys(max(1, length) for length in lengths))
        if len(distinct) == 1:
            return False
        first = self._encodings_of_all_kinds(distinct[0])
        return any(self._encodings_of_all_kinds(length) != first for length in distinct[1:])

    def _encodings_of_all_kinds(self, length: int) -> list[Encoding | Rope | str]:
        """Return what each kind of layer does with a prompt: an encoding, or why it has none."""
        encodings: list[Encoding | Rope | str] = []
        for layer in self._kinds:
            geometry = self._changed_geometry(layer)
            if geometry is None:
                if layer.rope is not None:
                    encodings.append(self._geometries[layer.rope].rope(length))
                continue
            try:
                encodings.append(self._method.encode(geometry, length))
            except BadSetting as error:
                encodings.append(str(error))
        return encodings

    def for_layer(
        self, layer: LayerPositions, lengths: Sequence[int], generated: int, new_tokens: int
    ) -> list[LayerEncoding]:
        """Return the encoding of each row in a layer.

        Args:
            layer: kind of the layer.
            lengths: tokens of each row's prompt, with those reserved for its answer.
            generated: tokens of the answer beyond these; 0 or less before.
            new_tokens: tokens of the forward call.
        """
        prompts = self._thread.prompts
        if any((layer, length) not in prompts for length in lengths):
            # A prompt of another length has arrived, so earlier prompts are over. Their tables may
            # be large: two float32 numbers per token and rotated pair, for each position map.
            self._drop_other_lengths(lengths)
        return [self._for_row(layer, length, generated, new_tokens) for length in lengths]

    def _drop_other_lengths(self, lengths: Sequence[int]) -> None:
        for known in (self._thread.prompts, self._thread.tokens):
            for key in list(known):
                if key[1] not in lengths:
                    del known[key]

    def _for_row(
        self, layer: LayerPositions, length: int, generated: int, new_tokens: int
    ) -> LayerEncoding:
        key = layer, length
        prompt = self._thread.prompts.get(key)
        if prompt is None:
            prompt = self._thread.prompts[key] = self._prompt_encoding(layer, length)
        geometry = self._changed_geometry(layer)
        if generated <= 0 or geometry is None:
            return prompt
        # All layers must get the same object: rotated keys are shared by encoding.
        token = self._thread.tokens.get(key)
        stop = length + generated
        if token is None or (token.stop, token.new_tokens) != (stop, new_tokens):
            token = self._token_encoding(prompt, layer, geometry, length, stop, new_tokens)
            self._thread.tokens[key] = token
        return token

    def _prompt_encoding(self, layer: LayerPositions, length: int) -> LayerEncoding:
        geometry = self._changed_geometry(layer)
        if geometry is not None:
            # Found once per prompt by bisection, so that a decode step compares two integers.
            encoding = self._extended_encoding(geometry, layer.local, length)
            within_window = encoding.length_within_window(
                geometry.window, length, geometry.rope(length)
            )
            return LayerEncoding(encoding, RotaryTables(), length, within_window)
        # A rope without pairs rotates nothing.
        rope = Rope(()) if layer.rope is None else self._geometries[layer.rope].rope(length)
        encoding = _restricted(Encoding(rope), layer.local)
        return LayerEncoding(encoding, RotaryTables(), length, None)

    def _token_encoding(
        self,
        prompt: LayerEncoding,
        layer: LayerPositions,
        geometry: Geometry,
        length: int,
        stop: int,
        new_tokens: int,
    ) -> LayerEncoding:
        """Return the encoding of the generated tokens before ``stop``; warn beyond the window."""
        encoding, within_window = prompt.encoding, prompt.within_window
        # Some methods make a plan for each generated token. Otherwise the prompt's goes on. A call
        # may hold the end of the prompt, and several tokens of the answer.
        new = range(max(length, stop - max(1, new_tokens)), stop)
        plans = [self._method.decode_plan(geometry, length, token + 1) for token in new]
        if any(plan is not None for plan in plans):
            plan, *others = [plan or encoding.plan for plan in plans]
            if new_tokens > 1:
                plan = encoding.plan.then(new[0], plan)
            for token, own in zip(new[1:], others, strict=True):
                plan = plan.then(token, own)
            encoding = dataclasses.replace(encoding, plan=plan.within(layer.local))
            # Every step has another plan, so the prompt's bisection does not hold for it.
            within_window = None
        if within_window is None or stop >= within_window:
            self._warn_beyond_window(encoding, geometry, length, stop)
        return LayerEncoding(encoding, prompt.tables, stop, within_window, new_tokens)

    def _changed_geometry(self, layer: LayerPositions) -> Geometry | None:
        """Return the geometry of a layer that the method changes; None for other layers."""
        if layer.rope is None or fits_window(layer.local, self.geometry.window):
            return None
        return self._geometries[layer.rope]

    def _extended_encoding(
        self, geometry: Geometry, local: LocalWindow | None, length: int
    ) -> Encoding:
        encoding = self._method.encode(geometry, length)
        require_coverage(self._method, encoding.plan)
        encoding = _restricted(encoding, local)
        self._warn_beyond_window(encoding, geometry, length, length)
        return encoding

    def _warn_beyond_window(
        self, encoding: Encoding, geometry: Geometry, length: int, stop: int
    ) -> None:
        """Warn once per length of a prompt whose positions up to ``stop`` leave the window."""
        if length in self._warned_lengths:
            return
        position = encoding.largest_position(stop, geometry.rope(length))
        if position < geometry.window:
            return
        with self._warning_lock:
            # Another thread may have warned since.
            if length in self._warned_lengths:
                return
            self._warned_lengths.add(length)
        answer = f" and {stop - length} of its answer" if stop > length else ""
        warnings.warn(
            f"{self._method.label}: a prompt of {length} tokens{answer} reaches relative position "
            f"{position:g}, beyond the window of {geometry.window}",
            PositionWarning,
            stacklevel=2,
        )


def require_coverage(method: Method, plan: PositionPlan) -> None:
    """Raise BadSetting unless a plan covers every causal pair, once unless it is overlapping."""
    if fault := plan.coverage_fault():
        raise BadSetting(f"{method.label}: pairs not covered exactly once: {fault}")


def _restricted(encoding: Encoding, local: LocalWindow | None) -> Encoding:
    """Return the encoding for a layer that attends to no more than ``local``."""
    return dataclasses.replace(encoding, plan=encoding.plan.within(local))
