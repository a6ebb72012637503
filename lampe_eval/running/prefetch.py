"""Making the next thing while the last one is used."""

from collections.abc import Iterator
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """The same items in the same order, each made in another thread while the one before is used.

    The process does not wait for an item that nobody wants any more.

    Raises:
        Exception: what making an item raised, when its turn comes.
    """
    end = object()

    def make(coming: "Future[T | object]") -> None:
        try:
            coming.set_result(next(items, end))
        except BaseException as error:
            coming.set_exception(error)

    def begun() -> "Future[T | object]":
        coming: Future[T | object] = Future()
        Thread(target=make, args=(coming,), name="ahead", daemon=True).start()
        return coming

    coming = begun()
    while (item := coming.result()) is not end:
        coming = begun()
        yield item  # type: ignore[misc]
