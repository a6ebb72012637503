"""Harness overhead relative to a plain ``generate`` loop, and memory over many samples.

    python -m benchmarks.overhead [SAMPLES]

Every sample of a run is also given to plain ``generate``, alternately before and after the harness
runs it, so that a drift of the machine's speed affects both. The harness's time is all the rest
from one stored sample to the next: generating the sample, batching, running, decoding, scoring and
storing.
On a machine that is busy with other work, CPU seconds tell more than wall-clock seconds.

Memory is measured in a run whose model answers instantly, so that many samples are quick.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from rich.console import Console

from lampe_eval.benches.bench import Prompt
from lampe_eval.engine.local_engine import GeneratedAnswer, LocalEngine
from lampe_eval.running import runner
from lampe_eval.running.configuration import run_configuration
from lampe_eval.running.prepared_run import prepare_run
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.suite import Suite

PROMPT_TOKENS = 2048
MEMORY_SAMPLES = 10_000
PAGE_BYTES = 4096
"""Unit of /proc/self/statm."""


class Seconds(NamedTuple):
    """Wall-clock and CPU time, as points in time or as durations."""

    wall: float
    cpu: float

    def since(self, earlier: "Seconds") -> "Seconds":
        """Return the duration from an earlier point in time to this one."""
        return Seconds(self.wall - earlier.wall, self.cpu - earlier.cpu)


def now() -> Seconds:
    """Return the present point in time."""
    return Seconds(time.perf_counter(), time.process_time())


class ComparingEngine(LocalEngine):
    """Engine that also runs plain ``generate`` on each prompt.

    Attributes:
        plain: durations of plain ``generate``. The class holds those of its newest instance, for
            the runner creates the engine itself.
    """

    plain: list[Seconds]

    def __init__(self, *arguments: Any) -> None:
        """Begin without durations."""
        super().__init__(*arguments)
        type(self).plain = []

    def answer(self, prompts: Sequence[Prompt], **options: Any) -> list[GeneratedAnswer]:
        """Answer as the harness does, and run plain ``generate`` before or after that."""
        plain_first = len(self.plain) % 2 == 0
        if plain_first:
            self._run_plain(prompts[0])
        answers = super().answer(prompts, **options)
        if not plain_first:
            self._run_plain(prompts[0])
        return answers

    @torch.no_grad()
    def _run_plain(self, prompt: Prompt) -> None:
        ids, mask = self._padded([prompt.ids])
        greedy = self._greedy(prompt)
        generate: Any = self.model.generate
        start = now()
        generate(ids, attention_mask=mask, generation_config=greedy)
        self.plain.append(now().since(start))


class InstantEngine(LocalEngine):
    """Engine that answers without running the model."""

    def answer(self, prompts: Sequence[Prompt], **options: Any) -> list[GeneratedAnswer]:
        """Return the same answer to every prompt."""
        return [GeneratedAnswer(" 12345.", 6, "eos") for _ in prompts]


class SampleRecorder:
    """Progress display that records when samples are stored, and the memory of this process.

    Attributes:
        stored_at: point in time after each sample.
        resident_bytes: resident memory at that time.
    """

    def __init__(self) -> None:
        """Begin without samples."""
        self.stored_at: list[Seconds] = []
        self.resident_bytes: list[int] = []

    def total(self, samples: int) -> None:
        """Ignore the number of samples."""

    def now(self, text: str) -> None:
        """Ignore what is running."""

    def finished(self, samples: int = 1) -> None:
        """Record that samples are stored."""
        if samples:
            self.stored_at.append(now())
            resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident_bytes.append(resident_pages * PAGE_BYTES)


def main(samples: int = 20) -> None:
    """Measure and print the overhead over some samples, and the memory over many."""
    console = Console(highlight=False, soft_wrap=True)
    recorder = _run(ComparingEngine, "niah/multikey", PROMPT_TOKENS, samples + 1)
    # The first sample also loads and patches the model; it is not counted.
    plain = ComparingEngine.plain[1:]
    both = [end.since(start) for start, end in pairwise(recorder.stored_at)]
    harness = [total.since(alone) for total, alone in zip(both, plain, strict=True)]
    plain_wall = sum(seconds.wall for seconds in plain)
    console.print(
        f"harness / plain generate, {samples} samples of {PROMPT_TOKENS} tokens, "
        f"{plain_wall:.1f} s of plain generate:"
    )
    _print_ratios(console, "wall", [s.wall for s in harness], [s.wall for s in plain])
    _print_ratios(console, "CPU", [s.cpu for s in harness], [s.cpu for s in plain])

    recorder = _run(InstantEngine, "niah/single", 256, MEMORY_SAMPLES)
    tenth = MEMORY_SAMPLES // 10
    resident = recorder.resident_bytes[tenth - 1 :: tenth]
    mebibytes = " ".join(f"{size / 2**20:.0f}" for size in resident)
    console.print(f"memory in MiB after each tenth of {MEMORY_SAMPLES} samples: {mebibytes}")
    run = recorder.stored_at[-1].since(recorder.stored_at[0])
    console.print(
        f"per sample with an instant answer: {1000 * run.wall / MEMORY_SAMPLES:.2f} ms, "
        f"CPU {1000 * run.cpu / MEMORY_SAMPLES:.2f} ms"
    )


def _print_ratios(console: Console, name: str, harness: list[float], plain: list[float]) -> None:
    """Print the ratio of the sums and the spread of the ratios per sample, all from seconds."""
    ratios = [ours / theirs for ours, theirs in zip(harness, plain, strict=True)]
    spread = f"median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    console.print(f"  {name:5} {sum(harness) / sum(plain):.3f} of the sums, {spread}")


def _run(engine: type[LocalEngine], task: str, length: int, samples: int) -> SampleRecorder:
    """Run samples of a task with an engine in place of the harness's own."""
    recorder = SampleRecorder()
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("lampe_eval.engine.local_worker.LocalEngine", engine),
    ):
        suite = Suite(
            method=("lampe",),
            bench=task,
            lengths=str(length),
            limit=samples,
            output=Path(folder) / "run",
        )
        prepared = prepare_run(resolve_suite(suite))
        runner.run(prepared, run_configuration(prepared), recorder)
    return recorder


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
