"""Ctrl-C and SIGTERM: the first one waits for the running batches, the second one stops at once."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from lampe_eval.errors import Stopped

SIGNAL_NAMES = {signal.SIGINT: b"Ctrl-C", signal.SIGTERM: b"SIGTERM"}


class Interrupt:
    """Handler of signals within a context: the first one is noted, the second one raises `Stopped`.

    Args:
        is_running: whether a batch is running. If none is, such as while the model is loaded, the
            first signal raises, too.

    Attributes:
        signal_number: the signal that asks the run to stop; None if there was none.
    """

    def __init__(self, is_running: Callable[[], bool]) -> None:
        self.signal_number: int | None = None
        self._is_running = is_running
        self._previous_handlers: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread alone, and only it may set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNAL_NAMES:
                self._previous_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None or not self._is_running():
            raise Stopped(number)
        self.signal_number = number
        name = SIGNAL_NAMES[signal.Signals(number)]
        # os.write, because the handler may have interrupted print, which must not be entered twice.
        os.write(2, b"finishing the running batch; %b again stops at once\n" % name)
