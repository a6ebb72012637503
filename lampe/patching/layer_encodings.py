"""Which encoding each layer has for a prompt, and for the tokens of its answer."""

import dataclasses
import warnings
from collections.abc import Container
from dataclasses import dataclass
from typing import Self

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
    """The encoding of a prompt in a layer, with the tables of its rope.

    Args:
        leaves: tokens of prompt and answer at which a relative position leaves the window; None where not known.
    """

    encoding: Encoding
    tables: RotaryTables
    leaves: int | None

    def under(self, plan: PositionPlan) -> Self:
        """The same with the plan of one generated token."""
        return dataclasses.replace(
            self, encoding=dataclasses.replace(self.encoding, plan=plan), leaves=None
        )


class LayerEncodings:
    """The encodings of a method on a model's layers, kept for the prompts at hand.

    Attributes:
        geometry: what the method is told of the model.
    """

    def __init__(self, method: Method, layers: ProbedLayers, window: int) -> None:
        self._method = method
        self._geometries = [
            dataclasses.replace(geometry, window=window) for geometry in layers.geometries
        ]
        self.geometry = self._geometries[layers.main(window)]
        self._settled: dict[tuple[LayerPositions, int], LayerEncoding] = {}
        self._warned: set[float] = set()

    def of(self, length: int) -> Encoding:
        """The encoding of a prompt of ``length`` tokens, in the layers that the method changes.

        Raises:
            BadSetting: where the plan does not cover every causal pair exactly once.
        """
        return self._extended(self.geometry, None, length)

    def keep(self, lengths: Container[int]) -> None:
        """Forgets all prompts but those of these lengths."""
        self._settled = {
            key: settled for key, settled in self._settled.items() if key[1] in lengths
        }

    def settle(self, layer: LayerPositions, length: int, answered: int) -> "LayerEncoding":
        """The encoding of a prompt in a layer; a generated token has a plan of its own where the method has one."""
        if (layer, length) not in self._settled:
            encoding = self._encoding(layer, length)
            geometry = self._changed(layer)
            leaves = (
                None
                if geometry is None
                else encoding.length_within_window(geometry.window, length, geometry.rope(length))
            )
            self._settled[layer, length] = LayerEncoding(encoding, RotaryTables(), leaves)
        settled = self._settled[layer, length]
        if answered > 0 and (geometry := self._changed(layer)):
            stop = length + answered
            plan = self._method.decode_plan(geometry, length, stop)
            if plan is not None:
                settled = settled.under(plan.within(layer.local))
            if settled.leaves is None or stop >= settled.leaves:
                self._warn(settled.encoding, geometry, length, stop)
        return settled

    def _changed(self, layer: LayerPositions) -> Geometry | None:
        """The geometry of a layer that the method changes; None for the others."""
        if layer.rope is None or fits_window(layer.local, self.geometry.window):
            return None
        return self._geometries[layer.rope]

    def _encoding(self, layer: LayerPositions, length: int) -> Encoding:
        if layer.rope is None:
            return _within(Encoding(Rope(())), layer.local)
        geometry = self._changed(layer)
        if geometry is None:
            return _within(Encoding(self._geometries[layer.rope].rope(length)), layer.local)
        return self._extended(geometry, layer.local, length)

    def _extended(self, geometry: Geometry, local: LocalWindow | None, length: int) -> Encoding:
        encoding = self._method.encode(geometry, length)
        if fault := encoding.plan.coverage_fault():
            raise BadSetting(f"{self._method.label}: pairs not covered exactly once: {fault}")
        encoding = _within(encoding, local)
        self._warn(encoding, geometry, length, length)
        return encoding

    def _warn(self, encoding: Encoding, geometry: Geometry, length: int, stop: int) -> None:
        """Warns once of a prompt which, or whose answer up to ``stop``, reaches beyond the window."""
        if length in self._warned:
            return
        reach = encoding.largest_position(stop, geometry.rope(length))
        if reach >= geometry.window:
            self._warned.add(length)
            answer = f" and {stop - length} of its answer" if stop > length else ""
            warnings.warn(
                f"{self._method.label}: a prompt of {length} tokens{answer} reaches relative position {reach:g}, "
                f"beyond the window of {geometry.window}",
                PositionWarning,
                stacklevel=2,
            )


def _within(encoding: Encoding, local: LocalWindow | None) -> Encoding:
    return dataclasses.replace(encoding, plan=encoding.plan.within(local))
