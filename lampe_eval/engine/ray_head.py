"""Watch over the head of a Ray cluster, for whose return some calls of Ray wait."""

import os
import socket
import sys
import threading
import time

from lampe_eval.errors import ClusterLost, report_warning

POLL_SECONDS = 3.0
HEAD_SECONDS = 30.0
"""Time that the head may be away."""
BLOCKED_SECONDS = 15.0
"""Time after that in which the run may end in order; Ray ends the process 60 s after the loss."""


class HeadWatch:
    """Thread that looks whether the head listens, without calls of Ray.

    `answers` tells the run that the head is lost. Where the run does not come to ask because it
    waits in a call of Ray, which nothing can interrupt, the thread ends the process.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._seen = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="ray head")

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()

    def answers(self) -> bool:
        """Return whether the head listens now.

        Raises:
            ClusterLost: if it has been away for too long.
        """
        try:
            check_listening(self._address)
        except OSError:
            if self._away >= HEAD_SECONDS:
                raise cluster_lost("the head of the Ray cluster") from None
            return False
        return True

    @property
    def _away(self) -> float:
        return time.monotonic() - self._seen

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                check_listening(self._address)
            except OSError:
                away = self._away
            else:
                self._seen = time.monotonic()
                continue
            if away >= HEAD_SECONDS + BLOCKED_SECONDS:
                print(f"lampe-eval: {cluster_lost('the head of the Ray cluster')}", file=sys.stderr)
                os._exit(2)
            if away < HEAD_SECONDS:
                report_warning(f"--engine ray: no answer from the cluster's head for {away:.0f} s")


def check_listening(address: str) -> None:
    """Connect to HOST:PORT once; Ray itself would wait for minutes where nobody listens.

    Raises:
        OSError: if nobody does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def cluster_lost(part: str) -> ClusterLost:
    """Return the error for a lost part of a cluster."""
    return ClusterLost(
        f"--engine ray: {part} is lost; finished samples are kept: run the same command again"
    )
