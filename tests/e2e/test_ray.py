"""Runs on Ray: two replicas on CPUs, one of them killed in the middle, against a single process."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.e2e.torture import RUN, compare, descendants

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: the extra ray"
    ),
    pytest.mark.skipif(
        not Path("/proc/self/task").exists(), reason="worker processes are found in /proc"
    ),
]
SMALL = ["--method", "lampe", "--bench", "niah/multikey", "--lengths", "512", "--limit", "24"]


def test_a_lost_workers_samples_are_run_by_another(tmp_path: Path) -> None:
    subprocess.run(
        [*RUN, *SMALL, "--output", str(tmp_path / "one")], check=True, capture_output=True
    )
    command = [*RUN, *SMALL, "--output", str(tmp_path / "two"), "--devices", "cpu,cpu"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while (
        _stored(tmp_path / "two") < 3
        or (tmp_path / "two" / "run.log").read_text().count("a replica is up") < 2
    ):
        assert driver.poll() is None and time.monotonic() < deadline, driver.communicate()[1]
        time.sleep(0.05)
    busy = descendants(driver.pid, "ray::_Replica")
    assert len(busy) == 2
    os.kill(busy[0], signal.SIGKILL)
    _, errors = driver.communicate(timeout=200)
    assert driver.returncode == 0, errors
    assert (
        "lost a worker at pocket · lampe · niah/multikey · 512 · "
        in (tmp_path / "two" / "run.log").read_text()
    )
    compare(tmp_path / "one", tmp_path / "two")
    assert not descendants(driver.pid, "ray::_Replica")


def _stored(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("samples/**/*.jsonl"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a cluster of one CPU on this machine, which needs a token, and give its address."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # short: sockets lie in it
        start = "start --head --block --port 0 --num-cpus 1 --num-gpus 0 --disable-usage-stats"
        head = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("ray")),
                *start.split(),
                "--temp-dir",
                folder,
                "--include-dashboard",
                "false",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output = list(_until(head.stdout or (), "--address="))
            found = re.search(r"--address='(\S+)'", output[-1])
            if found is None:
                pytest.skip(f"Ray starts no cluster here: {''.join(output)[-300:]}")
            yield found[1]
        finally:
            os.killpg(head.pid, signal.SIGKILL)
            head.communicate()


def test_a_cluster_by_its_address(cluster: str, tmp_path: Path) -> None:
    small = ["--method", "lampe", "--bench", "niah/multikey", "--lengths", "256", "--limit", "2"]
    on = [*RUN, *small, "--engine", "ray", "--address", cluster, "--devices", "cpu,cpu"]
    done = subprocess.run(
        [*on, "--output", str(tmp_path / "two")], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "--devices: 2 replicas" in done.stderr
    subprocess.run(
        [*RUN, *small, "--output", str(tmp_path / "one")], check=True, capture_output=True
    )
    compare(tmp_path / "one", tmp_path / "two")


def _until(lines: Iterable[str], text: str) -> Iterator[str]:
    """Yield lines up to the first one that contains a text."""
    for line in lines:
        yield line
        if text in line:
            return
