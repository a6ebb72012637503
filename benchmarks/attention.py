"""Attention alone: each backend's prompt and step of an answer beside the fastest of torch's own, on random inputs.

    python -m benchmarks.attention [SHAPE [LENGTHS]]      # llama3-8b 32k,128k on a GPU, llama3-8b 2k,8k elsewhere

What a model does beside attention is in ``lampe-eval speed``. Here a prompt's rotations of queries and keys count, and
so does all that a step does to its cache, token after token; plain attention rotates nothing, which is how much too
good it looks. Median (lowest to highest) of pairs that take turns on fresh inputs, after one that is not counted.
"""

import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig

import lampe
from lampe.attention import AttentionInputs
from lampe.attention.rotated_keys import RotatedKeys
from lampe.attention.rotation import RotaryTables
from lampe_eval.cards import shipped_card
from lampe_eval.running.environment import environment
from lampe_eval.speed.measured_model import ShapeCard
from lampe_eval.speed.timing import measure_seconds
from lampe_eval.suite import parse_length, split_names

PAIRS = 5
METHODS = ("lampe", "selfextend", "dca")
KERNELS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
GPU = torch.cuda.is_available()
DEVICE, DTYPE = (
    (torch.device("cuda"), torch.bfloat16) if GPU else (torch.device("cpu"), torch.float32)
)


@torch.no_grad()
def main(shape: str = "llama3-8b", lengths: str = "32k,128k" if GPU else "2k,8k") -> None:
    config = AutoConfig.for_model(**shipped_card("shapes", shape, ShapeCard).config)
    geometry = lampe.geometry_of(config)
    table = Table(
        title=f"{shape}, {DTYPE}: seconds / those of torch's fastest", title_justify="left"
    )
    for title in (
        "method",
        "backend",
        "length",
        "prompt",
        "step",
        "plain prompt, ms",
        "plain step, ms",
    ):
        table.add_column(
            title, justify="left" if title in ("method", "backend") else "right", no_wrap=True
        )
    for length in map(parse_length, split_names(lengths)):
        for method in METHODS:
            encoding = lampe.method_of(method).encode(geometry, length)
            for name, backend in lampe.BACKENDS.items():
                if name == "dense":
                    continue
                if why := backend.refuses(_prompt(config, encoding, length)):
                    table.add_row(method, name, str(length), why)
                    continue
                prompts = (_prompt(config, encoding, length) for _ in range(1 + PAIRS))
                cells, plains = zip(
                    _beside(prompts, backend),
                    _beside(_steps(config, encoding, length), backend),
                    strict=True,
                )
                table.add_row(
                    method, name, str(length), *cells, *(f"{1000 * plain:.2f}" for plain in plains)
                )
    console = Console(width=160)
    console.print(table)
    console.print(
        ", ".join(f"{key} {value}" for key, value in environment().items() if value), soft_wrap=True
    )


def _prompt(config: Any, encoding: lampe.Encoding, length: int) -> AttentionInputs:
    heads, groups, dim = _shape(config)
    key, value = _random(groups, length, dim), _random(groups, length, dim)
    return AttentionInputs(_random(heads, length, dim), key, value, encoding, scale=dim**-0.5)


def _steps(config: Any, encoding: lampe.Encoding, length: int) -> Iterator[AttentionInputs]:
    """Steps of one answer, over keys that are kept turned where a backend does so."""
    heads, groups, dim = _shape(config)
    key, value = (_random(groups, length + PAIRS + 1, dim) for _ in range(2))
    turned, tables = RotatedKeys(own=True), RotaryTables()
    for at in range(length, length + PAIRS + 1):
        keys, values = key[:, :, : at + 1], value[:, :, : at + 1]
        query = _random(heads, 1, dim)
        yield AttentionInputs(
            query, keys, values, encoding, scale=dim**-0.5, start=at, tables=tables, turned=turned
        )


def _shape(config: Any) -> tuple[int, int, int]:
    heads: int = config.num_attention_heads
    return heads, config.num_key_value_heads, config.hidden_size // heads


def _random(count: int, tokens: int, dim: int) -> Tensor:
    return torch.randn(1, count, tokens, dim, device=DEVICE, dtype=DTYPE)


def _beside(calls: Iterable[AttentionInputs], backend: Any) -> tuple[str, float]:
    """The ratio with its spread, and plain attention's seconds."""
    times, fastest = [], None
    for call in calls:
        ways = _plain(call)
        if fastest is None:
            fastest = min(
                ways,
                key=lambda name: statistics.median(
                    measure_seconds(ways[name], DEVICE) for _ in range(3)
                ),
            )
        times.append(
            (
                measure_seconds(ways[fastest], DEVICE),
                measure_seconds(lambda call=call: backend.attend(call), DEVICE),
            )
        )
    ratios = [own / before for before, own in times[1:]]
    text = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return text, statistics.median(before for before, _ in times[1:])


def _plain(call: AttentionInputs) -> dict[str, Callable[[], Tensor]]:
    """Torch's kernels that take the call; of one query also with the heads of a group as rows of one head."""
    query, (_, groups, _, dim) = call.query, call.key.shape
    causal = query.shape[2] > 1
    forms = {"heads": query} if causal else {"heads": query, "rows": query.view(1, groups, -1, dim)}
    found: dict[str, Callable[[], Tensor]] = {}
    for kernel in KERNELS:
        if kernel == SDPBackend.MATH and causal and query.shape[2] > 2**13:
            continue  # quadratic memory
        for form, q in forms.items():

            def attend(kernel: SDPBackend = kernel, q: Tensor = q) -> Tensor:
                with sdpa_kernel(kernel):
                    return scaled_dot_product_attention(
                        q, call.key, call.value, is_causal=causal, scale=call.scale, enable_gqa=True
                    )

            with suppress(RuntimeError):
                attend()
                found[f"{kernel.name} {form}"] = attend
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
