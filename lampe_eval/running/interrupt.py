"""Ctrl-C and SIGTERM: the first one waits for the sample in hand, the second one stops at once."""

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Self

from lampe_eval.errors import Stopped

SIGNALS = signal.SIGINT, signal.SIGTERM


class Interrupt:
    """While it is on, the first signal is only noted in ``asked``; the second one raises Stopped."""

    asked: int | None = None

    def __enter__(self) -> Self:
        self._own = threading.current_thread() is threading.main_thread()  # no other thread is told
        if self._own:
            self._before = [signal.signal(number, self._ask) for number in SIGNALS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own:
            for number, before in zip(SIGNALS, self._before, strict=True):
                signal.signal(number, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise Stopped(number)
        self.asked = number
        again = "Ctrl-C again" if number == signal.SIGINT else "SIGTERM again"
        print(f"finishing the sample in hand; {again} stops at once", file=sys.stderr, flush=True)
