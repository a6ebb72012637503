"""Pool of replicas of a model on many devices, by Ray.

This process hands out batches and gets back outcomes. A replica is the worker of a single process
(`LocalWorker`) in a process of its own, so results are the same.
"""

import atexit
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import TracebackType
from typing import Any, Self

import torch

from lampe.errors import first_line
from lampe_eval.engine.batch_job import BatchJob, FinishedBatch
from lampe_eval.engine.local_worker import LocalWorker
from lampe_eval.engine.ray_head import HeadWatch, check_listening, cluster_lost
from lampe_eval.errors import (
    LOG,
    ClusterLost,
    UserError,
    describe_error,
    report_warning,
)
from lampe_eval.models import ALL_GPUS, ModelSource
from lampe_eval.plugins import loaded_modules
from lampe_eval.records import Outcome
from lampe_eval.suite import Suite

MAX_LOSSES = 2
"""Workers that may be lost while they run a batch before its samples become errors."""
PLACEMENT_SECONDS = 300
"""Time in which a replica has to get a process; a GPU that others use may become free by then."""
POLL_SECONDS = 3.0
"""Longest wait for Ray; in between signals are handled and the cluster is looked after."""


class RayPool:
    """Pool of replicas of one model, a process each.

    A replica that is ready gets batches while others still start; one that gets no process within
    `PLACEMENT_SECONDS` is given up. A batch whose worker is lost is run again, by another worker.
    Without the cluster's head, without this machine's node, and where no machine is left that could
    hold a replica, the run ends.
    """

    def __init__(self, source: ModelSource, suite: Suite) -> None:
        self._source = source
        self._suite = suite
        self._ray: Any = _import_ray(suite.address)
        # A replica's process cannot import a plug-in by its name, so its classes travel by value.
        for module in loaded_modules():
            self._ray.cloudpickle.register_pickle_by_value(module)
        # Keys are references to Ray's pending results. A replica is first in `_placing` (it waits
        # for a process), then in `_running` without a job (it loads the model), then idle or
        # in `_running` with a job.
        self._placing: dict[Any, Any] = {}
        self._running: dict[Any, tuple[Any, BatchJob | None]] = {}
        self._idle: list[Any] = []
        self._retries: deque[BatchJob] = deque()
        self._losses: Counter[BatchJob] = Counter()
        self._last_launch = 0.0
        self._last_check = 0.0
        self._head: HeadWatch | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._head:
            self._head.stop()
        if isinstance(error, ClusterLost):
            # It would wait for the lost node; now, and again at the end of the process.
            atexit.unregister(self._ray.shutdown)
        else:
            self._ray.shutdown()

    @property
    def is_full(self) -> bool:
        """Return whether no replica is idle, but one may become idle."""
        return not self._idle and bool(self._placing or self._running)

    @property
    def is_busy(self) -> bool:
        """Return whether a batch is running or waits to be run again."""
        return bool(self._retries) or any(job for _, job in self._running.values())

    def start(self) -> None:
        """Start a replica on every device; return when the first one is ready.

        Raises:
            UserError: if none can be started.
        """
        replicas = _connect(self._ray, self._suite)
        self._head = HeadWatch(self._ray.get_runtime_context().gcs_address)
        self._head.start()
        self._last_check = time.monotonic()
        for _ in range(replicas):
            self._launch()
        while self.is_full:
            self._next_event()
        if not self._idle:
            raise UserError(
                "--engine ray: no replica of the model could be started; run.log says why"
            )

    def measure_batch_tokens(self) -> int:
        """Return how many tokens fit the free memory of one replica; 1 if unknown."""
        reference = self._idle[0].measure_batch_tokens.remote()
        while not self._wait([reference]):
            pass
        try:
            return int(self._result(reference))
        except self._ray.exceptions.RayError as error:
            # The replica is lost; its first batch will find that out and be run by another one.
            report_warning(f"cannot measure the memory for a batch: {_first_line(error)}")
            return 1

    def submit(self, job: BatchJob) -> None:
        """Give a batch to an idle replica.

        Raises:
            UserError: if all workers are lost.
        """
        if not self._idle:
            raise _all_lost()
        replica = self._idle.pop()
        self._running[replica.run.remote(job.method, job.samples)] = replica, job

    def collect(self) -> list[FinishedBatch]:
        """Wait for the next event; return the batch that finished by it, if one did.

        Raises:
            UserError: if a model cannot be loaded or patched, or all workers are lost.
        """
        if not (self._placing or self._running):
            raise _all_lost()
        finished = self._next_event()
        while self._idle and self._retries:
            self.submit(self._retries.popleft())
        return finished

    def _launch(self) -> None:
        """Ask Ray for a replica's process."""
        gpus = _gpus_per_replica(self._suite)
        device = "cpu"
        if gpus:
            device = "cuda" if gpus == 1 else ALL_GPUS
        actor = self._ray.remote(num_cpus=1, num_gpus=gpus)(_Replica)
        replica = actor.remote(torch.get_num_threads(), self._source, device, self._suite.attention)
        self._placing[replica.__ray_ready__.remote()] = replica
        self._last_launch = time.monotonic()

    def _next_event(self) -> list[FinishedBatch]:
        """Wait until a replica has a process, has loaded the model, has run a batch, or is lost."""
        ready = self._wait([*self._placing, *self._running])
        if not ready:
            if self._placing and time.monotonic() >= self._last_launch + PLACEMENT_SECONDS:
                self._give_up_placing()
            return []
        reference = ready[0]
        if reference in self._placing:
            self._placed(reference, self._placing.pop(reference))
            return []
        replica, job = self._running.pop(reference)
        try:
            result = self._result(reference)
        except UserError:
            raise
        except Exception as error:
            return self._lost(replica, job, _first_line(error))
        self._idle.append(replica)
        if job is None:
            LOG.info("a replica is up")
            return []
        return [FinishedBatch(job, result)]

    def _wait(self, references: list[Any]) -> list[Any]:
        """Return the first result that is ready; nothing if none is after a short time.

        Raises:
            UserError: if the cluster is lost.
        """
        ready: list[Any]
        ready, _ = self._ray.wait(references, timeout=POLL_SECONDS)
        if time.monotonic() >= self._last_check + POLL_SECONDS:
            self._check_cluster()
            self._last_check = time.monotonic()
        return ready

    def _check_cluster(self) -> None:
        """Check that the cluster can still run batches.

        Raises:
            UserError: if it cannot.
        """
        # The calls below would wait for a head that is away.
        if self._head and not self._head.answers():
            return
        context = self._ray.get_runtime_context()
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        if context.get_node_id() not in [node["NodeID"] for node in alive]:
            raise cluster_lost("this machine's Ray node")
        if not (self._idle or self._running or _count_replicas(alive, self._suite)):
            raise cluster_lost("every Ray node with room for a replica")

    def _placed(self, reference: Any, replica: Any) -> None:
        """Have a replica that got its process load the model."""
        try:
            self._result(reference)
        except UserError:
            raise
        except Exception as error:
            self._lost(replica, None, _first_line(error))
            return
        self._running[replica.load.remote()] = replica, None

    def _lost(self, replica: Any, job: BatchJob | None, reason: str) -> list[FinishedBatch]:
        """Replace a lost worker and run its batch again.

        Returns:
            The batch, with errors, if it lost too many workers; else nothing.
        """
        report_warning(f"lost a worker at {job or 'its start'}: {reason}")
        self._ray.kill(replica)
        if job is None:
            return []  # a worker that is lost while it starts is not replaced
        self._launch()
        self._losses[job] += 1
        if self._losses[job] < MAX_LOSSES:
            self._retries.append(job)
            return []
        failed: Outcome = {"error": f"WorkerLost: {MAX_LOSSES} workers were lost at it: {reason}"}
        return [FinishedBatch(job, [failed for _ in job.samples])]

    def _give_up_placing(self) -> None:
        """Stop waiting for replicas that got no process in time."""
        report_warning(
            f"--engine ray: no room for {len(self._placing)} more replicas in "
            f"{PLACEMENT_SECONDS} s; going on without them"
        )
        for replica in self._placing.values():
            self._ray.kill(replica)
        self._placing.clear()

    def _result(self, reference: Any) -> Any:
        """Return a replica's result, or raise the error that it raised."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None


class _Replica(LocalWorker):
    """Worker in a process of its own."""

    def __init__(self, threads: int, *arguments: Any) -> None:
        # As many threads as the driver has, so that sums are taken in the same order.
        torch.set_num_threads(threads)
        super().__init__(*arguments)


def _all_lost() -> UserError:
    return UserError(
        "--engine ray: all workers are lost; finished samples are kept: run the same command again"
    )


def _import_ray(address: str | None) -> Any:
    """Import Ray without its usage reports; without a cluster it listens on the loopback alone.

    Raises:
        UserError: if it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None:
        # With this variable Ray takes 127.0.0.1 for this machine's address.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        return import_module("ray")
    except ModuleNotFoundError:
        raise UserError(
            "--engine ray and --devices need Ray: pip install 'lampe-eval[ray]'"
        ) from None


def _connect(ray: Any, suite: Suite) -> int:
    """Connect to the cluster, or start Ray on this machine; return how many replicas fit.

    Raises:
        UserError: if there is no such cluster, or no replica fits.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if suite.address is None:
        options |= {"address": "local", "include_dashboard": False}
        if suite.runs_on_cpus:
            options |= {"num_cpus": len(suite.devices), "num_gpus": 0}
        elif suite.devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(_visible_gpus(suite.devices))
    else:
        options["address"] = suite.address
    _init_ray(ray, suite.address, options)
    alive = [node for node in ray.nodes() if node["Alive"]]
    fitting = _count_replicas(alive, suite)
    if fitting == 0:
        nodes = [node["Resources"] for node in alive]
        resources = "; ".join(
            f"{node.get('GPU', 0):g} GPUs and {node.get('CPU', 0):g} CPUs" for node in nodes
        )
        raise UserError(
            f"--engine ray: a replica takes {_gpus_per_replica(suite)} GPUs and 1 CPU of one "
            f"machine, and there are {resources}; --devices cpu,cpu runs two replicas on CPUs"
        )
    requested = len(suite.devices) if suite.runs_on_cpus else fitting
    if fitting < requested:
        report_warning(
            f"--devices: {requested} replicas are asked for, and the cluster has room for {fitting}"
        )
    return min(fitting, requested)


def _init_ray(ray: Any, address: str | None, options: Mapping[str, Any]) -> None:
    """Call ``ray.init``; what goes wrong becomes one line."""
    try:
        check_listening(address or "")
        with _keep_sigterm_handler():
            ray.init(**options)
    except Exception as error:  # Ray raises a plain Exception where its processes do not start
        option = f"--address {address}" if address else "--engine ray"
        # Ray reports a missing token as a plain ConnectionError.
        may_need_token = type(error) is ConnectionError and "RAY_AUTH_MODE" not in os.environ
        hint = ""
        if may_need_token:
            hint = "; if it was started with a token, set RAY_AUTH_MODE=token here too"
        raise UserError(f"{option}: {first_line(error)}{hint}") from None


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Keep the run's handler of SIGTERM while Ray starts."""
    # Ray's handler would exit in the middle of the batches that ours finishes.
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _count_replicas(nodes: list[dict[str, Any]], suite: Suite) -> int:
    """Return how many replicas fit the machines of a cluster."""
    gpus = _gpus_per_replica(suite)
    return sum(_replicas_that_fit(node["Resources"], gpus) for node in nodes)


def _replicas_that_fit(node: Mapping[str, float], gpus: int) -> int:
    """Return how many replicas fit a machine that has these resources."""
    cpus = int(node.get("CPU", 0))
    return min(cpus, int(node.get("GPU", 0)) // gpus) if gpus else cpus


def _visible_gpus(devices: tuple[str, ...]) -> list[str]:
    """Return the names of GPUs, given by their numbers among those that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not visible:
        return list(devices)
    names = visible.split(",")
    for device in devices:
        if int(device) >= len(names):
            raise UserError(f"--devices: no GPU {device}: CUDA_VISIBLE_DEVICES has {len(names)}")
    return [names[int(device)] for device in devices]


def _gpus_per_replica(suite: Suite) -> int:
    return 0 if suite.runs_on_cpus else suite.gpus_per_replica


def _first_line(error: Exception) -> str:
    """Return class and message of an error; Ray's messages have many lines."""
    return describe_error(error).splitlines()[0]
