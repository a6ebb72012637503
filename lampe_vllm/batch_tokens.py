"""Tokens of the requests of one step, and how they attend in one kind of layer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lampe.positions import LocalWindow
from lampe_vllm.prompt_encodings import PromptEncoding, PromptEncodings, QuerySteps

PART_KEYS = 256
"""Keys of a part at most: keys and values of one head then stay in the second-level cache."""
SINGLE_QUERIES = 8
"""Tokens of a request whose queries attend one by one at most: an answer's, with those guessed."""


@dataclass(frozen=True)
class RequestTokens:
    """Tokens of one request in a step.

    Attributes:
        row: row of the block table.
        begin: first of them in the batch.
        count: how many they are.
        start: index in the request of the first of them.
        prompt: tokens of the request's prompt, and those of its answer that are planned with it.
    """

    row: int
    begin: int
    count: int
    start: int
    prompt: int


@dataclass(frozen=True, eq=False)
class SingleQueries:
    """Queries that attend one by one, and the parts of their keys.

    Attributes:
        tokens: index in the batch of each of N queries.
        scales: log-n scale ``[N]`` float32 of each query.
        parts: ``[M, 5]`` int64, as ``paged_decode`` takes them.
        rotations: cos and sin ``[M, 2 P]`` float32 of the query of each part.
        ends: ``[N + 1]`` int64: parts ``ends[n]`` to ``ends[n + 1]`` belong to query n.
        tables: rotations of the keys.
    """

    tokens: Tensor
    scales: np.ndarray
    parts: np.ndarray
    rotations: np.ndarray
    ends: np.ndarray
    tables: np.ndarray


@dataclass(frozen=True, eq=False)
class LayerStep:
    """Attention of a step in one kind of layer.

    Attributes:
        whole: requests whose queries attend together, each with the encoding of its prompt.
        single: queries that attend one by one; None where there are none.
    """

    whole: list[tuple[RequestTokens, PromptEncoding]]
    single: SingleQueries | None


@dataclass(eq=False)
class BatchTokens:
    """Tokens of a step; vLLM's metadata of attention for the layers of one KV cache group.

    Attributes:
        requests: requests that have tokens in this step.
        block_table: ``[requests, blocks]`` int32.
    """

    requests: list[RequestTokens]
    block_table: Tensor
    _steps: dict[LocalWindow | None, LayerStep] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        query_starts: Tensor,
        lengths: Tensor,
        prompts: Tensor,
        block_table: Tensor,
        reserved_tokens: int = 0,
    ) -> "BatchTokens":
        """Return the tokens of a batch as vLLM describes it.

        Args:
            query_starts: first token of each request in the batch, and their number at the end.
            lengths: tokens of each request up to the last one of this step.
            prompts: tokens of each request's prompt.
            block_table: ``[requests, blocks]`` int32.
            reserved_tokens: tokens of each answer that are planned with the prompt.
        """
        starts = query_starts.tolist()
        requests = []
        for row, (length, prompt) in enumerate(
            zip(lengths.tolist(), prompts.tolist(), strict=True)
        ):
            count = starts[row + 1] - starts[row]
            planned = prompt + reserved_tokens
            if count:
                requests.append(RequestTokens(row, starts[row], count, length - count, planned))
        return cls(requests, block_table)

    def layer_step(
        self, local: LocalWindow | None, encodings: PromptEncodings, compiled: bool
    ) -> LayerStep:
        """Return how the tokens attend in a kind of layer, computed once for all of its layers.

        Args:
            local: tokens that the layer attends to; None for all.
            encodings: those of the method.
            compiled: whether the compiled code for single queries can run.
        """
        if local not in self._steps:
            self._steps[local] = self._layer_step(local, encodings, compiled)
        return self._steps[local]

    def _layer_step(
        self, local: LocalWindow | None, encodings: PromptEncodings, compiled: bool
    ) -> LayerStep:
        prompts = encodings.prompts(local, [request.prompt for request in self.requests])
        whole, single = [], []
        for request, prompt in zip(self.requests, prompts, strict=True):
            stop = request.start + request.count
            if compiled and request.count <= SINGLE_QUERIES:
                single.append((request, prompt))
            elif stop <= request.prompt or not prompt.has_token_plans:
                whole.append((request, prompt))
            else:
                # Each token of the answer has a plan of its own: vLLM reads them together when it
                # computes a request again.
                for part in _split_at_prompt(request):
                    single_part = part.start >= request.prompt
                    (single if compiled and single_part else whole).append((part, prompt))
        return LayerStep(whole, _single_queries(single, encodings) if single else None)


def _split_at_prompt(request: RequestTokens) -> list[RequestTokens]:
    """Return the tokens of the prompt together, and each token of the answer alone."""
    cuts = [
        request.start,
        *range(max(request.start, request.prompt), request.start + request.count),
    ]
    cuts = [*dict.fromkeys(cuts), request.start + request.count]
    return [
        RequestTokens(request.row, request.begin + a - request.start, b - a, a, request.prompt)
        for a, b in pairwise(cuts)
    ]


def _single_queries(
    requests: Sequence[tuple[RequestTokens, PromptEncoding]], encodings: PromptEncodings
) -> SingleQueries:
    """Return the queries of requests, each to attend alone."""
    queries: list[tuple[RequestTokens, int, QuerySteps]] = []
    for request, prompt in requests:
        for offset in range(request.count):
            queries.append((request, offset, prompt.steps(request.start + offset)))
    parts: list[tuple[int, int, int, int, int]] = []
    tokens, scales, rotations, ends = [], [], [], [0]
    for query, (request, offset, steps) in enumerate(queries):
        number = request.start + offset - steps.begin
        tokens.append(request.begin + offset)
        scales.append(steps.scales[number])
        for (start, stop, table), rotation in zip(
            steps.runs[number], steps.rotations[number], strict=True
        ):
            for begin in range(start, stop, PART_KEYS):
                end = min(begin + PART_KEYS, stop)
                parts.append((request.row, begin, end, table.base, query))
                rotations.append(rotation)
        ends.append(len(parts))
    return SingleQueries(
        torch.tensor(tokens),
        np.array(scales, np.float32),
        np.array(parts),
        np.stack(rotations),
        np.array(ends),
        # After the last table was made: an array that is full is replaced.
        encodings.tables.array,
    )
