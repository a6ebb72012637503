"""Runs that are harmed at random moments and resumed; none may hang, or lose or double a sample.

python -m tests.e2e.torture [ROUNDS [SEED [CASE ...]]]
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

SEED_VARIABLE = "LAMPE_TORTURE_SEED"
RUN = [sys.executable, "-m", "lampe_eval", "run"]
SMALL = [
    "--method",
    "original,lampe",
    "--bench",
    "niah/multikey,ppl",
    "--lengths",
    "256,512",
    "--limit",
    "8",
]
RAY = ("--devices", "cpu,cpu")

Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Harm:
    """Harm that is done to a run.

    Attributes:
        act: function of the run's process and its folder.
        codes: exit codes with which the run may end afterwards, besides 0.
        arguments: further arguments of the run.
        bound: seconds in which the run must end afterwards.
    """

    act: Callable[[Process, Path], None]
    codes: tuple[int, ...]
    arguments: tuple[str, ...] = ()
    bound: float = 120


def _send(*numbers: signal.Signals) -> Callable[[Process, Path], None]:
    """Return a function that sends signals to a run."""

    def act(process: Process, folder: Path) -> None:
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.2)

    return act


def _remove(pattern: str) -> Callable[[Process, Path], None]:
    """Return a function that removes files of a run's folder, once the run has read them.

    A run that had finished before is left alone: it looks at its files once and ends.
    """

    def act(process: Process, folder: Path) -> None:
        if (folder / "scores.csv").exists():
            return
        while process.poll() is None:
            with suppress(FileNotFoundError):
                if f"process {process.pid} " in (folder / ".holder").read_text():
                    break
            time.sleep(0.1)
        # It has taken the folder and reads it now.
        time.sleep(1)
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)

    return act


def _kill_descendant(name: str) -> Callable[[Process, Path], None]:
    """Return a function that kills a process that a run has started, as soon as there is one."""

    def act(process: Process, folder: Path) -> None:
        while process.poll() is None:
            for pid in descendants(process.pid, name)[:1]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.1)

    return act


# A signal that arrives before Python has installed the run's handlers ends it as a process that has
# none: with the negative number of the signal.
SIGINT = (130, -signal.SIGINT)
SIGTERM = (143, -signal.SIGTERM)
SIGHUP = (129, -signal.SIGHUP)
SIGKILL = (-signal.SIGKILL,)
# Samples are missing at the end: 1, as for samples that failed.
MISSING = (1,)
# What the run needs is lost: one line says so.
LOST = (2,)

HARMS = {
    "kill": Harm(_send(signal.SIGKILL), SIGKILL, bound=10),
    "sigint": Harm(_send(signal.SIGINT), SIGINT, bound=40),
    "sigterm": Harm(_send(signal.SIGTERM), SIGTERM, bound=40),
    "sighup": Harm(_send(signal.SIGHUP), SIGHUP, bound=40),
    "sigint twice": Harm(_send(signal.SIGINT, signal.SIGINT), SIGINT, bound=10),
    "sigterm, sigint": Harm(_send(signal.SIGTERM, signal.SIGINT), (*SIGTERM, *SIGINT), bound=10),
    "samples removed": Harm(_remove("samples/**/*.jsonl"), MISSING),
    "cells.jsonl removed": Harm(_remove("cells.jsonl"), ()),
    "run.yaml removed": Harm(_remove("run.yaml"), ()),
    "ray: kill": Harm(_send(signal.SIGKILL), SIGKILL, RAY, bound=10),
    "ray: sigterm twice": Harm(_send(signal.SIGTERM, signal.SIGTERM), SIGTERM, RAY, bound=10),
    "ray: worker lost": Harm(_kill_descendant("ray::_Replica"), (), RAY),
    "ray: node lost": Harm(_kill_descendant("raylet/raylet"), LOST, RAY),
    "ray: agent lost": Harm(_kill_descendant("ray::DashboardAgent"), LOST, RAY),
    "ray: head lost": Harm(_kill_descendant("gcs/gcs_server"), LOST, RAY),
}


def torture(
    arguments: Sequence[str],
    whole: Path,
    folder: Path,
    kills: int,
    seconds: float,
    seed: int,
    harm: Harm = HARMS["kill"],
) -> int:
    """Harm runs at random moments after their start, and compare every run that finishes.

    Args:
        arguments: arguments of the run.
        whole: folder of the same run, never harmed.
        folder: where the harmed runs go.
        kills: how often a run is harmed.
        seconds: latest moment of a harm.
        seed: seed of the moments; `SEED_VARIABLE` in the environment overrides it.
        harm: what is done to the runs.

    Returns:
        Number of runs that finished; the last one is no longer harmed.
    """
    seed = int(os.environ.get(SEED_VARIABLE, seed))
    print(f"moments of the kills: {SEED_VARIABLE}={seed}", flush=True)
    moments = random.Random(seed)
    finished = 0
    killed = 0
    while killed < kills:
        output = folder / str(finished)
        if _finishes(arguments, output, moments.uniform(0, seconds), harm):
            compare(whole, output)
            finished += 1
        else:
            killed += 1
    output = folder / str(finished)
    assert _finishes(arguments, output)
    compare(whole, output)
    return finished + 1


def _finishes(
    arguments: Sequence[str], output: Path, seconds: float | None = None, harm: Harm | None = None
) -> bool:
    """Start or resume a run and return whether it finishes before it is harmed."""
    extra = harm.arguments if harm else ()
    command = [*RUN, *arguments, *extra, "--output", str(output)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            assert harm is not None
            _harm(process, output, harm)
            code = process.returncode
            finished = False
        else:
            finished = True
        errors.seek(0)
        text = errors.read().decode()
    codes = (0, *harm.codes) if harm and not finished else (0,)
    assert code in codes, f"exit code {code}: {command}\n{text}"
    assert "Traceback" not in text, text
    return finished


def _harm(process: Process, output: Path, harm: Harm) -> None:
    """Harm a run and check that it ends in time."""
    harm.act(process, output)
    try:
        process.wait(harm.bound)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"hangs: nothing for {harm.bound} s") from None


def compare(whole: Path, other: Path) -> None:
    """Check that a run has the same scores byte for byte, and every sample once."""
    assert (other / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    assert _samples(other) == _samples(whole)
    assert set(_samples(other).values()) == {1}


def _samples(folder: Path) -> "Counter[tuple[str, int, str]]":
    """Count how often every sample is stored."""
    counts: Counter[tuple[str, int, str]] = Counter()
    for path in (folder / "samples").rglob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        counts.update((str(path.relative_to(folder)), row["length"], row["id"]) for row in rows)
    return counts


def descendants(ancestor: int, name: str) -> list[int]:
    """Return the processes below a process whose command contains a name."""
    parents: dict[int, int] = {}
    commands: dict[int, bytes] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            commands[int(folder.name)] = (folder / "cmdline").read_bytes()
            parents[int(folder.name)] = int(fields[1])
    return [
        pid
        for pid in parents
        if name.encode() in commands[pid].split(b"\0")[0] and ancestor in _ancestors(pid, parents)
    ]


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    found: set[int] = set()
    while (pid := parents.get(pid, 0)) and pid not in found:
        found.add(pid)
    return found


def main(
    rounds: Annotated[int, typer.Argument()] = 4,
    seed: Annotated[int, typer.Argument()] = 0,
    cases: Annotated[list[str] | None, typer.Argument()] = None,
) -> None:
    """Harm runs in every case, or in those that are named."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.monotonic()
        assert _finishes(SMALL, folder / "whole")
        seconds = time.monotonic() - started
        samples = len(_samples(folder / "whole"))
        failed: list[str] = []
        for case in cases or HARMS:
            harm = HARMS[case]
            # Ray takes a while to start.
            latest = 2 * seconds if harm.arguments else seconds
            try:
                finished = torture(
                    SMALL, folder / "whole", folder / case, rounds, latest, seed, harm
                )
            except AssertionError as error:
                print(f"{case}: FAILED: {error}", flush=True)
                failed.append(case)
                continue
            print(
                f"{case}: {rounds} times, {finished} runs finished; each has {samples} samples, "
                "every one once, and the same scores.csv byte for byte",
                flush=True,
            )
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    typer.run(main)
