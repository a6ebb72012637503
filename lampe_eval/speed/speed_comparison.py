"""Every method, backend and length beside plain attention: rows of ratios.

Runs alternate (plain, method, plain, method, ...), and each pair gives one ratio, so that a machine whose speed drifts
moves both. The first pair prepares, and is not counted.
"""

import math
import os
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

import lampe
from lampe_eval.engine import device_memory
from lampe_eval.errors import unknown_name
from lampe_eval.running.environment import environment
from lampe_eval.running.progress import Progress
from lampe_eval.speed.measured_model import load_measured_model
from lampe_eval.speed.speed_config import SpeedConfig
from lampe_eval.speed.timing import MemoryCost, TimeCost, TimedModel

PLAIN_ATTENTION = "plain"


@dataclass(eq=False)
class Entry:
    """A method under a backend, at a length.

    Attributes:
        method, attention: as they were asked for.
        plain, times: of plain attention and of the method, pair by pair.
        plain_room, room: the same of memory.
        note: why the method has nothing.
    """

    method: str
    attention: str
    length: int
    way: TimedModel
    plain: list[TimeCost] = field(default_factory=list)
    times: list[TimeCost] = field(default_factory=list)
    plain_room: list[MemoryCost] = field(default_factory=list)
    room: list[MemoryCost] = field(default_factory=list)
    note: str = ""


class SpeedComparison:
    """What an order asks for, measured one by one; what is measured is there whatever stops the rest.

    Raises:
        UserError: where the model or a backend cannot be had.
    """

    def __init__(self, order: SpeedConfig) -> None:
        for backend in order.attention:
            if backend not in (lampe.AUTO, *lampe.BACKENDS):
                raise unknown_name(
                    "attention backend",
                    backend,
                    (lampe.AUTO, *lampe.BACKENDS),
                    "lampe-eval speed --help",
                )
        self._order = order
        self._model, settings = load_measured_model(order)
        self._plain = TimedModel(self._model, chunk=order.chunk)
        self.entries = [
            Entry(spec.label, backend, length, self._way(spec.build(settings), backend))
            for length in order.lengths
            for spec in order.specs
            for backend in order.attention
        ]

    def run(self, progress: Progress) -> None:
        """Measures times, then memory, for which the allocator is another one."""
        progress.total(2 * len(self.entries))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lampe.PositionWarning)
            for what, measure in (("time", _time), ("memory", _weigh)):
                for entry in self.entries:
                    progress.now(
                        f"{what} · {entry.method} · {entry.attention} · {entry.length} tokens"
                    )
                    measure(self._plain, entry, self._order.pairs)
                    progress.finished()

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each method, backend and length, and before those of a length one of plain attention.

        Columns ``*_s`` are medians in seconds, ``*_plain_s`` those of the plain runs that took turns with them;
        ``*_ratio`` is the median of the pairs' ratios, ``*_low`` and ``*_high`` their range; ``*_bytes`` are beyond the
        loaded model.
        """
        where = {
            **environment(),
            "load": round(os.getloadavg()[0], 1),
            "date": date.today().isoformat(),
        }
        about = {
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "device": self._model.device.type,
            "layers": self._model.config.get_text_config().num_hidden_layers,
            "chunk": self._order.chunk,
            "window": self._order.window,
        }
        rows = (
            row
            for length in self._order.lengths
            for row in _rows([entry for entry in self.entries if entry.length == length])
        )
        return pd.DataFrame([{"model": self._order.name, **row, **about, **where} for row in rows])

    def _way(self, method: lampe.Method, backend: str) -> TimedModel:
        return TimedModel(self._model, method, backend, self._order.window, self._order.chunk)


def time_growth(rows: pd.DataFrame) -> float:
    """With which power of the length the seconds of a prompt grow; NaN for fewer than two lengths."""
    known = rows.dropna(subset="prefill_s")
    if known["length"].nunique() < 2:
        return math.nan
    return float(np.polyfit(np.log(known["length"]), np.log(known["prefill_s"]), 1)[0])


def _time(plain: TimedModel, entry: Entry, pairs: int) -> None:
    for _ in range(1 + pairs):
        _try(lambda: entry.plain.append(plain.cost(entry.length)))
        entry.note = entry.note or _try(lambda: entry.times.append(entry.way.cost(entry.length)))
    entry.plain, entry.times = entry.plain[1:], entry.times[1:]


def _weigh(plain: TimedModel, entry: Entry, _: int) -> None:
    _try(lambda: entry.plain_room.append(plain.room(entry.length)))
    entry.note = entry.note or _try(lambda: entry.room.append(entry.way.room(entry.length)))


def _try(measure: Callable[[], None]) -> str:
    """Measures; the words of a backend that refuses, or that there is not enough memory."""
    try:
        measure()
    except lampe.LampeError as error:
        return str(error)
    except Exception as error:
        if not device_memory.is_out_of_memory(error):
            raise
        return "out of memory"
    finally:
        device_memory.free_unused()
    return ""


def _rows(entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """The rows of one length."""
    plain = [cost for entry in entries for cost in entry.plain]
    rooms = [room for entry in entries for room in entry.plain_room]
    head = {"length": entries[0].length}
    note = "" if plain else "out of memory"
    names = {"method": PLAIN_ATTENTION, "attention": "sdpa", "backend": "sdpa", **head}
    yield {**names, **_numbers(plain, plain, rooms, rooms), "pairs": len(plain), "note": note}
    for entry in entries:
        backend = entry.way.backend if entry.times else entry.attention
        names = {"method": entry.method, "attention": entry.attention, "backend": backend, **head}
        numbers = _numbers(entry.plain, entry.times, entry.plain_room, entry.room)
        yield {**names, **numbers, "pairs": len(entry.times), "note": entry.note}


def _numbers(
    plain: Sequence[TimeCost], own: Sequence[TimeCost], *rooms: Sequence[MemoryCost]
) -> dict[str, float]:
    """Medians, and ratios to plain attention with their range."""
    found: dict[str, float] = {}
    for name in ("prefill", "first", "step"):
        seconds, before = ([asdict(cost)[name] for cost in costs] for costs in (own, plain))
        ratios = [one / other for one, other in zip(seconds, before, strict=False)]
        low, high = min(ratios, default=math.nan), max(ratios, default=math.nan)
        found |= {
            f"{name}_s": _median(seconds),
            f"{name}_plain_s": _median(before),
            f"{name}_ratio": _median(ratios),
        }
        found |= {f"{name}_low": low, f"{name}_high": high}
    for name in ("peak", "held"):
        less, more = (_median([asdict(room)[name] for room in each]) for each in rooms)
        found |= {f"{name}_bytes": more, f"{name}_plain_bytes": less}
        found[f"{name}_ratio"] = more / less if less else math.nan
    return found


def _median(numbers: Sequence[float]) -> float:
    return statistics.median(numbers) if numbers else math.nan
