"""Attention alone: each backend's prompt and step of an answer beside the fastest of torch's own, on random inputs.

    python -m benchmarks.attention [SHAPE [LENGTHS]]      # llama3-8b 32k,128k on a GPU, llama3-8b 2k,8k elsewhere

What a model does beside attention is in ``lampe-eval speed``. Here a prompt's rotations of queries and keys count, and
so does all that a step does to its cache; plain attention rotates nothing, which is how much too good it looks.
Median (lowest to highest) of pairs that take turns, after one that is not counted.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig

import lampe
from lampe.attention import Call
from lampe.attention.rotary import RotaryTables
from lampe.attention.turned import Turned
from lampe_eval.cards import shipped_card
from lampe_eval.running.environment import environment
from lampe_eval.speed.subject import ShapeCard
from lampe_eval.suite import listed, parse_length

PAIRS = 5
METHODS = ("lampe", "selfextend", "dca")
KERNELS = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
GPU = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float32)


@torch.no_grad()
def main(shape: str = "llama3-8b", lengths: str = "32k,128k" if GPU else "2k,8k") -> None:
    config = AutoConfig.for_model(**shipped_card("shapes", shape, ShapeCard).config)
    geometry = lampe.geometry_of(config)
    table = Table(title=f"{shape}, {DTYPE}: seconds / those of torch's fastest", title_justify="left")
    for title in ("method", "backend", "length", "prompt", "step", "plain prompt, ms", "plain step, ms"):
        table.add_column(title, justify="left" if title in ("method", "backend") else "right", no_wrap=True)
    for length in map(parse_length, listed(lengths)):
        for method in METHODS:
            encoding = lampe.method_of(method).encode(geometry, length)
            for name, backend in lampe.BACKENDS.items():
                if name == "dense":
                    continue
                calls = _calls(config, encoding, length)
                if why := backend.refuses(calls[0]):
                    table.add_row(method, name, str(length), why)
                    continue
                cells, plains = zip(*(_beside(call, backend) for call in calls), strict=True)
                table.add_row(method, name, str(length), *cells, *(f"{1000 * plain:.2f}" for plain in plains))
    console = Console(width=160)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in environment().items() if value), soft_wrap=True)


def _calls(config: Any, encoding: lampe.Encoding, length: int) -> tuple[Call, Call]:
    """A prompt, and the step after it, over keys that are kept turned where a backend does so."""
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    dim = config.hidden_size // heads

    def random(count: int, tokens: int) -> Tensor:
        return torch.randn(1, count, tokens, dim, device=DEVICE, dtype=DTYPE)

    tables, key, value = RotaryTables(), random(groups, length + 1), random(groups, length + 1)
    prompt = random(heads, length), key[:, :, :length], value[:, :, :length]
    return (
        Call(*prompt, encoding, scale=dim**-0.5, tables=tables),
        Call(random(heads, 1), key, value, encoding, scale=dim**-0.5, start=length, turned=Turned(own=True)),
    )


def _beside(call: Call, backend: Any) -> tuple[str, float]:
    """The ratio with its spread, and plain attention's seconds."""
    plain = min(_plain(call), key=_seconds)
    times = [(_seconds(plain), _seconds(lambda: backend.attend(call))) for _ in range(1 + PAIRS)][1:]
    ratios = [own / before for before, own in times]
    text = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return text, statistics.median(before for before, _ in times)


def _plain(call: Call) -> Iterator[Callable[[], Tensor]]:
    """Torch's kernels that take the call."""
    causal = call.query.shape[2] > 1
    for kernel in KERNELS:

        def attend(kernel: SDPBackend = kernel) -> Tensor:
            with sdpa_kernel(kernel):
                return scaled_dot_product_attention(
                    call.query, call.key, call.value, is_causal=causal, scale=call.scale, enable_gqa=True
                )

        if kernel == SDPBackend.MATH and causal and call.query.shape[2] > 2**13:
            continue  # quadratic memory
        try:
            attend()
        except RuntimeError:
            continue
        yield attend


def _seconds(work: Callable[[], Any]) -> float:
    if not GPU:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    events[0].record()
    work()
    events[1].record()
    events[1].synchronize()
    return events[0].elapsed_time(events[1]) / 1000


if __name__ == "__main__":
    main(*sys.argv[1:])
