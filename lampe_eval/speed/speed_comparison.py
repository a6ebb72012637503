"""Comparison of every method, backend and length with plain attention.

Runs alternate (plain, method, plain, method, ...), and each pair gives one ratio, so a machine
whose speed drifts changes both. The first pair warms up and is not counted.
"""

import math
import os
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, TypeVar

import numpy as np
import pandas as pd

import lampe
from lampe_eval import device_memory
from lampe_eval.errors import UserError
from lampe_eval.running.environment import environment
from lampe_eval.running.progress import Progress
from lampe_eval.speed.measured_model import load_measured_model
from lampe_eval.speed.speed_config import ResolvedSpeed
from lampe_eval.speed.timing import MemoryCost, TimeCost, TimedModel

PLAIN_ATTENTION = "plain"
WARM_UP_PAIRS = 1

Cost = TypeVar("Cost")


@dataclass(eq=False)
class ComparedMethod:
    """Measurements of a method with a backend at a length, and of plain attention beside it.

    Attributes:
        label: the method as given.
        attention: the backend as given.
        length: tokens of the prompt.
        timed: the model patched with the method.
        plain_times: times of plain attention, pair by pair.
        times: times of the method, pair by pair.
        plain_memory_costs: memory of plain attention, one element at most.
        memory_costs: memory of the method, one element at most.
        note: why the method could not be measured, or nothing.
    """

    label: str
    attention: str
    length: int
    timed: TimedModel
    plain_times: list[TimeCost] = field(default_factory=list)
    times: list[TimeCost] = field(default_factory=list)
    plain_memory_costs: list[MemoryCost] = field(default_factory=list)
    memory_costs: list[MemoryCost] = field(default_factory=list)
    note: str = ""

    @property
    def name(self) -> str:
        """Return the name for a display of progress."""
        return f"{self.label} · {self.attention} · {self.length} tokens"


class SpeedComparison:
    """Measurements of all methods of a configuration; those made before an interruption remain.

    Args:
        resolved: what to measure.

    Attributes:
        compared: the methods with what was measured of them.

    Raises:
        UserError: if the model cannot be loaded, or no method can be used at any length.
    """

    def __init__(self, resolved: ResolvedSpeed) -> None:
        config = resolved.config
        self._config = config
        self._model, settings = load_measured_model(resolved)
        self._plain = TimedModel(self._model, chunk=config.chunk)
        self.compared: list[ComparedMethod] = []
        for length in config.lengths:
            for spec in resolved.specs:
                for backend in config.attention:
                    timed = self._timed_model(spec.build(settings), backend)
                    compared = ComparedMethod(spec.label, backend, length, timed)
                    _, compared.note = _attempt(timed.check, length)
                    self.compared.append(compared)
        if all(compared.note for compared in self.compared):
            raise UserError(f"nothing can be measured: {self.compared[0].note}")

    def run(self, progress: Progress) -> None:
        """Measure the times of all methods, then their memory."""
        progress.total(2 * len(self.compared))
        with warnings.catch_warnings():
            # a prompt may exceed what a method reaches; only its cost matters here
            warnings.simplefilter("ignore", lampe.PositionWarning)
            for compared in self.compared:
                progress.now(f"time · {compared.name}")
                self._measure_time(compared)
                progress.finished()
            # Memory comes last, because measuring it changes how the process allocates.
            for compared in self.compared:
                progress.now(f"memory · {compared.name}")
                self._measure_memory(compared)
                progress.finished()

    @property
    def table(self) -> pd.DataFrame:
        """Return rows for each method, backend and length; plain attention begins a length's.

        Columns ``*_s`` are medians in seconds, ``*_plain_s`` those of the plain runs that
        alternated with them; ``*_ratio`` is the median of the pairs' ratios, ``*_low`` and
        ``*_high`` their range; ``*_bytes`` are beyond the loaded model.
        """
        about = {
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "device": self._model.device.type,
            "layers": self._model.config.get_text_config().num_hidden_layers,
            "chunk": self._config.chunk,
            "window": self._config.window,
            **environment(),
            # Whether other work slowed the machine down.
            "load": round(os.getloadavg()[0], 1),
            "date": date.today().isoformat(),
        }
        rows: list[dict[str, Any]] = []
        for length in self._config.lengths:
            compared = [each for each in self.compared if each.length == length]
            for row in [_plain_row(compared), *map(_method_row, compared)]:
                rows.append({"model": self._config.name, **row, **about})
        return pd.DataFrame(rows)

    def _timed_model(self, method: lampe.Method, backend: str) -> TimedModel:
        config = self._config
        return TimedModel(self._model, method, backend, config.window, config.chunk)

    def _measure_time(self, compared: ComparedMethod) -> None:
        for pair in range(WARM_UP_PAIRS + self._config.pairs):
            plain, _ = _attempt(self._plain.measure_time, compared.length)
            method = None
            if not compared.note:
                method, compared.note = _attempt(compared.timed.measure_time, compared.length)
            if pair < WARM_UP_PAIRS:
                continue
            if plain:
                compared.plain_times.append(plain)
            if method:
                compared.times.append(method)

    def _measure_memory(self, compared: ComparedMethod) -> None:
        plain, _ = _attempt(self._plain.measure_memory, compared.length)
        if plain:
            compared.plain_memory_costs.append(plain)
        if not compared.note:
            method, compared.note = _attempt(compared.timed.measure_memory, compared.length)
            if method:
                compared.memory_costs.append(method)


def time_growth(rows: pd.DataFrame) -> float:
    """Return the power of the length with which the seconds of a prompt grow.

    It is the slope of a line through logarithms; NaN for fewer than two lengths.
    """
    known = rows.dropna(subset="prefill_s")
    if known["length"].nunique() < 2:
        return math.nan
    return float(np.polyfit(np.log(known["length"]), np.log(known["prefill_s"]), 1)[0])


def _attempt(measure: Callable[[int], Cost], length: int) -> tuple[Cost | None, str]:
    """Return a measurement, or None and why there is none: a refusal, or too little memory."""
    try:
        return measure(length), ""
    except lampe.LampeError as error:
        return None, str(error)
    except Exception as error:
        if not device_memory.is_out_of_memory(error):
            raise
        return None, "out of memory"
    finally:
        device_memory.free_unused()  # so that the next measurement does not pay for this one


def _plain_row(compared: Sequence[ComparedMethod]) -> dict[str, Any]:
    """Return the row of plain attention at a length, from the runs beside all methods."""
    times: list[TimeCost] = []
    costs: list[MemoryCost] = []
    for each in compared:
        times += each.plain_times
        costs += each.plain_memory_costs
    return {
        "method": PLAIN_ATTENTION,
        "attention": "sdpa",
        "backend": "sdpa",
        "length": compared[0].length,
        # Compared with itself: its ratios are 1, and tables leave them out.
        **_time_columns(times, times),
        **_memory_columns(costs, costs),
        "pairs": len(times),
        "note": "" if times else "out of memory",
    }


def _method_row(compared: ComparedMethod) -> dict[str, Any]:
    """Return the row of a method with a backend at a length."""
    return {
        "method": compared.label,
        "attention": compared.attention,
        "backend": compared.timed.backend if compared.times else compared.attention,
        "length": compared.length,
        **_time_columns(compared.plain_times, compared.times),
        **_memory_columns(compared.plain_memory_costs, compared.memory_costs),
        "pairs": len(compared.times),
        "note": compared.note,
    }


def _time_columns(plain: Sequence[TimeCost], method: Sequence[TimeCost]) -> dict[str, float]:
    """Return medians, and the ratios of the pairs with their range."""
    columns: dict[str, float] = {}
    for name in ("prefill", "first", "step"):
        seconds = [asdict(cost)[name] for cost in method]
        plain_seconds = [asdict(cost)[name] for cost in plain]
        # a stopped measurement may have one plain run more than runs of the method
        pairs = zip(seconds, plain_seconds, strict=False)
        ratios = [own / other for own, other in pairs]
        columns[f"{name}_s"] = _median(seconds)
        columns[f"{name}_plain_s"] = _median(plain_seconds)
        columns[f"{name}_ratio"] = _median(ratios)
        columns[f"{name}_low"] = min(ratios, default=math.nan)
        columns[f"{name}_high"] = max(ratios, default=math.nan)
    return columns


def _memory_columns(plain: Sequence[MemoryCost], method: Sequence[MemoryCost]) -> dict[str, float]:
    """Return medians and their ratio."""
    columns: dict[str, float] = {}
    for name in ("peak", "held"):
        plain_bytes = _median([asdict(cost)[name] for cost in plain])
        method_bytes = _median([asdict(cost)[name] for cost in method])
        columns[f"{name}_bytes"] = method_bytes
        columns[f"{name}_plain_bytes"] = plain_bytes
        columns[f"{name}_ratio"] = method_bytes / plain_bytes if plain_bytes else math.nan
    return columns


def _median(numbers: Sequence[float]) -> float:
    return statistics.median(numbers) if numbers else math.nan
