"""Time of a paged decode step on a GPU, relative to stock attention over the same cache.

    python -m benchmarks.paged_decode [SHAPE [BATCHES]]

SHAPE is a shipped model shape (llama3-8b by default), BATCHES a list of requests and their tokens
such as 64x4k,8x32k. Inputs are random, and the blocks of a cache are in an order of chance.

Stock attention is vLLM's FlashAttention over the same blocks where vllm is installed, elsewhere
torch's own over contiguous keys. It rotates nothing. A ratio is the median of pairs (lowest to
highest in parentheses); the first pair is not counted. The error is the largest difference to
blockwise attention in float32, of the first request.

That every method, layout and kind of head is right on this GPU is what the tests say, which run on
it by themselves: python -m pytest tests/lampe_vllm
"""

import statistics
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig

import lampe
from lampe.attention import BACKENDS, AttentionInputs
from lampe.attention.logit_options import PLAIN_LOGITS
from lampe.attention.triton_backend import runs_kernels_on
from lampe_eval.cards import shipped_card
from lampe_eval.running.environment import environment
from lampe_eval.speed.measured_model import ShapeCard
from lampe_eval.speed.timing import measure_seconds
from lampe_eval.suite import parse_length, split_names
from lampe_vllm.gpu.decode import DecodeQuery, DecodeTables, attend_paged
from lampe_vllm.gpu.paged_cache import PagedCache

PAIRS = 9
SLOTS = 16
METHODS = ("original", "lampe", "selfextend", "dca")
LAYOUTS = ("NHD", "HND")
if torch.cuda.is_available():
    DEVICE, DTYPE, BATCHES = torch.device("cuda"), torch.bfloat16, "1x32k,64x4k,8x32k,2x128k"
else:
    DEVICE, DTYPE, BATCHES = torch.device("cpu"), torch.float32, "2x64"

COLUMNS = ("ours, ms", "stock, ms", "ratio", "error")


@torch.no_grad()
def main(shape: str = "llama3-8b", batches: str = BATCHES) -> None:
    """Print a table of all batches, layouts and methods for one model shape."""
    if not runs_kernels_on(DEVICE):
        # Triton's interpreter runs the kernel, but its times mean nothing.
        sys.exit("benchmarks.paged_decode needs a GPU; there is none")
    config = AutoConfig.for_model(**shipped_card("shapes", shape, ShapeCard).config)
    geometry = lampe.geometry_of(config)
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    stock = "vLLM's FlashAttention" if _has_vllm_flash() else "torch's attention"
    table = Table(title=f"{shape}, {DTYPE}: a decode step, and {stock}", title_justify="left")
    for column in ("batch", "layout", "method"):
        table.add_column(column, no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for batch in split_names(batches):
        requests, _, length = batch.partition("x")
        for layout in LAYOUTS:
            step = _Step(int(requests), parse_length(length), layout, heads, groups, geometry)
            for method in METHODS:
                table.add_row(batch, layout, method, *step.measured_cells(method))
    console = Console(width=160)
    console.print(table)
    facts = [f"{key} {value}" for key, value in environment().items() if value]
    console.print(", ".join(facts), soft_wrap=True)


class _Step:
    """Decode step of requests of one length."""

    def __init__(
        self,
        requests: int,
        length: int,
        layout: str,
        heads: int,
        groups: int,
        geometry: lampe.Geometry,
    ) -> None:
        dim, per_request = geometry.head_dim, -(-length // SLOTS)
        self.geometry, self.length, self.requests = geometry, length, requests
        self.query = torch.randn(requests, heads, dim, device=DEVICE, dtype=DTYPE)
        shape = [requests * per_request, groups, SLOTS, 2 * dim]
        if layout == "NHD":
            shape[1:3] = SLOTS, groups
        memory = torch.randn(shape, device=DEVICE, dtype=DTYPE)
        self.cache = PagedCache.from_vllm(memory if layout == "HND" else memory.transpose(1, 2))
        blocks = torch.randperm(len(memory), device=DEVICE, dtype=torch.int32)
        self.block_table = blocks.view(requests, per_request)

    def measured_cells(self, method: str) -> list[str]:
        """Return the cells of a method."""
        encoding = lampe.method_of(method).encode(self.geometry, self.length - 1)
        queries = [DecodeQuery(encoding, self.length - 1)] * self.requests
        scale = self.geometry.head_dim**-0.5
        ours = partial(
            attend_paged,
            self.query,
            self.cache,
            self.block_table,
            DecodeTables(DEVICE).batch(queries),
            scale=scale,
            logits=PLAIN_LOGITS,
        )
        stock = self._vllm_flash(scale) if _has_vllm_flash() else self._torch_attention(scale)
        pairs = []
        for _ in range(1 + PAIRS):
            stock_time = measure_seconds(stock, DEVICE)
            pairs.append((measure_seconds(ours, DEVICE), stock_time))
        times = pairs[1:]  # the first pair warms up
        ratios = [our_time / stock_time for our_time, stock_time in times]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        medians = [f"{1000 * statistics.median(column):.3f}" for column in zip(*times, strict=True)]
        error = (ours()[:1].float() - self._exact(encoding, scale)).abs().max()
        return [*medians, ratio, f"{float(error):.1e}"]

    def _exact(self, encoding: lampe.Encoding, scale: float) -> Tensor:
        """Return the attention ``[1, H, D]`` of the first request, in float32."""
        key, value = self.cache.gather(self.block_table[0], 0, self.length)
        inputs = AttentionInputs(
            self.query[:1, :, None].float(),
            key.float(),
            value.float(),
            encoding,
            scale,
            start=self.length - 1,
        )
        return BACKENDS["blockwise"].attend(inputs)[:, :, 0]

    def _torch_attention(self, scale: float) -> Callable[[], Tensor]:
        """Return torch's attention over contiguous copies of all keys."""
        gathered = [self.cache.gather(blocks, 0, self.length) for blocks in self.block_table]
        key, value = (torch.cat(tensors) for tensors in zip(*gathered, strict=True))
        # The heads of a group as queries of one head, so that keys are read once per group.
        query = self.query.unflatten(1, (key.shape[1], -1))
        return partial(scaled_dot_product_attention, query, key, value, scale=scale)

    def _vllm_flash(self, scale: float) -> Callable[[], Tensor]:
        """Return vLLM's FlashAttention over the same blocks."""
        from vllm.v1.attention.backends.fa_utils import (
            flash_attn_varlen_func,
            get_flash_attn_version,
        )

        token_counts = torch.full((self.requests,), self.length, device=DEVICE, dtype=torch.int32)
        return partial(
            flash_attn_varlen_func,
            q=self.query,
            k=self.cache.key.transpose(1, 2),
            v=self.cache.value.transpose(1, 2),
            cu_seqlens_q=torch.arange(self.requests + 1, device=DEVICE, dtype=torch.int32),
            max_seqlen_q=1,
            seqused_k=token_counts,
            max_seqlen_k=self.length,
            softmax_scale=scale,
            causal=True,
            block_table=self.block_table,
            fa_version=get_flash_attn_version(),
        )


def _has_vllm_flash() -> bool:
    return DEVICE.type == "cuda" and find_spec("vllm") is not None


if __name__ == "__main__":
    main(*sys.argv[1:])
