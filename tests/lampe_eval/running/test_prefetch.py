"""Prefetching: the next item is prepared while the current one is used."""

import subprocess
import sys
import threading

import pytest

from lampe_eval.running.prefetch import prefetch


def test_the_next_item_is_prepared_while_the_current_one_is_used() -> None:
    second_is_ready = threading.Event()
    threads = []

    def make(request: int) -> int:
        threads.append(threading.current_thread())
        if request == 1:
            second_is_ready.set()
        return 10 * request

    items = prefetch(make, [0, 1])
    assert next(items) == 0
    # The second item is prepared before it is requested.
    assert second_is_ready.wait(10)
    assert next(items) == 10
    assert threading.current_thread() not in threads
    assert list(items) == []
    assert list(prefetch(make, [])) == []


def test_only_the_next_item_is_prepared() -> None:
    requests: list[int] = []
    second = threading.Event()

    def make(request: int) -> int:
        requests.append(request)
        if request == 1:
            second.set()
        return request

    items = prefetch(make, [0, 1, 2, 3])
    next(items)
    assert second.wait(10)
    assert requests == [0, 1]


def test_an_error_is_raised_when_it_is_the_items_turn() -> None:
    def make(request: int) -> int:
        if request == 1:
            raise ValueError("no text")
        return request

    items = prefetch(make, [0, 1])
    assert next(items) == 0
    with pytest.raises(ValueError, match="no text"):
        next(items)


def test_a_process_ends_without_waiting_for_an_item() -> None:
    code = """
import time
from lampe_eval.running.prefetch import prefetch
def make(seconds):
    time.sleep(seconds)
    return seconds
print(next(prefetch(make, [0, 3600])), flush=True)
raise SystemExit(2)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "0\n")
