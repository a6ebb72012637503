"""Signals in a process of their own, in phases in which Python does not obey them by itself."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lampe_eval.errors import Stopped
from lampe_eval.running import interrupt

PHASES = {
    "Python code": "time.sleep(60)",
    "an exception that is caught": """
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
""",
    "foreign code that starts again after a signal": """
libc = ctypes.CDLL(None)
while True:
    libc.pause()
""",
    "waiting for a thread at the end": """
try:
    time.sleep(60)
finally:
    thread = threading.Thread(target=time.sleep, args=(60,))
    thread.start()
    while True:
        try:
            thread.join()
        except BaseException:
            pass
""",
    "a running batch": "with interrupt.Interrupt(lambda: True):\n    ready()\n    time.sleep(60)",
    "foreign code while a batch is running": """
with interrupt.Interrupt(lambda: True):
    ready()
    while True:
        ctypes.CDLL(None).pause()
""",
}


def _start(phase: str) -> "subprocess.Popen[str]":
    """Start a process that has reached a phase."""
    text = PHASES[phase]
    # A batch is running only inside of its context.
    text = text if "ready()" in text else f"ready()\n{text}"
    main = "\n".join(f"    {line}" for line in text.splitlines())
    script = f"""
import ctypes, threading, time
from lampe_eval import cli
from lampe_eval.running import interrupt
interrupt.SECONDS_AFTER_FIRST = 1.0
interrupt.SECONDS_AFTER_SECOND = 0.3
def ready():
    print("ready", flush=True)
def app(**_):
{main}
cli.app = app
cli.main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("phase", PHASES)
def test_the_second_signal_ends_every_phase(phase: str) -> None:
    process = _start(phase)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert "stopped" in errors and "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("phase", ["Python code", "foreign code that starts again after a signal"])
def test_one_signal_ends_a_command_without_a_running_batch(
    phase: str, number: signal.Signals
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
    try:
        process = _start(phase)
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "stopped" in errors and "Traceback" not in errors


def test_one_signal_leaves_a_running_batch_its_time() -> None:
    process = _start("a running batch")
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = _start("Python code")
    finally:
        signal.signal(signal.SIGHUP, before)
    os.kill(process.pid, signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.kill()
    process.communicate()


def test_a_stop_inside_foreign_code_is_a_stop() -> None:
    # Python wraps an exception in a SystemError where foreign code returns a value beside it.
    with pytest.raises(Stopped), interrupt.Interrupt(lambda: True):
        raise SystemError("returned a result with an exception set") from Stopped(signal.SIGTERM)
