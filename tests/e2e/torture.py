"""Runs killed by SIGKILL at random moments and begun again until they are done; none may lose or double a sample.

python -m tests.e2e.torture [KILLS [SEED]]
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

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
    seed: int | None = None,
) -> int:
    """Kills runs so many times, at moments up to ``seconds`` after their start; one that gets done is compared.

    Args:
        whole: the folder of the same run, undisturbed.
        folder: where the others go.
        seed: of the moments; drawn by default, and printed.

    Returns:
        Runs that got done, the last one among them, which is no longer killed.
    """
    seed = random.randrange(2**32) if seed is None else seed
    print(f"seed of the moments: {seed}", flush=True)
    moments = random.Random(seed)
    done, killed, output = 0, 0, folder / "0"
    while killed < kills:
        if _outlives(arguments, output, moments.uniform(0, seconds)):
            compare(whole, output)
            done, output = done + 1, folder / str(done + 1)
        else:
            killed += 1
    assert _outlives(arguments, output, None)
    compare(whole, output)
    return done + 1


def _outlives(arguments: Sequence[str], output: Path, seconds: float | None) -> bool:
    """Whether a run is done before it is killed."""
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
    """Proves that a run has the scores of another one byte for byte, and each of its samples once."""
    assert (other / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    assert _samples(other) == _samples(whole)
    assert set(_samples(other).values()) == {1}


def _samples(folder: Path) -> "Counter[tuple[str, int, str]]":
    """How often every sample is stored."""
    found: Counter[tuple[str, int, str]] = Counter()
    for path in (folder / "samples").rglob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found.update((str(path.relative_to(folder)), row["length"], row["id"]) for row in rows)
    return found


def main(kills: int = 50, seed: int | None = None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        assert _outlives(SMALL, folder / "whole", None)
        seconds = time.monotonic() - began
        done = torture(SMALL, folder / "whole", folder, kills, seconds, seed)
        samples = len(_samples(folder / "whole"))
    print(
        f"{kills} kills, {done} runs done; {samples} samples each, every one once, scores.csv byte for byte the same"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
