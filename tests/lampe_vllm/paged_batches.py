"""Batches of requests over a paged KV cache, and the attention that the oracle gives them.

Memory that no request owns is NaN: other blocks, the rest of each last block, and the blocks that
lie before a layer's local window.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import lampe
from lampe.attention import BACKENDS, AttentionInputs, LogitOptions
from lampe.attention.logit_options import PLAIN_LOGITS
from lampe_vllm.gpu.paged_cache import PagedCache

SCALE = 0.25
SLOTS = 16
LAYOUTS = ("HND", "NHD")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Request = tuple[lampe.Encoding, int, int]
"""Encoding of a request, token index of its first query, and token index after its last one."""


@dataclass(frozen=True, eq=False)
class PagedBatch:
    """Requests with their queries, keys and values, and the cache that holds these.

    Attributes:
        inputs: one per request, in the library's shapes.
        cache: views of a cache in vLLM's shape.
        block_table: ``[N, blocks]`` int32.
    """

    inputs: tuple[AttentionInputs, ...]
    cache: PagedCache
    block_table: Tensor

    @property
    def query(self) -> Tensor:
        """Return the queries ``[tokens, H, D]`` of all requests one after the other."""
        return torch.cat([each.query[0].transpose(0, 1) for each in self.inputs])


def paged_batch(
    requests: Sequence[Request],
    *,
    layout: str = "HND",
    heads: tuple[int, int] = (4, 2),
    dim: int = 64,
    dtype: torch.dtype = torch.float32,
    logits: LogitOptions = PLAIN_LOGITS,
) -> PagedBatch:
    """Return requests of random numbers.

    Args:
        requests: the requests.
        layout: whether heads or tokens come first in a block, one of ``LAYOUTS``.
        heads: query heads and key heads.
        dim: dimensions per head.
        dtype: of queries, keys and values.
        logits: soft cap and sinks.
    """
    needed = [-(-stop // SLOTS) for _, _, stop in requests]
    # Twice the blocks that are needed, in an order of chance.
    free = torch.randperm(2 * sum(needed))
    shape = [len(free), heads[1], SLOTS, 2 * dim]
    if layout == "NHD":
        shape[1:3] = SLOTS, heads[1]
    memory = torch.full(shape, torch.nan, dtype=dtype, device=DEVICE)
    kv_cache = memory if layout == "HND" else memory.transpose(1, 2)
    # The rest of vLLM's table is zeros, a block that may be anybody's.
    block_table = torch.zeros(len(requests), max(needed) + 2, dtype=torch.int32, device=DEVICE)
    all_inputs = []
    for index, (encoding, start, stop) in enumerate(requests):
        query = torch.randn(1, heads[0], stop - start, dim).to(DEVICE, dtype)
        keys_and_values = torch.randn(1, heads[1], stop, 2 * dim).to(DEVICE, dtype)
        key, value = keys_and_values.chunk(2, dim=-1)
        inputs = AttentionInputs(query, key, value, encoding, SCALE, start=start, logits=logits)
        all_inputs.append(inputs)
        blocks, free = free[: needed[index]].to(DEVICE), free[needed[index] :]
        padded = memory.new_full((heads[1], len(blocks) * SLOTS, 2 * dim), torch.nan)
        padded[:, :stop] = keys_and_values[0]
        first_block = _first_token(encoding, start) // SLOTS
        blocks_of_request = padded.unflatten(1, (-1, SLOTS)).transpose(0, 1)
        kv_cache[blocks[first_block:]] = blocks_of_request[first_block:]
        block_table[index, first_block : len(blocks)] = blocks[first_block:]
    return PagedBatch(tuple(all_inputs), PagedCache.from_vllm(kv_cache), block_table)


def _first_token(encoding: lampe.Encoding, start: int) -> int:
    """Return the first token that a query sees."""
    local = encoding.plan.regions[0].local
    return 0 if local is None else int(local.first(torch.tensor(start)))


def oracle(inputs: AttentionInputs) -> Tensor:
    """Return the attention ``[Q, H, D]`` of a request by the dense oracle, in float64."""
    doubled = dataclasses.replace(
        inputs,
        query=inputs.query.double(),
        key=inputs.key.double(),
        value=inputs.value.double(),
    )
    return BACKENDS["dense"].attend(doubled)[0].transpose(0, 1)
