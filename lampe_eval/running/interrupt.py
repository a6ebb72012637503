"""Signals that stop a command: the first one in order, the second one at once.

Python runs handlers of signals in the main thread alone, and only between two of its instructions:
never while that thread waits in foreign code, such as for a Ray node that has died. So a thread of
its own counts signals, too, and ends the process where the main thread does not.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

from lampe_eval.errors import Stopped

SIGNAL_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
SECONDS_AFTER_FIRST = 30.0
"""Time after a signal in which a command must end, if no batch is running."""
SECONDS_AFTER_SECOND = 2.0
"""Time after a second signal, in which the command can still say how to go on."""
SHOW_CURSOR = "\x1b[?25h"

_batch_is_running = threading.Event()


def stop_on_signals() -> None:
    """Have this process end by signals; only the main thread may call this.

    The first signal raises `Stopped`, or is noted while an `Interrupt` says that a batch is
    running. The second one ends the process, whatever it waits for.
    """
    for number in SIGNAL_NAMES:
        # Under nohup a run outlives its terminal.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise_stopped)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The number of a signal is written at once, whatever the main thread does.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_end_process, args=(reader,), name="signals", daemon=True).start()


def die_on_signals() -> None:
    """Have the next signal end the process without Python; for its exit, when all is written."""
    writer = signal.set_wakeup_fd(-1)
    if writer != -1:
        os.close(writer)  # ends the thread that reads from the pipe
    for number in SIGNAL_NAMES:
        if signal.getsignal(number) is _raise_stopped:
            signal.signal(number, signal.SIG_DFL)


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
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _batch_is_running.clear()
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        # A handler that raises inside foreign code, such as Ray's wait, arrives as a SystemError.
        if isinstance(error, SystemError) and isinstance(error.__cause__, Stopped):
            raise error.__cause__ from None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None or not self._is_running():
            raise Stopped(number)
        self.signal_number = number
        _batch_is_running.set()
        name = SIGNAL_NAMES[signal.Signals(number)]
        _write(f"finishing the running batch; {name} again stops at once\n")


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    """Turn a signal into an exception that ends the command in order."""
    raise Stopped(number)


def _end_process(reader: int) -> None:
    """End the process some time after its second signal, or after the first one if it is idle."""
    received = 0
    number = 0
    deadline = float("inf")
    while True:
        now = time.monotonic()
        if now >= deadline:
            if received > 1 or not _batch_is_running.is_set():
                break
            deadline = now + SECONDS_AFTER_FIRST
        timeout = None if received == 0 else max(0.0, deadline - now)
        if not select.select([reader], [], [], timeout)[0]:
            continue
        byte = os.read(reader, 1)
        if not byte:
            os.close(reader)
            return
        if byte[0] not in SIGNAL_NAMES or received > 1:
            continue
        number = byte[0]
        received += 1
        grace = SECONDS_AFTER_FIRST if received == 1 else SECONDS_AFTER_SECOND
        deadline = time.monotonic() + grace
    if sys.__stderr__ is not None and sys.__stderr__.isatty():
        _write(SHOW_CURSOR)  # a progress bar hides it
    _write("stopped at once; what is stored is kept: run the same command again\n")
    os._exit(Stopped(number).code)


def _write(text: str) -> None:
    """Write to the error stream, in which print may be interrupted, or whose terminal is gone."""
    with suppress(OSError):
        os.write(2, text.encode())
