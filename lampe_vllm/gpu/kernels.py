"""Triton kernel: one decode step of all requests of a batch over a paged KV cache.

Names, sizes and units are those of ``lampe.attention.triton_kernels``, whose rotation and running
softmax this kernel uses. N is the number of requests. A *row* is one token in the memory of one key
head: row ``block * rows_per_block + slot`` of a cache begins ``stride_t`` elements after the row
before it, whether heads or slots come first in a block (vLLM's HND and NHD).
"""

import triton
import triton.language as tl

from lampe.attention.triton_kernels import LOG2E, load_rotated, update_softmax

REGION_FIELDS = tl.constexpr(6)


@triton.jit
def paged_decode(
    query, stride_q_n, stride_q_h, key, stride_k_g, stride_k_t, k_rows_per_block,
    value, stride_v_g, stride_v_t, v_rows_per_block, block_table, stride_b_n, regions, sinks,
    out, lse, G, R, S, scale,
    D: tl.constexpr, BD: tl.constexpr, P: tl.constexpr, BEGIN: tl.constexpr,
    IS_HALF_LAYOUT: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, SLOTS: tl.constexpr,
    SPLIT_KEYS: tl.constexpr, SOFTCAP: tl.constexpr, USE_SINKS: tl.constexpr,
):  # fmt: skip
    """Attend with one query per request to one split of its keys. Grid: splits, N x G.

    Keys are rotated after they are loaded. Only rows of keys that the query owns are read.

    Inputs and outputs:
        query: ``[N, H, D]``, not rotated.
        key: paged cache of keys, not rotated.
        k_rows_per_block: rows from a block of the cache to the next.
        value: paged cache of values.
        v_rows_per_block: as for keys.
        block_table: ``[N, blocks]`` int32, the blocks of each request in the order of its tokens.
        regions: ``[N, S, 6]`` int64. First and last key that the query owns in a region (the last
            below the first where it owns none), then the addresses of float32 tables: cos and sin
            of the query, ``[P]``, and cos and sin of the keys, ``[tokens, P]``.
        sinks: ``[H]``, logits in natural units.
        out: ``[N, G, splits, R, D]`` float32, written: attention over the split alone.
        lse: ``[N, G, splits, R]`` float32, written: its log-sum-exp, -inf where it owns no key.
        S: regions per request; those that a request does not have own no key.
        scale: factor on the logits, log2(e) included.
        SLOTS: tokens of a block of the cache.
    """
    i_split = tl.program_id(0)
    i_n = (tl.program_id(1) // G).to(tl.int64)
    i_g = (tl.program_id(1) % G).to(tl.int64)
    # The R query heads of a group are the rows of the block, so that a split's keys and values are
    # read once for all of them.
    o_r = tl.arange(0, BQ)
    m_r = o_r < R
    o_d = tl.arange(0, BD)
    m_d = (o_d < D)[None, :]
    p_query = query + i_n * stride_q_n + i_g * R * stride_q_h
    p_key = key + i_g * stride_k_g
    p_value = value + i_g * stride_v_g
    p_blocks = block_table + i_n * stride_b_n
    b_out = tl.zeros([BQ, BD], tl.float32)
    b_max = tl.full([BQ], float("-inf"), tl.float32)
    b_sum = tl.zeros([BQ], tl.float32)
    if USE_SINKS:
        # The softmax of the first split begins with the sink, so that it counts once.
        b_sink = tl.load(sinks + i_g * R + o_r, mask=m_r, other=float("-inf")).to(tl.float32)
        b_max = tl.where(i_split == 0, b_sink * LOG2E, float("-inf"))
        b_sum = tl.where(b_max == float("-inf"), 0.0, 1.0)
    for region in range(S):
        p_region = regions + (i_n * S + region) * REGION_FIELDS
        first_key, last_key = tl.load(p_region).to(tl.int32), tl.load(p_region + 1).to(tl.int32)
        start_key = tl.maximum(first_key, i_split * SPLIT_KEYS)
        stop_key = tl.minimum(last_key + 1, (i_split + 1) * SPLIT_KEYS)
        if start_key < stop_key:
            query_cos = tl.load(p_region + 2).to(tl.pointer_type(tl.float32))
            query_sin = tl.load(p_region + 3).to(tl.pointer_type(tl.float32))
            # Tables of keys begin where torch allocates memory, so loads of several numbers at a
            # time are possible; the compiler cannot know from an address alone.
            key_cos = tl.load(p_region + 4).to(tl.pointer_type(tl.float32))
            key_sin = tl.load(p_region + 5).to(tl.pointer_type(tl.float32))
            key_cos, key_sin = tl.multiple_of(key_cos, 16), tl.multiple_of(key_sin, 16)
            # All rows use row 0 of the query's table: the heads of a group are at the same token.
            b_q = load_rotated(
                p_query, stride_q_h, o_r, query_cos, query_sin, o_r * 0, m_r,
                D, BD, P, BEGIN, IS_HALF_LAYOUT,
            )  # fmt: skip
            for block_start in range(start_key, stop_key, BK):
                o_k = block_start + tl.arange(0, BK)
                m_k = o_k < stop_key
                b_block = tl.load(p_blocks + o_k // SLOTS, mask=m_k, other=0).to(tl.int64)
                b_k = load_rotated(
                    p_key, stride_k_t, b_block * k_rows_per_block + o_k % SLOTS, key_cos, key_sin,
                    o_k, m_k, D, BD, P, BEGIN, IS_HALF_LAYOUT,
                )  # fmt: skip
                o_v = b_block * v_rows_per_block + o_k % SLOTS
                p_v = p_value + o_v[:, None] * stride_v_t + o_d[None, :]
                b_v = tl.load(p_v, mask=m_k[:, None] & m_d, other=0.0)
                b_out, b_max, b_sum = update_softmax(
                    b_q, tl.trans(b_k), b_v, b_out, b_max, b_sum, m_k[None, :], scale, SOFTCAP
                )
    o_row = ((i_n * G + i_g) * tl.num_programs(0) + i_split) * R + o_r
    # A split without any owned key: output 0 with log-sum-exp -inf, which has no weight in the
    # merge. The 1 avoids 0 / 0 and log2(0).
    m_empty = b_sum == 0.0
    b_sum = tl.where(m_empty, 1.0, b_sum)
    b_lse = tl.where(m_empty, float("-inf"), (b_max + tl.log2(b_sum)) / LOG2E)
    tl.store(lse + o_row, b_lse, mask=m_r)
    p_out = out + o_row[:, None] * D + o_d[None, :]
    tl.store(p_out, b_out / b_sum[:, None], mask=m_r[:, None] & m_d)
