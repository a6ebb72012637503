"""Making the next item in the background while the current one is used."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Request = TypeVar("Request")
Item = TypeVar("Item")


def prefetch(make: Callable[[Request], Item], requests: Sequence[Request]) -> Iterator[Item]:
    """Yield the item of each request; each is made in a thread while the one before is used.

    At most two items are held: the one in use and the next.

    Raises:
        Exception: what `make` raised, when it is the item's turn.
    """
    upcoming: Future[Item] | None = None
    for index, request in enumerate(requests):
        current = upcoming or _start(make, request)
        item = current.result()
        upcoming = None
        if index + 1 < len(requests):
            upcoming = _start(make, requests[index + 1])
        yield item


def _start(make: Callable[[Request], Item], request: Request) -> "Future[Item]":
    """Make an item in a thread of its own."""
    future: Future[Item] = Future()

    def run() -> None:
        try:
            future.set_result(make(request))
        except BaseException as error:
            future.set_exception(error)

    # A daemon, unlike the threads of an executor: the process must be able to end, as after
    # Ctrl-C, without waiting for an item that nobody will use.
    Thread(target=run, name="prefetch", daemon=True).start()
    return future
