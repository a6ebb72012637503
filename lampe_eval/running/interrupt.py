"""Ctrl-C: the first one waits for the sample in hand, the second one stops at once."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self


class Interrupt:
    """While it is on, the first Ctrl-C only sets ``asked``; the second one raises KeyboardInterrupt.

    Args:
        busy: whether a sample is in hand; if not, as while the model is loaded, the first one raises too.
    """

    asked = False

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy

    def __enter__(self) -> Self:
        self._own = threading.current_thread() is threading.main_thread()  # no other thread is told
        if self._own:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self._busy():
            raise KeyboardInterrupt
        self.asked = True
        os.write(2, b"finishing the sample in hand; Ctrl-C again stops at once\n")  # print may be interrupted itself
