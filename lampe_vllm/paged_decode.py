"""Attention of single queries over a paged KV cache on the CPU, compiled by numba.

Keys lie in the cache as the model made them, without rotation, and are rotated while they are read:
that costs less than the copy of all keys that a gather makes. So nothing is remembered from step to
step, and preemption, speculation and shared blocks need no care.

The keys of a query come in parts: a part is a run of keys in one region of the query's plan. Parts
are computed in parallel and merged by their log-sum-exp.

One call computes everything for a layer: at each launch of a torch operation a step of small
batches would wait longer than for its attention.

Shapes: N queries, M parts, H query heads, G key heads, R query heads per key head, D head
dimensions, P rotated pairs.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit, prange

from lampe_vllm.batch_tokens import PART_KEYS

# Without nnan and ninf: a query that has no keys yet has a log-sum-exp of -inf.
FAST_MATH = {"reassoc", "contract", "arcp", "nsz"}

LOG2_E = np.float32(math.log2(math.e))
# Taylor series of 2**f = exp(f ln 2), for f between -0.5 and 0.5.
C1, C2, C3, C4, C5, C6, C7 = (np.float32(math.log(2) ** n / math.factorial(n)) for n in range(1, 8))
SMALLEST_EXPONENT = np.float32(-126.0)
ZERO, HALF, ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
EXPONENT_BIAS, MANTISSA_BITS, BFLOAT16_SHIFT = np.int32(127), np.int32(23), np.int32(16)


@njit(fastmath=FAST_MATH)
def _exponentials(values: Any, count: int) -> tuple[Any, Any]:
    """Replace values by ``exp(value - largest)``; return the largest value and their sum.

    LLVM turns this loop into vector instructions, which it cannot do with ``exp`` itself.
    """
    largest = values[0]
    for index in range(count):
        largest = max(largest, values[index])
    total = ZERO
    for index in range(count):
        x = max((values[index] - largest) * LOG2_E, SMALLEST_EXPONENT)
        whole = np.floor(x + HALF)
        f = x - whole
        y = ONE + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * (C6 + f * C7))))))
        # The bits of the float32 whose exponent is the whole part.
        power = (np.int32(whole) + EXPONENT_BIAS) << MANTISSA_BITS
        y *= np.int32(power).view(np.float32)
        values[index] = y
        total += y
    return largest, total


@njit
def _same(number: Any) -> Any:
    """Return a float32 of a cache of float32."""
    return number


@njit
def _from_bfloat16(number: Any) -> Any:
    """Return the float32 of the bits of a bfloat16: they are its upper half."""
    return np.int32(np.int32(number) << BFLOAT16_SHIFT).view(np.float32)


@njit(fastmath=FAST_MATH)
def _merge_parts(ends: Any, part_out: Any, part_lse: Any, sinks: Any, out: Any) -> None:
    """Merge the parts of each query.

    Args:
        ends: ``[N + 1]`` int64: parts ``ends[n]`` to ``ends[n + 1]`` belong to query n.
        part_out: ``[M, H, D]`` float32.
        part_lse: ``[M, H]`` float32.
        sinks: logits ``[H]`` float32 of keys whose value is zero; empty for none.
        out: ``[N, H, D]`` float32, written.
    """
    heads, dim = out.shape[1], out.shape[2]
    for n in range(out.shape[0]):
        for head in range(heads):
            largest, total = part_lse[ends[n], head], ZERO
            if sinks.shape[0]:
                largest, total = sinks[head], ONE
            for d in range(dim):
                out[n, head, d] = ZERO
            for part in range(ends[n], ends[n + 1]):
                higher = max(largest, part_lse[part, head])
                before, weight = np.exp(largest - higher), np.exp(part_lse[part, head] - higher)
                largest, total = higher, total * before + weight
                for d in range(dim):
                    out[n, head, d] = out[n, head, d] * before + weight * part_out[part, head, d]
            for d in range(dim):
                out[n, head, d] /= total


@lru_cache
def compile_attention(
    dim: int,
    heads: int,
    pairs: int,
    begin: int,
    interleaved: bool,
    softcap: float,
    bfloat16: bool,
) -> Any:
    """Return the function that computes the attention of single queries.

    The numbers of a model are constants of the compiled code: the inner loops are three times as
    fast as with numbers that are known only when they run. Compiled code is not stored, since numba
    cannot find code again that depends on other compiled functions; it takes 4 seconds.

    Args:
        dim: D.
        heads: R.
        pairs: P.
        begin: first rotated dimension of a head.
        interleaved: how dimensions are paired, see ``lampe.rope.Rope``.
        softcap: soft cap of the logits; 0 for none.
        bfloat16: whether queries and the cache are the bits of bfloat16, as int16, instead of
            float32.
    """
    number = _from_bfloat16 if bfloat16 else _same
    step = 2 if interleaved else 1
    other = 1 if interleaved else pairs
    end = begin + 2 * pairs
    cap = np.float32(softcap)

    # Rows as numbers: a view of a row in the inner loop would count references.
    @njit(fastmath=FAST_MATH)
    def rotate(x: Any, row: int, table: Any, angle: int, out: Any, out_row: int) -> None:
        """Write a row of ``x[..., D]``, rotated by a row of cos and sin, to a row of ``out``."""
        for d in range(begin):
            out[out_row, d] = number(x[row, d])
        for p in range(pairs):
            a, b = number(x[row, begin + step * p]), number(x[row, begin + step * p + other])
            c, s = table[angle, p], table[angle, pairs + p]
            out[out_row, begin + step * p] = a * c - b * s
            out[out_row, begin + step * p + other] = b * c + a * s
        for d in range(end, dim):
            out[out_row, d] = number(x[row, d])

    # Not written into the parallel loop: numba makes arguments of the constants there.
    @njit(fastmath=FAST_MATH)
    def attend_part(
        part: int,
        group: int,
        query: Any,
        scales: Any,
        parts: Any,
        rotations: Any,
        cache: Any,
        block_table: Any,
        tables: Any,
        part_out: Any,
        part_lse: Any,
    ) -> None:
        """Compute the attention of one part and key head."""
        start, stop, base, n = parts[part, 1], parts[part, 2], parts[part, 3], parts[part, 4]
        blocks, size, first_head = block_table[parts[part, 0]], cache.shape[3], group * heads
        queries = np.empty((heads, dim), np.float32)
        scores = np.empty((heads, PART_KEYS), np.float32)
        rotated = np.empty((1, dim), np.float32)
        for r in range(heads):
            rotate(query[n], first_head + r, rotations, part, queries, r)
            for d in range(dim):
                queries[r, d] *= scales[n]
        token = start
        while token < stop:
            keys = cache[blocks[token // size], group, 0]
            offset = token % size
            run = min(size - offset, stop - token)
            for t in range(run):
                rotate(keys, offset + t, tables, base + token + t, rotated, 0)
                for r in range(heads):
                    score = ZERO
                    for d in range(dim):
                        score += queries[r, d] * rotated[0, d]
                    scores[r, token - start + t] = score
            token += run
        out = part_out[part, first_head : first_head + heads]
        for r in range(heads):
            if softcap:
                for index in range(stop - start):
                    scores[r, index] = cap * np.tanh(scores[r, index] / cap)
            largest, total = _exponentials(scores[r], stop - start)
            part_lse[part, first_head + r] = largest + np.log(total)
            for index in range(stop - start):
                scores[r, index] /= total
            for d in range(dim):
                out[r, d] = ZERO
        token = start
        while token < stop:
            values = cache[blocks[token // size], group, 1]
            offset = token % size
            run = min(size - offset, stop - token)
            for t in range(run):
                for r in range(heads):
                    weight = scores[r, token - start + t]
                    for d in range(dim):
                        out[r, d] += weight * number(values[offset + t, d])
            token += run

    @njit(parallel=True, nogil=True, fastmath=FAST_MATH)
    def attend(
        query: Any,
        scales: Any,
        parts: Any,
        rotations: Any,
        ends: Any,
        cache: Any,
        block_table: Any,
        tables: Any,
        sinks: Any,
        out: Any,
    ) -> None:
        """Compute the attention of every query.

        Args:
            query: ``[N, H, D]``, not rotated.
            scales: ``[N]`` float32, factors on the logits.
            parts: ``[M, 5]`` int64: row of the block table, first key, key after the last, the row
                of ``tables`` that token 0 would have, and the query.
            rotations: cos and sin ``[M, 2 P]`` float32 of the query of each part.
            ends: ``[N + 1]`` int64: parts ``ends[n]`` to ``ends[n + 1]`` belong to query n.
            cache: keys and values ``[blocks, G, 2, size, D]``, contiguous.
            block_table: ``[requests, blocks of a request]`` int32.
            tables: cos and sin ``[rows, 2 P]`` float32 of keys.
            sinks: logits ``[H]`` float32 of keys whose value is zero; empty for none.
            out: ``[N, H, D]`` float32, written.
        """
        groups = cache.shape[1]
        part_out = np.empty((parts.shape[0], groups * heads, dim), np.float32)
        part_lse = np.empty((parts.shape[0], groups * heads), np.float32)
        for item in prange(parts.shape[0] * groups):
            attend_part(
                item // groups,
                item % groups,
                query,
                scales,
                parts,
                rotations,
                cache,
                block_table,
                tables,
                part_out,
                part_lse,
            )
        _merge_parts(ends, part_out, part_lse, sinks, out)

    return attend
