"""Throughput of vLLM under methods relative to vLLM without one, on the CPU.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m benchmarks.vllm_serving [--methods lampe,dca]

It needs vLLM (``make test-vllm`` makes an environment with it). Each engine runs in a process of
its own, alternately with stock vLLM, so that a drift of the machine's speed affects both. Prefill
is the time until the first token of every request; decode is that of further tokens, in which
nothing but decode steps happens. On a machine that is busy with other work, CPU seconds tell more
than wall-clock seconds, and both are printed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any, NamedTuple

SHAPES = ((8, 1000), (4, 3000))
"""Requests, and tokens of each prompt."""
ANSWER = 64
MAX_LENGTH = 4096
STOCK = "stock"


class Measured(NamedTuple):
    """Least seconds of repeated measurements, for one shape."""

    prefill_wall: float
    prefill_cpu: float
    decode_wall: float
    decode_cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure vLLM under methods.")
    parser.add_argument("--model", default="pocket", help="pocket, a folder or a hub id")
    parser.add_argument("--methods", default="original,lampe", help="methods, by commas")
    parser.add_argument("--dtype", default="float32", help="data type of the weights")
    parser.add_argument("--pairs", type=int, default=2, help="times to run each engine")
    parser.add_argument("--repeats", type=int, default=3, help="measurements in an engine")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        print(json.dumps(measure(options.model, options.engine, options.dtype, options.repeats)))
        return
    engines = [STOCK, *options.methods.split(",")]
    best: dict[str, list[list[float]]] = {}
    for _ in range(options.pairs):
        for engine in engines:
            found = run_engine(engine, sys.argv[1:])
            known = best.setdefault(engine, found)
            best[engine] = [
                [min(a, b) for a, b in zip(*rows, strict=True)]
                for rows in zip(known, found, strict=True)
            ]
    print_ratios(best)


def run_engine(engine: str, arguments: list[str]) -> list[list[float]]:
    """Measure an engine in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.vllm_serving", *arguments, "--engine", engine]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    environment.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    output = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    lines: list[list[float]] = json.loads(output.stdout.strip().splitlines()[-1])
    return lines


def measure(model: str, engine: str, dtype: str, repeats: int) -> list[Measured]:
    """Return the times of every shape on an engine in this process."""
    from vllm import LLM

    from lampe_eval.pocket import WEIGHTS
    from lampe_vllm import plugin
    from lampe_vllm.served_method import ServedMethod

    plugin.register()
    # Stock vLLM reads past its table of positions beyond this number.
    overrides: dict[str, Any] = {"max_position_embeddings": MAX_LENGTH}
    if engine != STOCK:
        overrides = ServedMethod(engine).overrides(MAX_LENGTH)
    llm = LLM(
        model=str(WEIGHTS) if model == "pocket" else model,
        hf_overrides=overrides,
        max_model_len=MAX_LENGTH,
        dtype=dtype,
        enforce_eager=True,
        enable_prefix_caching=False,
        max_num_batched_tokens=MAX_LENGTH,
        kv_cache_memory_bytes=1 << 30,
    )
    vocabulary = llm.llm_engine.model_config.get_vocab_size()
    answer(llm, 2, 300, 4, vocabulary)  # compiles
    rows = []
    for requests, tokens in SHAPES:
        first = [answer(llm, requests, tokens, 1, vocabulary) for _ in range(repeats)]
        whole = [answer(llm, requests, tokens, 1 + ANSWER, vocabulary) for _ in range(repeats)]
        wall, cpu = (min(times) for times in zip(*first, strict=True))
        all_wall, all_cpu = (min(times) for times in zip(*whole, strict=True))
        rows.append(Measured(wall, cpu, all_wall - wall, all_cpu - cpu))
    return rows


def answer(
    llm: Any, requests: int, tokens: int, count: int, vocabulary: int
) -> tuple[float, float]:
    """Return the wall-clock and CPU seconds of a batch of requests."""
    from vllm import SamplingParams

    parameters = SamplingParams(temperature=0, max_tokens=count, min_tokens=count, ignore_eos=True)
    prompts = [
        {
            "prompt_token_ids": [
                5 + (7 * row + 13 * index) % (vocabulary - 5) for index in range(tokens)
            ]
        }
        for row in range(requests)
    ]
    wall, cpu = time.perf_counter(), time.process_time()
    llm.generate(prompts, parameters, use_tqdm=False)
    return time.perf_counter() - wall, time.process_time() - cpu


def print_ratios(best: dict[str, list[list[float]]]) -> None:
    """Print the throughput of each engine, and its ratio to stock vLLM."""
    for row, (requests, tokens) in enumerate(SHAPES):
        print(f"\n{requests} requests of {tokens} tokens, answers of {ANSWER}")
        stock = Measured(*best[STOCK][row])
        for engine, rows in best.items():
            times = Measured(*rows[row])
            print(
                f"  {engine:12}"
                f" prefill {requests * tokens / times.prefill_wall:8.0f} tokens/s"
                f" (x{stock.prefill_wall / times.prefill_wall:.2f},"
                f" CPU x{stock.prefill_cpu / times.prefill_cpu:.2f})"
                f"  decode {requests * ANSWER / times.decode_wall:7.0f} tokens/s"
                f" (x{stock.decode_wall / times.decode_wall:.2f},"
                f" CPU x{stock.decode_cpu / times.decode_cpu:.2f})"
            )


if __name__ == "__main__":
    main()
