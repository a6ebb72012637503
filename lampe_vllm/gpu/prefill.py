"""Prefill of one request over a paged KV cache: a prompt, a chunk of one, or several tokens.

Prefill multiplies each key with many queries, so the keys of the request are copied out of their
blocks first, at the price of reading them once more, and the library's backends attend to them.
"""

import torch
from torch import Tensor

from lampe.attention import AttentionInputs, BackendDispatcher, LogitOptions
from lampe.attention.rotation import RotaryTables
from lampe.encoding import Encoding
from lampe_vllm.gpu.paged_cache import PagedCache


def prefill_paged(
    query: Tensor,
    cache: PagedCache,
    blocks: Tensor,
    encoding: Encoding,
    start: int,
    *,
    scale: float,
    logits: LogitOptions,
    tables: RotaryTables,
    dispatcher: BackendDispatcher,
) -> Tensor:
    """Return the attention ``[Q, H, D]`` of consecutive queries of one request.

    Args:
        query: ``[Q, H, D]``, not rotated.
        cache: keys and values of the layer, with those of the queries' own tokens.
        blocks: ``[n]``, the blocks of the request in the order of its tokens.
        encoding: rope, plan and attention factor.
        start: token index of the first query.
        scale: factor on the logits before the softmax.
        logits: soft cap and sinks of the layer.
        tables: cos and sin, shared by the layers.
        dispatcher: chooser of the backend.
    """
    local = encoding.plan.regions[0].local
    # A layer with a local window may have given the blocks before it to other requests.
    first = 0 if local is None else int(local.first(torch.tensor(start)))
    key, value = cache.gather(blocks, first, start + len(query))
    inputs = AttentionInputs(
        query.transpose(0, 1)[None],
        key,
        value,
        encoding,
        scale=scale,
        start=start,
        first=first,
        logits=logits,
        tables=tables,
    )
    return dispatcher.attend(inputs)[0].transpose(0, 1)
