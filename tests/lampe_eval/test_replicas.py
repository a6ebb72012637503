"""What is done about workers that are lost, with a Ray that does everything in this process."""

import signal
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import lampe
from lampe_eval import models
from lampe_eval.benches import find_tasks
from lampe_eval.benches.bench import Prompt
from lampe_eval.engine import ray as ours
from lampe_eval.engine.job import Job
from lampe_eval.errors import UserError
from lampe_eval.store import Cell
from lampe_eval.suite import Suite


class Lost(Exception):
    """What Ray raises for a worker that has died."""


class Raised(Lost):
    """What Ray raises for an error in a worker."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class FakeRay:
    """Runs a call when its result is asked for; ``deadly`` says which calls kill their worker, and how."""

    exceptions = SimpleNamespace(RayError=Lost, RayTaskError=Raised)

    def __init__(self, deadly: Callable[[str, str], Any], rooms: int = 100) -> None:
        self.deadly, self.rooms, self.launched, self.killed = deadly, rooms, 0, 0

    def remote(self, **resources: Any) -> Callable[[type], Any]:
        return lambda kind: SimpleNamespace(remote=self._actor)

    def _actor(self, *arguments: Any) -> Any:
        self.launched += 1
        name = f"worker {self.launched}"
        ready = SimpleNamespace(remote=lambda: (name, "ready", object()))
        start = SimpleNamespace(remote=lambda: (name, "start", object()))
        room = SimpleNamespace(remote=lambda: (name, "room", object()))
        outcomes = SimpleNamespace(remote=lambda method, samples: (name, samples[0].id, object()))
        return SimpleNamespace(__ray_ready__=ready, start=start, room=room, outcomes=outcomes)

    def wait(self, awaited: list[Any], timeout: float | None) -> tuple[list[Any], list[Any]]:
        """The first call that can be done; a worker that finds no room is never ready."""
        able = [
            call for call in awaited if call[1] != "ready" or int(call[0].split()[1]) <= self.rooms
        ]
        assert able or timeout is not None, "waits for ever"
        return able[:1], able[1:]

    def get(self, awaited: tuple[str, str, object]) -> Any:
        name, what, _ = awaited
        if died := self.deadly(name, what):
            raise died if isinstance(died, Exception) else Lost("the worker died\nof something")
        return [{"prediction": f"{what} by {name}"}]

    def kill(self, replica: Any) -> None:
        self.killed += 1

    def shutdown(self) -> None: ...


def _done(
    monkeypatch: pytest.MonkeyPatch, deadly: Callable[[str, str], Any], rooms: int = 100
) -> tuple[dict[str, Any], FakeRay]:
    """What came of jobs a, b and c on two workers."""
    ray = FakeRay(deadly, rooms)
    monkeypatch.setattr(ours, "_imported", lambda address: ray)
    monkeypatch.setattr(ours, "_connected", lambda *_: 2)
    (task,) = find_tasks(["niah/single"])
    cell, method = Cell("pocket", "lampe", "niah", "single", 512), lampe.method_of("lampe")
    with ours.Replicas(models.find_model("pocket"), Suite(devices="cpu,cpu")) as replicas:

        def jobs() -> Iterator[Job]:
            replicas.start()
            for key in "abc":
                yield Job(task, cell, method, (Prompt(key, [1], 1, ()),), frozenset(key))

        found = [(job.samples[0].id, *outcomes[0].items()) for job, outcomes in replicas.do(jobs())]
    assert len(found) == len({key for key, _ in found})
    return dict(found), ray


def test_every_job_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found, ray = _done(monkeypatch, lambda name, what: False)
    assert set(found) == {"a", "b", "c"}
    assert (ray.launched, ray.killed) == (2, 0)


def test_the_job_of_a_lost_worker_is_done_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[str] = []

    def once(name: str, what: str) -> bool:
        if what != "b" or died:
            return False
        died.append(name)
        return True

    found, ray = _done(monkeypatch, once)
    assert set(found) == {"a", "b", "c"}
    assert died[0] not in found["b"][1]
    assert (ray.launched, ray.killed) == (3, 1)


def test_a_job_that_kills_its_workers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    found, ray = _done(monkeypatch, lambda name, what: what == "b")
    assert found["b"] == ("error", "WorkerLost: 2 workers were lost at it: Lost: the worker died")
    assert "a by" in found["a"][1] and "c by" in found["c"][1]
    assert ray.killed == 2


def test_a_worker_that_does_not_start_again_leaves_the_work_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deaths = iter([True])
    found, ray = _done(
        monkeypatch,
        lambda name, what: (
            (what == "b" and next(deaths, False)) or (what == "start" and name > "worker 2")
        ),
    )
    assert {kind for kind, _ in found.values()} == {"prediction"}
    assert ray.launched == 3


def test_all_workers_lost_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match="all workers are lost; what is finished is kept, run again"
    ):
        _done(monkeypatch, lambda name, what: what not in ("ready", "start") or name > "worker 2")


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
    found, ray = _done(
        monkeypatch, lambda name, what: what == "start" and name == "worker 1" and error
    )
    assert {kind for kind, _ in found.values()} == {"prediction"}
    assert (ray.launched, ray.killed) == (2, 1)
    assert "lampe-eval: lost a worker at its start: " in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        _done(
            monkeypatch,
            lambda name, what: what == "start" and Raised(UserError("no such checkpoint")),
        )


def test_no_worker_started_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no replica of the model could be started"):
        _done(monkeypatch, lambda name, what: what == "start")


def test_workers_that_find_no_room_are_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ours, "PATIENCE", 0)
    found, _ = _done(monkeypatch, lambda name, what: False, rooms=1)
    assert {kind for kind, _ in found.values()} == {"prediction"}
    with pytest.raises(UserError, match="no replica of the model could be started"):
        _done(monkeypatch, lambda name, what: False, rooms=0)
    assert "no room for 2 more replicas in 0 s; going on without them" in capsys.readouterr().err


def test_one_that_is_up_does_not_wait_for_one_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    found, ray = _done(monkeypatch, lambda name, what: False, rooms=1)
    assert {kind for kind, _ in found.values()} == {"prediction"}
    assert ray.killed == 0


def test_a_room_that_cannot_be_measured_is_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ours, "_imported", lambda address: FakeRay(lambda name, what: what == "room")
    )
    monkeypatch.setattr(ours, "_connected", lambda *_: 1)
    with ours.Replicas(models.find_model("pocket"), Suite(devices="cpu")) as replicas:
        replicas.start()
        assert replicas.room() == 1


def _cluster(*nodes: tuple[int, int]) -> Any:
    """A Ray whose machines have so many CPUs and GPUs."""
    told = [
        {"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}}
        for cpus, gpus in nodes
    ]
    return SimpleNamespace(init=lambda **_: None, nodes=lambda: told, exceptions=FakeRay.exceptions)


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
        ours._connected(_cluster(*nodes), Suite(engine="ray", address="auto", **options))
        == replicas
    )
    said = "--devices: 2 replicas are asked for, and the cluster has room for 1"
    assert (said in capsys.readouterr().err) == (nodes == [(1, 0)])


def test_no_room_on_any_machine_is_said() -> None:
    said = (
        "takes 4 GPUs and 1 CPU of one machine, and there are 3 GPUs and 8 CPUs; 2 GPUs and 8 CPUs"
    )
    with pytest.raises(UserError, match=said):
        ours._connected(
            _cluster((8, 3), (8, 2)), Suite(engine="ray", address="auto", gpus_per_replica=4)
        )


def test_a_cluster_that_wants_a_token_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("Failed to connect")

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(
        UserError,
        match=r"--address auto: Failed to connect; if .* set RAY_AUTH_MODE=token here too",
    ):
        ours._connected(
            SimpleNamespace(init=init, exceptions=FakeRay.exceptions),
            Suite(engine="ray", address="auto"),
        )


def test_a_sigterm_is_not_left_to_ray() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ray = _cluster((1, 0))
    ray.init = lambda **_: signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ours._connected(ray, Suite(devices=("cpu",)))
    assert signal.getsignal(signal.SIGTERM) is before
