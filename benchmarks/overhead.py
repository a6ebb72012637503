"""What the harness costs beside bare ``generate`` on the same samples, and whether its memory grows with their number.

    python -m benchmarks.overhead [SAMPLES]

Every sample of a run is also given to bare ``generate``, before the harness has it or after, in turns, so that a drift
of the machine moves both. What the harness took is all the rest of the time from one stored sample to the next:
drawing, batching, running, describing, scoring, storing. On a machine that is busy with other work, CPU seconds tell
more than those of the clock. Memory is that of a run whose model answers at once.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console

from lampe_eval.benches.bench import Prompt
from lampe_eval.engine.local_engine import GeneratedAnswer, LocalEngine
from lampe_eval.running import runner
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.running.run_plan import plan_run
from lampe_eval.suite import Suite

LENGTH = 2048
MANY = 10_000


Times = tuple[float, float]
"""Of the clock, and of the CPU."""


def now() -> Times:
    return time.perf_counter(), time.process_time()


class Both(LocalEngine):
    """Answers twice, bare and as the harness does; notes the seconds of the bare answer."""

    bare: list[Times]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        type(self).bare = []

    def answer(
        self, prompts: Sequence[Prompt], *, low_memory: bool = False
    ) -> list[GeneratedAnswer]:
        before = len(self.bare) % 2 == 0
        if before:
            self._bare(prompts[0])
        answers = super().answer(prompts, low_memory=low_memory)
        if not before:
            self._bare(prompts[0])
        return answers

    @torch.no_grad()
    def _bare(self, prompt: Prompt) -> None:
        ids, mask = self._padded([prompt.ids])
        began = now()
        self.model.generate(ids, attention_mask=mask, generation_config=self._greedy(prompt))  # type: ignore[operator]
        self.bare.append(_between(began, now()))


class Instant(LocalEngine):
    """Answers at once."""

    def answer(
        self, prompts: Sequence[Prompt], *, low_memory: bool = False
    ) -> list[GeneratedAnswer]:
        return [GeneratedAnswer(" 12345.", 6, "eos") for _ in prompts]


class Ticks:
    """Notes when each sample was stored, and how much memory this process then had."""

    def __init__(self) -> None:
        self.at: list[Times] = []
        self.resident: list[int] = []

    def total(self, samples: int) -> None: ...
    def now(self, text: str) -> None: ...

    def finished(self, samples: int = 1) -> None:
        if samples:
            self.at.append(now())
            self.resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)


def main(samples: int = 20) -> None:
    console = Console(highlight=False, soft_wrap=True)
    ticks = _run(Both, "niah/multikey", LENGTH, samples + 1)
    bare = Both.bare[1:]  # the first sample also loads and patches
    both = [_between(*pair) for pair in pairwise(ticks.at)]
    ours = [_between(*pair) for pair in zip(bare, both, strict=True)]
    console.print(
        f"harness / bare generate, {samples} samples of {LENGTH} tokens, {sum(one for one, _ in bare):.1f} s bare:"
    )
    for name, which in (("clock", 0), ("CPU", 1)):
        ratios = [one[which] / other[which] for one, other in zip(ours, bare, strict=True)]
        whole = sum(one[which] for one in ours) / sum(one[which] for one in bare)
        spread = f"median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        console.print(f"  {name:5} {whole:.3f} of the sums, {spread}")
    ticks = _run(Instant, "niah/single", 256, MANY)
    tenths = " ".join(
        f"{ticks.resident[at - 1] / 2**20:.0f}" for at in range(MANY // 10, MANY + 1, MANY // 10)
    )
    clock, cpu = _between(ticks.at[0], ticks.at[-1])
    console.print(f"memory in MiB after each tenth of {MANY} samples: {tenths}")
    console.print(
        f"of a sample that is answered at once: {1000 * clock / MANY:.2f} ms, CPU {1000 * cpu / MANY:.2f} ms"
    )


def _between(began: Times, ended: Times) -> Times:
    return ended[0] - began[0], ended[1] - began[1]


def _run(engine: type[LocalEngine], task: str, length: int, samples: int) -> Ticks:
    ticks = Ticks()
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
        runner.run(plan_run(resolve_suite(suite)), ticks)
    return ticks


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
