"""Ctrl-C and SIGTERM: the first one waits for the sample in hand, the second one stops at once."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from lampe_eval.errors import Stopped

SIGNALS = {signal.SIGINT: b"Ctrl-C", signal.SIGTERM: b"SIGTERM"}


class Interrupt:
    """While it is on, the first signal is only noted in ``asked``; the second one raises Stopped.

    Args:
        busy: whether a sample is in hand; if not, as while the model is loaded, the first one raises too.
    """

    asked: int | None = None

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy

    def __enter__(self) -> Self:
        self._own = threading.current_thread() is threading.main_thread()  # no other thread is told
        if self._own:
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._own:
            for number, before in self._before.items():
                signal.signal(number, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self._busy():
            raise Stopped(number)
        self.asked = number
        again = SIGNALS[signal.Signals(number)]
        # not by print, which this may have interrupted
        os.write(2, b"finishing the sample in hand; %b again stops at once\n" % again)
