"""Attention of a step in one kind of layer: single queries in one launch, longer runs one by one.

Shapes: T tokens of a step, N single queries, H query heads, D head dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lampe.attention import BackendDispatcher, LogitOptions
from lampe.attention.rotation import RotaryTables
from lampe.encoding import Encoding
from lampe_vllm.batch_tokens import SINGLE_QUERIES, RequestTokens
from lampe_vllm.gpu.decode import DecodeBatch, DecodeQuery, DecodeTables, attend_paged, on_device
from lampe_vllm.gpu.paged_cache import PagedCache
from lampe_vllm.gpu.prefill import prefill_paged
from lampe_vllm.prompt_encodings import PromptEncoding


@dataclass(frozen=True, eq=False)
class SingleTokens:
    """Queries that attend in one launch of the decode kernel.

    Attributes:
        tokens: ``[N]``, their tokens in the batch.
        block_table: ``[N, blocks]`` int32.
        batch: the queries as the kernel reads them.
    """

    tokens: Tensor
    block_table: Tensor
    batch: DecodeBatch


@dataclass(frozen=True, eq=False)
class TokenRun:
    """Consecutive tokens of a request that attend together.

    Attributes:
        tokens: their place in the batch.
        start: token index of the first of them.
        blocks: ``[n]`` int32, the blocks of the request.
        encoding: of the request's prompt.
        tables: cos and sin of its rope.
    """

    tokens: slice
    start: int
    blocks: Tensor
    encoding: Encoding
    tables: RotaryTables


@dataclass(frozen=True, eq=False)
class GPUStep:
    """Tokens of a step as they attend in one kind of layer.

    Attributes:
        single: queries of the decode kernel; None where there are none.
        runs: runs of tokens for the library's backends.
    """

    single: SingleTokens | None
    runs: Sequence[TokenRun]

    def attend(
        self,
        query: Tensor,
        cache: PagedCache,
        output: Tensor,
        *,
        scale: float,
        logits: LogitOptions,
        dispatcher: BackendDispatcher,
    ) -> None:
        """Write the attention of all tokens of a layer to ``output``.

        Args:
            query: ``[T, H, D]``, not rotated; tokens beyond those of the step are padding.
            cache: keys and values of the layer, with those of this step.
            output: ``[T, H, D]``.
            scale: factor on the logits before the softmax.
            logits: soft cap and sinks of the layer.
            dispatcher: chooser of the backend of runs.
        """
        if self.single is not None:
            tokens, block_table = self.single.tokens, self.single.block_table
            output[tokens] = attend_paged(
                query[tokens], cache, block_table, self.single.batch, scale=scale, logits=logits
            )
        for run in self.runs:
            output[run.tokens] = prefill_paged(
                query[run.tokens],
                cache,
                run.blocks,
                run.encoding,
                run.start,
                scale=scale,
                logits=logits,
                tables=run.tables,
                dispatcher=dispatcher,
            )


def divide_step(
    requests: Sequence[tuple[RequestTokens, PromptEncoding]],
    block_table: Tensor,
    tables: DecodeTables,
) -> GPUStep:
    """Return how the tokens of a step attend.

    Args:
        requests: requests with tokens in the step, each with the encoding of its prompt.
        block_table: ``[requests, blocks]`` int32.
        tables: those of earlier steps in layers of this kind.
    """
    queries, tokens, rows, runs = [], [], [], []
    for request, prompt in requests:
        stop = request.start + request.count
        run_stop = stop
        if request.count <= SINGLE_QUERIES:
            run_stop = request.start
        elif prompt.has_token_plans:
            # Each token of the answer has a plan of its own: vLLM reads them together when it
            # computes a request again after preemption.
            run_stop = min(stop, max(request.start, request.prompt))
        if request.start < run_stop:
            run_tokens = slice(request.begin, request.begin + run_stop - request.start)
            blocks = block_table[request.row]
            run = TokenRun(run_tokens, request.start, blocks, prompt.encoding, RotaryTables())
            runs.append(run)
        for token in range(run_stop, stop):
            queries.append(DecodeQuery(prompt.of_token(token), token))
            tokens.append(request.begin + token - request.start)
            rows.append(request.row)
    if not queries:
        return GPUStep(None, runs)
    device = block_table.device
    single = SingleTokens(
        tokens=on_device(np.array(tokens), device),
        block_table=block_table[on_device(np.array(rows), device)],
        batch=tables.batch(queries),
    )
    return GPUStep(single, runs)
