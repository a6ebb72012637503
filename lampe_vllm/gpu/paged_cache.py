"""KV cache in blocks, as vLLM lays it out: views of one layer, and the keys of one request.

Shapes: G key heads, D head dimensions, K keys, C dimensions that keys and values take in the cache.
"""

from typing import NamedTuple, Self

from torch import Tensor

from lampe.errors import LampeError


class PagedCache(NamedTuple):
    """Keys and values of one layer, in blocks of equally many tokens.

    Attributes:
        key: ``[blocks, G, slots, D]`` with any strides, not rotated.
        value: the same shape.
    """

    key: Tensor
    value: Tensor

    @classmethod
    def from_vllm(cls, kv_cache: Tensor) -> Self:
        """Return the views of vLLM's cache ``[blocks, G, slots, 2 D]`` of one layer."""
        key, value = kv_cache.chunk(2, dim=-1)
        return cls(key, value)

    @property
    def slots(self) -> int:
        """Return how many tokens a block has."""
        return self.key.shape[2]

    def gather(self, blocks: Tensor, first: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values ``[1, G, K, D]`` of the tokens ``first..stop`` of a request.

        Args:
            blocks: ``[n]``, the blocks of the request in the order of its tokens.
            first: token index of the first key; blocks before it may be reused by others.
            stop: token index after the last key.
        """
        first_block = first // self.slots
        blocks = blocks[first_block : -(-stop // self.slots)].long()
        rows = slice(first - first_block * self.slots, stop - first_block * self.slots)
        key, value = (x[blocks].transpose(0, 1).flatten(1, 2)[None, :, rows] for x in self)
        return key, value


def rows_per_block(x: Tensor) -> int:
    """Return how many rows of one head lie between the starts of two blocks of a cache.

    Args:
        x: keys or values ``[blocks, G, slots, D]``.

    Raises:
        LampeError: for a cache whose blocks do not begin a whole number of rows apart.
    """
    rows, rest = divmod(x.stride(0), x.stride(2))
    if rest or x.stride(3) != 1:
        raise LampeError(
            f"cannot read a KV cache with strides {tuple(x.stride())}: its blocks do not begin a "
            "whole number of tokens apart; choose another layout by VLLM_KV_CACHE_LAYOUT"
        )
    return rows
