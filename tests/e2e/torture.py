"""Runs killed by SIGKILL at random moments and resumed; none may lose or double a sample.

python -m tests.e2e.torture [KILLS [SEED]]
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

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


def torture(
    arguments: Sequence[str],
    whole: Path,
    folder: Path,
    kills: int,
    seconds: float,
    seed: int,
) -> int:
    """Kill runs at random moments after their start, and compare every run that finishes.

    Args:
        arguments: arguments of the run.
        whole: folder of the same run, never killed.
        folder: where the killed runs go.
        kills: how often a run is killed.
        seconds: latest moment of a kill.
        seed: seed of the moments; `SEED_VARIABLE` in the environment overrides it.

    Returns:
        Number of runs that finished; the last one is no longer killed.
    """
    seed = int(os.environ.get(SEED_VARIABLE, seed))
    print(f"moments of the kills: {SEED_VARIABLE}={seed}", flush=True)
    moments = random.Random(seed)
    finished = 0
    killed = 0
    while killed < kills:
        output = folder / str(finished)
        if _finishes(arguments, output, moments.uniform(0, seconds)):
            compare(whole, output)
            finished += 1
        else:
            killed += 1
    output = folder / str(finished)
    assert _finishes(arguments, output, None)
    compare(whole, output)
    return finished + 1


def _finishes(arguments: Sequence[str], output: Path, seconds: float | None) -> bool:
    """Start or resume a run and return whether it finishes before it is killed."""
    command = [*RUN, *arguments, "--output", str(output)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    assert code == 0, f"exit code {code}: {' '.join(command)}"
    return True


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


def main(kills: int = 50, seed: int = 0) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.monotonic()
        assert _finishes(SMALL, folder / "whole", None)
        seconds = time.monotonic() - started
        finished = torture(SMALL, folder / "whole", folder, kills, seconds, seed)
        samples = len(_samples(folder / "whole"))
    print(
        f"{kills} kills, {finished} runs finished; each has {samples} samples, every one once, "
        "and the same scores.csv byte for byte"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
