"""Pool of Ray replicas that loses workers, with a fake Ray that runs everything in this process."""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

import lampe
from lampe_eval.benches import find_tasks
from lampe_eval.benches.bench import Prompt
from lampe_eval.engine import ray_head, ray_replicas
from lampe_eval.engine.batch_job import BatchJob, FinishedBatch
from lampe_eval.errors import UserError
from lampe_eval.store import Cell
from lampe_eval.suite import Suite
from tests.model_sources import find_model


class Lost(Exception):
    """Error that Ray raises for a worker that has died."""


class Raised(Lost):
    """Error that Ray raises for an error in a worker."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class FakeRay:
    """Ray that runs a call when its result is fetched.

    Args:
        kills: function of the worker's and the call's name; true, or the error, where the call
            kills its worker.
        processes: workers that get a process; further ones wait for ever.
    """

    exceptions = SimpleNamespace(RayError=Lost, RayTaskError=Raised)

    def __init__(self, kills: Callable[[str, str], Any], processes: int = 100) -> None:
        self.kills = kills
        self.processes = processes
        self.launched = 0
        self.killed = 0

    def remote(self, **resources: Any) -> Callable[[type], Any]:
        return lambda kind: SimpleNamespace(remote=self._actor)

    def _actor(self, *arguments: Any) -> Any:
        self.launched += 1
        name = f"worker {self.launched}"
        ready = SimpleNamespace(remote=lambda: (name, "ready", object()))
        load = SimpleNamespace(remote=lambda: (name, "load", object()))
        measure = SimpleNamespace(remote=lambda: (name, "measure", object()))
        run = SimpleNamespace(remote=lambda method, samples: (name, samples[0].id, object()))
        return SimpleNamespace(
            __ray_ready__=ready, load=load, measure_batch_tokens=measure, run=run
        )

    def wait(self, awaited: list[Any], timeout: float | None) -> tuple[list[Any], list[Any]]:
        """Return the first call that can be finished."""
        able = [
            call
            for call in awaited
            if call[1] != "ready" or int(call[0].split()[1]) <= self.processes
        ]
        assert able or timeout is not None, "waits for ever"
        return able[:1], able[1:]

    def get(self, awaited: tuple[str, str, object]) -> Any:
        name, what, _ = awaited
        death = self.kills(name, what)
        if death:
            raise death if isinstance(death, Exception) else Lost("the worker died\nof something")
        return [{"prediction": f"{what} by {name}"}]

    def kill(self, replica: Any) -> None:
        self.killed += 1

    def shutdown(self) -> None: ...

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address="", get_node_id=lambda: "mine")

    def nodes(self) -> Any: ...


def _run_batches(
    monkeypatch: pytest.MonkeyPatch, kills: Callable[[str, str], Any], processes: int = 100
) -> tuple[dict[str, Any], FakeRay]:
    """Run batches a, b and c on two workers; return the first item of each outcome."""
    ray = FakeRay(kills, processes)
    monkeypatch.setattr(ray_replicas, "_import_ray", lambda address: ray)
    monkeypatch.setattr(ray_replicas, "_connect", lambda *_: 2)
    (task,) = find_tasks(["niah/single"])
    cell = Cell("pocket", "lampe", "niah", "single", 512)
    method = lampe.method_of("lampe")
    finished: list[FinishedBatch] = []
    with ray_replicas.RayPool(find_model("pocket"), Suite(devices="cpu,cpu")) as pool:
        pool.start()
        for key in "abc":
            prompt = Prompt(key, [1], 1, ())
            pool.submit(BatchJob(task, cell, method, (prompt,), frozenset(key)))
            while pool.is_full:
                finished += pool.collect()
        while pool.is_busy:
            finished += pool.collect()
    outcomes = {
        batch.job.samples[0].id: next(iter(batch.outcomes[0].items())) for batch in finished
    }
    assert len(outcomes) == len(finished)
    return outcomes, ray


def test_every_batch_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes, ray = _run_batches(monkeypatch, lambda name, what: False)
    assert set(outcomes) == {"a", "b", "c"}
    assert (ray.launched, ray.killed) == (2, 0)


def test_the_batch_of_a_lost_worker_is_run_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[str] = []

    def once(name: str, what: str) -> bool:
        if what != "b" or died:
            return False
        died.append(name)
        return True

    outcomes, ray = _run_batches(monkeypatch, once)
    assert set(outcomes) == {"a", "b", "c"}
    assert died[0] not in outcomes["b"][1]
    assert (ray.launched, ray.killed) == (3, 1)


def test_a_batch_that_kills_its_workers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes, ray = _run_batches(monkeypatch, lambda name, what: what == "b")
    assert outcomes["b"] == (
        "error",
        "WorkerLost: 2 workers were lost at it: Lost: the worker died",
    )
    assert "a by" in outcomes["a"][1] and "c by" in outcomes["c"][1]
    assert ray.killed == 2


def test_a_worker_that_does_not_start_again_leaves_the_work_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deaths = iter([True])
    outcomes, ray = _run_batches(
        monkeypatch,
        lambda name, what: (
            (what == "b" and next(deaths, False)) or (what == "load" and name > "worker 2")
        ),
    )
    assert {kind for kind, _ in outcomes.values()} == {"prediction"}
    assert ray.launched == 3


def test_the_loss_of_all_workers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="all workers"):
        _run_batches(
            monkeypatch, lambda name, what: what not in ("ready", "load") or name > "worker 2"
        )


@pytest.mark.parametrize(
    "error",
    [
        Raised(RuntimeError("out of memory")),
        Lost("the node died"),
        RuntimeError("the start of the process"),
    ],
)
def test_a_worker_lost_at_its_start_leaves_the_work_to_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    outcomes, ray = _run_batches(
        monkeypatch, lambda name, what: what == "load" and name == "worker 1" and error
    )
    assert {kind for kind, _ in outcomes.values()} == {"prediction"}
    assert (ray.launched, ray.killed) == (2, 1)
    assert "lost a worker" in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        _run_batches(
            monkeypatch,
            lambda name, what: what == "load" and Raised(UserError("no such checkpoint")),
        )


def test_no_started_worker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no replica"):
        _run_batches(monkeypatch, lambda name, what: what == "load")


def test_workers_without_a_process_are_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_replicas, "PLACEMENT_SECONDS", 0)
    outcomes, _ = _run_batches(monkeypatch, lambda name, what: False, processes=1)
    assert {kind for kind, _ in outcomes.values()} == {"prediction"}
    with pytest.raises(UserError, match="no replica"):
        _run_batches(monkeypatch, lambda name, what: False, processes=0)
    assert " 2 more replicas" in capsys.readouterr().err


def test_a_ready_worker_does_not_wait_for_one_without_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes, ray = _run_batches(monkeypatch, lambda name, what: False, processes=1)
    assert {kind for kind, _ in outcomes.values()} == {"prediction"}
    assert ray.killed == 0


def test_a_replica_whose_memory_cannot_be_measured_runs_one_sample_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = FakeRay(lambda name, what: what == "measure")
    monkeypatch.setattr(ray_replicas, "_import_ray", lambda address: ray)
    monkeypatch.setattr(ray_replicas, "_connect", lambda *_: 1)
    with ray_replicas.RayPool(find_model("pocket"), Suite(devices="cpu")) as pool:
        pool.start()
        assert pool.measure_batch_tokens() == 1


def _cluster(*nodes: tuple[int, int]) -> Any:
    """Return a Ray whose machines have these numbers of CPUs and GPUs."""
    machines = [
        {"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}}
        for cpus, gpus in nodes
    ]
    return SimpleNamespace(
        init=lambda **_: None, nodes=lambda: machines, exceptions=FakeRay.exceptions
    )


@pytest.mark.parametrize(
    ("nodes", "options", "replicas"),
    [
        ([(8, 4), (8, 4)], {}, 8),
        ([(8, 3), (8, 3)], {"gpus_per_replica": 2}, 2),
        ([(8, 4), (2, 4)], {}, 6),
        ([(1, 0)], {"devices": "cpu,cpu"}, 1),
        ([(1, 0), (4, 0)], {"devices": "cpu,cpu"}, 2),
    ],
)
def test_replicas_are_counted_by_machine(
    nodes: list[tuple[int, int]],
    options: dict[str, Any],
    replicas: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        ray_replicas._connect(_cluster(*nodes), Suite(engine="ray", address="auto", **options))
        == replicas
    )
    warning = "--devices: 2 replicas"
    assert (warning in capsys.readouterr().err) == (nodes == [(1, 0)])


def test_a_replica_that_fits_no_machine_is_an_error() -> None:
    with pytest.raises(UserError, match=r"4 GPUs .*3 GPUs and 8 CPUs.*2 GPUs and 8 CPUs"):
        ray_replicas._connect(
            _cluster((8, 3), (8, 2)), Suite(engine="ray", address="auto", gpus_per_replica=4)
        )


def test_a_hint_about_the_token_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("Failed to connect")

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(
        UserError,
        match=r"--address auto: Failed to connect; .*RAY_AUTH_MODE=token",
    ):
        ray_replicas._connect(
            SimpleNamespace(init=init, exceptions=FakeRay.exceptions),
            Suite(engine="ray", address="auto"),
        )


def test_ray_does_not_keep_its_handler_of_sigterm() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ray = _cluster((1, 0))
    ray.init = lambda **_: signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ray_replicas._connect(ray, Suite(devices=("cpu",)))
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("head", "nodes", "lost"),
    [
        (False, [("mine", True, 2)], "the head"),
        (True, [("mine", False, 2), ("other", True, 2)], "this machine's Ray node"),
        (True, [("mine", True, 0), ("other", False, 2)], "room for a replica"),
        (True, [("mine", True, 0), ("other", True, 2)], None),
    ],
)
def test_a_cluster_that_can_run_nothing_any_more_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
    head: bool,
    nodes: list[tuple[str, bool, int]],
    lost: str | None,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if not head:
            server.close()
        ray = FakeRay(lambda name, what: False, processes=0 if lost else 1)
        ray.get_runtime_context = lambda: SimpleNamespace(
            gcs_address=address, get_node_id=lambda: "mine"
        )
        ray.nodes = lambda: [
            {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus}}
            for name, alive, cpus in nodes
        ]
        ray.shutdown = lambda: pytest.fail("waits for a lost node") if lost else None
        monkeypatch.setattr(ray_replicas, "_import_ray", lambda address: ray)
        monkeypatch.setattr(ray_replicas, "_connect", lambda *_: 1)
        monkeypatch.setattr(ray_replicas, "POLL_SECONDS", 0)
        monkeypatch.setattr(ray_head, "HEAD_SECONDS", 0)
        context = pytest.raises(UserError, match=lost) if lost else nullcontext()
        with context, ray_replicas.RayPool(find_model("pocket"), Suite(devices="cpu")) as pool:
            pool.start()


def test_a_run_that_waits_for_a_lost_head_in_a_call_of_ray_is_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: Queue[int] = Queue()
    for name in ("POLL_SECONDS", "HEAD_SECONDS", "BLOCKED_SECONDS"):
        monkeypatch.setattr(ray_head, name, 0.01)
    with socket.create_server(("127.0.0.1", 0)) as server:
        watch = ray_head.HeadWatch(f"127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(os, "_exit", lambda code: (watch.stop(), ended.put(code)))
        watch.start()
        time.sleep(0.1)
        assert watch.answers() and ended.empty()
    assert ended.get(timeout=20) == 2
    assert "the head of the Ray cluster is lost" in capsys.readouterr().err
