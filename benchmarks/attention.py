"""Time of attention alone: each backend relative to the fastest plain attention of torch.

    python -m benchmarks.attention [SHAPE [LENGTHS]]

SHAPE is a shipped model shape (llama3-8b by default), LENGTHS a list such as 32k,128k, which is the
default on a GPU (2k,8k elsewhere). Inputs are random.

Measured are the prefill of a prompt and one decode step after it. Prefill includes the rotation of
queries and keys, and a step all that it does to its cache. Plain attention rotates nothing, so the
ratios overstate what a method costs in a model; ``lampe-eval speed`` measures whole models.

A ratio is the median of pairs (lowest to highest in parentheses). In a pair both attend to the same
fresh inputs. The first pair is not counted.
"""

import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, PreTrainedConfig

import lampe
from lampe.attention import AttentionInputs, Backend
from lampe.attention.rotated_keys import RotatedKeys
from lampe.attention.rotation import RotaryTables
from lampe_eval.cards import shipped_card
from lampe_eval.running.environment import environment
from lampe_eval.speed.measured_model import ShapeCard
from lampe_eval.speed.timing import measure_seconds
from lampe_eval.suite import parse_length, split_names

PAIRS = 5
METHODS = ("lampe", "selfextend", "dca")
TORCH_KERNELS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
MATH_MAX_QUERIES = 2**13
"""Longest prompt for torch's "math" kernel, whose memory grows with the square of the length."""

if torch.cuda.is_available():
    DEVICE, DTYPE, LENGTHS = torch.device("cuda"), torch.bfloat16, "32k,128k"
else:
    DEVICE, DTYPE, LENGTHS = torch.device("cpu"), torch.float32, "2k,8k"

TEXT_COLUMNS = ("method", "backend")
NUMBER_COLUMNS = ("length", "prefill", "step", "plain prefill, ms", "plain step, ms")


class Comparison(NamedTuple):
    """Seconds of a backend relative to those of plain attention.

    Attributes:
        ratio: median of the ratios, with the lowest and the highest, as text.
        plain_seconds: median of plain attention.
    """

    ratio: str
    plain_seconds: float


@torch.no_grad()
def main(shape: str = "llama3-8b", lengths: str = LENGTHS) -> None:
    """Print a table of all methods, backends and lengths for one model shape."""
    config = AutoConfig.for_model(**shipped_card("shapes", shape, ShapeCard).config)
    geometry = lampe.geometry_of(config)
    title = f"{shape}, {DTYPE}: seconds relative to torch's fastest attention"
    table = Table(title=title, title_justify="left")
    for column in TEXT_COLUMNS:
        table.add_column(column, no_wrap=True)
    for column in NUMBER_COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for length in map(parse_length, split_names(lengths)):
        for method in METHODS:
            encoding = lampe.method_of(method).encode(geometry, length)
            for name, backend in lampe.BACKENDS.items():
                if name != "dense":  # the oracle, which is slow on purpose
                    cells = _measured_cells(backend, config, encoding, length)
                    table.add_row(method, name, str(length), *cells)
    console = Console(width=160)
    console.print(table)
    facts = [f"{key} {value}" for key, value in environment().items() if value]
    console.print(", ".join(facts), soft_wrap=True)


def _measured_cells(
    backend: Backend, config: PreTrainedConfig, encoding: lampe.Encoding, length: int
) -> list[str]:
    """Return the measured cells of a table row, or the reason why the backend cannot run."""
    reason = backend.refuses(_prompt(config, encoding, length))
    if reason is not None:
        return [reason]
    prompts = (_prompt(config, encoding, length) for _ in range(1 + PAIRS))
    prefill = _compare(backend, prompts)
    step = _compare(backend, _decode_steps(config, encoding, length))
    plain = [f"{1000 * comparison.plain_seconds:.2f}" for comparison in (prefill, step)]
    return [prefill.ratio, step.ratio, *plain]


def _prompt(config: PreTrainedConfig, encoding: lampe.Encoding, length: int) -> AttentionInputs:
    """Return the inputs of a prompt of ``length`` tokens."""
    heads, groups, dim = _head_counts(config)
    query = _random(heads, length, dim)
    key, value = _random(groups, length, dim), _random(groups, length, dim)
    return AttentionInputs(query, key, value, encoding, scale=dim**-0.5)


def _decode_steps(
    config: PreTrainedConfig, encoding: lampe.Encoding, length: int
) -> Iterator[AttentionInputs]:
    """Yield consecutive decode steps of one answer, whose keys may be rotated in place."""
    heads, groups, dim = _head_counts(config)
    key, value = (_random(groups, length + PAIRS + 1, dim) for _ in range(2))
    rotated_keys, tables = RotatedKeys(in_place=True), RotaryTables()
    for token in range(length, length + PAIRS + 1):
        yield AttentionInputs(
            query=_random(heads, 1, dim),
            key=key[:, :, : token + 1],
            value=value[:, :, : token + 1],
            encoding=encoding,
            scale=dim**-0.5,
            start=token,
            tables=tables,
            rotated_keys=rotated_keys,
        )


def _head_counts(config: PreTrainedConfig) -> tuple[int, int, int]:
    """Return the numbers of query heads, key heads and dimensions per head."""
    heads: int = config.num_attention_heads
    return heads, config.num_key_value_heads, config.hidden_size // heads


def _random(heads: int, tokens: int, dim: int) -> Tensor:
    """Return random queries, keys or values ``[1, heads, tokens, dim]``."""
    return torch.randn(1, heads, tokens, dim, device=DEVICE, dtype=DTYPE)


def _compare(backend: Backend, calls: Iterable[AttentionInputs]) -> Comparison:
    """Time a backend and the fastest plain attention on each of some inputs in turn."""
    ratios, plain_seconds = [], []
    fastest = None
    for inputs in calls:
        plain = _plain_attentions(inputs)
        if fastest is None:
            fastest = min(plain, key=partial(_median_seconds, plain))
        plain_time = measure_seconds(plain[fastest], DEVICE)
        backend_time = measure_seconds(partial(backend.attend, inputs), DEVICE)
        plain_seconds.append(plain_time)
        ratios.append(backend_time / plain_time)
    ratios, plain_seconds = ratios[1:], plain_seconds[1:]  # the first pair warms up
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return Comparison(ratio, statistics.median(plain_seconds))


def _median_seconds(plain: dict[str, Callable[[], Tensor]], name: str) -> float:
    """Return the median of three timings of one plain attention."""
    return statistics.median(measure_seconds(plain[name], DEVICE) for _ in range(3))


def _plain_attentions(inputs: AttentionInputs) -> dict[str, Callable[[], Tensor]]:
    """Return the plain attentions of torch that can process the inputs, by name.

    For a decode step each kernel is also tried with the query heads of a group as the queries of
    one head, which reads the keys once per group.
    """
    query, (_, groups, _, dim) = inputs.query, inputs.key.shape
    causal = query.shape[2] > 1
    queries = {"heads": query}
    if not causal:
        queries["grouped"] = query.view(1, groups, -1, dim)
    runnable: dict[str, Callable[[], Tensor]] = {}
    for kernel in TORCH_KERNELS:
        if kernel == SDPBackend.MATH and causal and query.shape[2] > MATH_MAX_QUERIES:
            continue
        for form, q in queries.items():
            attend = partial(_plain_attention, kernel, q, inputs, causal)
            with suppress(RuntimeError):  # torch raises it for a kernel that cannot run here
                attend()
                runnable[f"{kernel.name} {form}"] = attend
    return runnable


def _plain_attention(
    kernel: SDPBackend, q: Tensor, inputs: AttentionInputs, causal: bool
) -> Tensor:
    """Return attention without positions by one of torch's kernels, in the shape of ``q``."""
    with sdpa_kernel(kernel):
        return scaled_dot_product_attention(
            q, inputs.key, inputs.value, is_causal=causal, scale=inputs.scale, enable_gqa=True
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
