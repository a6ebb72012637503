"""Replicas of a model on many devices, by Ray: this process hands out jobs and gets back what came of them.

A replica is what does the jobs of a single process (``Worker``), so results are the same.
"""

import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from types import TracebackType
from typing import Any, Self

import torch

from lampe_eval.engine.job import Job, Outcome
from lampe_eval.engine.worker import Worker
from lampe_eval.errors import LOG, UserError, describe_error, warn
from lampe_eval.models import ALL_GPUS, ModelSource
from lampe_eval.plugins import loaded_modules
from lampe_eval.suite import Suite

LOSSES = 2
"""Workers that may be lost at a job before it is given up."""
PATIENCE = 300
"""Seconds in which a replica has to get a process; a GPU that others hold may be free by then."""


class Replicas:
    """Replicas of one model, a process each; the ``Workers`` of many devices.

    One that is up gets jobs while others still start; one that finds no room in ``PATIENCE`` is given up.
    """

    def __init__(self, source: ModelSource, suite: Suite) -> None:
        self._source, self._suite = source, suite
        self._ray: Any = _imported(suite.address)
        for module in loaded_modules():  # a replica's process cannot import a plug-in by its name
            self._ray.cloudpickle.register_pickle_by_value(module)
        self._placing: dict[Any, Any] = {}
        """What is awaited of which replica that has no process yet; the last one was asked for at ``_asked``."""
        self._busy: dict[Any, tuple[Any, Job | None]] = {}
        """What is awaited of which replica, and its job; none while it loads the model."""
        self._idle: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ray.shutdown()

    def start(self) -> None:
        """As ``Workers`` has it, until the first replica is up."""
        for _ in range(_connected(self._ray, self._suite)):
            self._launch()
        while not self._idle and (self._placing or self._busy):
            self._await()
        if not self._idle:
            raise UserError(
                "--engine ray: no replica of the model could be started; run.log says why"
            )

    def room(self) -> int:
        """As ``Workers`` has it, of one replica."""
        try:
            return int(self._result(self._idle[0].room.remote()))
        except self._ray.exceptions.RayError as error:  # it is lost, as its first job will tell
            warn(f"cannot measure the room for a batch: {_line(error)}")
            return 1

    def do(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, list[Outcome]]]:
        """As ``Workers`` has it. A job whose worker is lost is begun again, by another.

        Raises:
            UserError: also where all workers are lost.
        """
        again = deque(islice(jobs, 1))  # the first one starts the replicas
        losses: Counter[Job] = Counter()
        while True:
            while self._idle and (begun := again.popleft() if again else next(jobs, None)):
                replica = self._idle.pop()
                self._busy[replica.outcomes.remote(begun.method, begun.samples)] = replica, begun
            if not any(job for _, job in self._busy.values()) and (
                self._idle or not (self._placing or self._busy)
            ):
                break
            job, came = self._await()
            if job is None:
                continue
            if not isinstance(came, str):
                yield job, came
                continue
            losses[job] += 1
            if losses[job] < LOSSES:
                again.append(job)
            else:
                yield (
                    job,
                    [
                        {"error": f"WorkerLost: {LOSSES} workers were lost at it: {came}"}
                        for _ in job.samples
                    ],
                )
        if again or (not self._idle and next(jobs, None)):
            raise UserError(
                "--engine ray: all workers are lost; what is finished is kept, run again"
            )

    def _launch(self) -> None:
        """Asks for a worker process, which has no job until its model is loaded."""
        gpus = _gpus(self._suite)
        device = "cpu" if gpus == 0 else "cuda" if gpus == 1 else ALL_GPUS
        actor = self._ray.remote(num_cpus=1, num_gpus=gpus)(_Replica)
        replica = actor.remote(torch.get_num_threads(), self._source, device, self._suite.attention)
        self._placing[replica.__ray_ready__.remote()] = replica
        self._asked = time.monotonic()

    def _await(self) -> tuple[Job | None, list[Outcome] | str]:
        """The next job that is done with what came of it, or why its worker was lost, whose place another takes.

        No job where a replica has a process or its model now, or none of those that were asked for found room.
        """
        left = max(0.0, self._asked + PATIENCE - time.monotonic()) if self._placing else None
        done, _ = self._ray.wait([*self._placing, *self._busy], timeout=left)
        if not done:
            self._give_up()
            return None, []
        placed = self._placing.pop(done[0], None)
        replica, job = (placed, None) if placed else self._busy.pop(done[0])
        try:
            came = self._result(done[0])
        except UserError:
            raise
        except Exception as error:
            warn(f"lost a worker at {job or 'its start'}: {_line(error)}")
            self._ray.kill(replica)
            if job:
                self._launch()
            return job, _line(error)
        if placed:
            self._busy[replica.start.remote()] = replica, None
        else:
            self._idle.append(replica)
            if not job:
                LOG.info("a replica is up")
        return job, came

    def _give_up(self) -> None:
        """Waits no more for replicas that found no room."""
        warn(
            f"--engine ray: no room for {len(self._placing)} more replicas in {PATIENCE} s; going on without them"
        )
        for replica in self._placing.values():
            self._ray.kill(replica)
        self._placing.clear()

    def _result(self, awaited: Any) -> Any:
        """What a replica returned, or raised."""
        try:
            return self._ray.get(awaited)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None


class _Replica(Worker):
    """A worker in a process of its own."""

    def __init__(self, threads: int, *arguments: Any) -> None:
        torch.set_num_threads(
            threads
        )  # as many as the driver has: sums are taken in the same order
        super().__init__(*arguments)


def _imported(address: str | None) -> Any:
    """Ray, which reports nothing to anybody and, without a cluster, listens on the loopback alone.

    Raises:
        UserError: where it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None:
        # what makes Ray take 127.0.0.1 for this machine's address
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        return import_module("ray")
    except ModuleNotFoundError:
        raise UserError(
            "--engine ray and --devices need Ray: pip install 'lampe-eval[ray]'"
        ) from None


def _connected(ray: Any, suite: Suite) -> int:
    """Connects to the cluster, or starts Ray on this machine; the number of replicas that there is room for.

    Raises:
        UserError: where there is no such cluster, or no room for a replica.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if suite.address is None:
        options |= {"address": "local", "include_dashboard": False}
        if _on_cpus(suite):
            options |= {"num_cpus": len(suite.devices), "num_gpus": 0}
        elif suite.devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(_visible(suite.devices))
    else:
        options["address"] = suite.address
    try:
        _knock(suite.address or "")
        with _own_sigterm():
            ray.init(**options)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        where = f"--address {suite.address}" if suite.address else "--engine ray"
        wanting = type(error) is ConnectionError and "RAY_AUTH_MODE" not in os.environ
        hint = (
            "; if it was started with a token, set RAY_AUTH_MODE=token here too" if wanting else ""
        )
        raise UserError(f"{where}: {str(error).splitlines()[0]}{hint}") from None
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = sum(_fitting(node, _gpus(suite)) for node in nodes)
    if fit == 0:
        has = "; ".join(
            f"{node.get('GPU', 0):g} GPUs and {node.get('CPU', 0):g} CPUs" for node in nodes
        )
        raise UserError(
            f"--engine ray: a replica takes {_gpus(suite)} GPUs and 1 CPU of one machine, and there are {has}; "
            "--devices cpu,cpu runs two replicas on CPUs"
        )
    wanted = len(suite.devices) if _on_cpus(suite) else fit
    if fit < wanted:
        warn(f"--devices: {wanted} replicas are asked for, and the cluster has room for {fit}")
    return min(fit, wanted)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Leaves SIGTERM to the run, which finishes the samples in hand; Ray would exit in the middle of them."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _fitting(node: Mapping[str, float], gpus: int) -> int:
    """Replicas that a machine has room for."""
    cpus = int(node.get("CPU", 0))
    return min(cpus, int(node.get("GPU", 0)) // gpus) if gpus else cpus


def _knock(address: str) -> None:
    """Ray waits for minutes for a HOST:PORT where nobody listens."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _visible(devices: tuple[str, ...]) -> list[str]:
    """GPUs by their numbers among those that this process may see."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not seen:
        return list(devices)
    names = seen.split(",")
    if lacking := [device for device in devices if int(device) >= len(names)]:
        raise UserError(f"--devices: no GPU {lacking[0]}: CUDA_VISIBLE_DEVICES has {len(names)}")
    return [names[int(device)] for device in devices]


def _gpus(suite: Suite) -> int:
    """GPUs that a replica takes."""
    return 0 if _on_cpus(suite) else suite.gpus_per_replica


def _on_cpus(suite: Suite) -> bool:
    return suite.devices[:1] == ("cpu",)


def _line(error: Exception) -> str:
    """Class and message of an error, of which Ray's have many lines."""
    return describe_error(error).splitlines()[0]
