"""Triton kernels: attention over all regions of a plan in one pass, with one running softmax.

The kernels do not know any method. They are given the first and the last key that each query owns
in each region, and tables of cos and sin. A region has its own rotation of the query, so the query
is loaded and rotated again for each region that a program reaches. A block of keys in which queries
own different keys is masked, and one at the boundary of two regions is computed for both.

Names (after flash-linear-attention):

    b_    block in registers           i_    index of a program, or derived from it
    p_    pointer, or block of them    o_    offset along a dimension
    m_    mask of a block              stride_<tensor>_<dimension>    stride in elements

Sizes:

    B batch        H query heads     G key heads     R query heads per key head
    Q queries      K keys            S regions       V distinct key maps
    P rotated pairs
    D, E           dimensions per head of keys and of values
    BD, BE         the same, rounded up to powers of two, which Triton's blocks must be
    BQ, BK         queries and keys of a block

Q, K, H, G and R are passed at run time, all other capitals are compile-time constants. The last
dimension of every tensor is contiguous.

Logits are in base 2: ``scale`` includes log2(e), and exp2 replaces exp, because a GPU computes
powers of two directly. Log-sum-exps in memory are natural logs.

Offsets of rows are int64, since a long cache has more elements than an int32 can count.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_rotated(
    p_x, stride_x_t, o_row, cos, sin, o_table_row, m_row,
    D: tl.constexpr, BD: tl.constexpr, P: tl.constexpr, BEGIN: tl.constexpr,
    IS_HALF_LAYOUT: tl.constexpr,
):  # fmt: skip
    """Load rows of ``x[., D]`` and rotate them; returns a block ``[rows, BD]`` in the type of x.

    Pairs begin at dimension ``BEGIN``: they are ``(p, p + P)`` in the half layout, else
    ``(2p, 2p + 1)``. All other dimensions are loaded as they are.

    Args:
        p_x: pointer to row 0 of x.
        stride_x_t: stride between rows of x.
        o_row: rows of x to load.
        cos: table ``[., P]`` float32.
        sin: table ``[., P]`` float32.
        o_table_row: row of the tables for each row of x.
        m_row: which rows exist; the others become zeros.
        D: dimensions of a row.
        BD: columns of the block.
        P: rotated pairs; 0 for no rotation.
        BEGIN: first rotated dimension.
        IS_HALF_LAYOUT: how dimensions are paired.
    """
    o_d = tl.arange(0, BD)
    # D need not be a power of two: columns from D to BD exist in registers only.
    m_x = m_row[:, None] & (o_d < D)[None, :]
    p_row = p_x + o_row.to(tl.int64)[:, None] * stride_x_t
    b_x = tl.load(p_row + o_d[None, :], mask=m_x, other=0.0)
    # Rotated in the float32 of the tables and rounded once, on return.
    b_rotated = b_x.to(tl.float32)
    if P > 0:
        # A rotated dimension also needs the other one of its pair, which a second block holds.
        o_rotary = o_d - BEGIN
        if IS_HALF_LAYOUT:
            o_pair = o_rotary % P
            is_first = o_rotary < P
            o_partner = tl.where(is_first, o_d + P, o_d - P)
        else:
            o_pair = o_rotary // 2
            is_first = o_rotary % 2 == 0
            o_partner = tl.where(is_first, o_d + 1, o_d - 1)
        # Columns that are not rotated get cos = 1 and sin = 0. Their offsets may be negative, so
        # they must not be loaded.
        m_rotary = m_x & ((o_rotary >= 0) & (o_rotary < 2 * P))[None, :]
        o_table = o_table_row.to(tl.int64)[:, None] * P + o_pair[None, :]
        b_partner = tl.load(p_row + o_partner[None, :], mask=m_rotary, other=0.0).to(tl.float32)
        b_cos = tl.load(cos + o_table, mask=m_rotary, other=1.0)
        b_sin = tl.load(sin + o_table, mask=m_rotary, other=0.0)
        # first' = first cos - second sin, second' = second cos + first sin
        b_rotated = b_rotated * b_cos + b_partner * tl.where(is_first[None, :], -b_sin, b_sin)
    return b_rotated.to(b_x.dtype)


@triton.jit
def rotate_keys(
    key, stride_k_b, stride_k_g, stride_k_t, out, stride_o_b, stride_o_g, cos, sin, first, K, G,
    D: tl.constexpr, BD: tl.constexpr, P: tl.constexpr, BEGIN: tl.constexpr,
    IS_HALF_LAYOUT: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Rotate ``key[B, G, K, D]`` by one map into ``out[B, G, K, D]``. Grid: blocks of keys, B x G.

    Row ``first + k`` of the tables belongs to key ``k``. The rows of ``out`` are contiguous.
    """
    i_block = tl.program_id(0)
    i_b = (tl.program_id(1) // G).to(tl.int64)
    i_g = (tl.program_id(1) % G).to(tl.int64)
    o_k = i_block * BK + tl.arange(0, BK)
    o_d = tl.arange(0, BD)
    m_k = o_k < K
    b_rotated = load_rotated(
        key + i_b * stride_k_b + i_g * stride_k_g, stride_k_t, o_k, cos, sin, first + o_k, m_k,
        D, BD, P, BEGIN, IS_HALF_LAYOUT,
    )  # fmt: skip
    p_out = out + i_b * stride_o_b + i_g * stride_o_g + o_k.to(tl.int64)[:, None] * D + o_d[None, :]
    tl.store(p_out, b_rotated, mask=m_k[:, None] & (o_d < D)[None, :])


@triton.jit
def update_softmax(b_q, b_k, b_v, b_out, b_max, b_sum, m_owned, scale, SOFTCAP: tl.constexpr):
    """Add one block of keys to the running softmax and return its new state.

    The state is that of flash-attention: ``b_out[BQ, BE]`` is the sum of ``exp2(logit - max) v``,
    ``b_sum[BQ]`` the sum of ``exp2(logit - max)``, ``b_max[BQ]`` the largest logit so far.

    Args:
        b_q: ``[BQ, BD]``, rotated.
        b_k: ``[BD, BK]``, rotated.
        b_v: ``[BK, BE]``.
        b_out: state.
        b_max: state.
        b_sum: state.
        m_owned: ``[BQ, BK]`` or ``[1, BK]``, which keys each query owns.
        scale: factor on the logits, log2(e) included.
        SOFTCAP: soft cap of the logits in natural units; 0 for none.
    """
    # "ieee" keeps float32 inputs in float32: the default, TF32, has ten bits of mantissa.
    b_logits = tl.dot(b_q, b_k, input_precision="ieee") * scale
    if SOFTCAP > 0:
        # cap tanh(x / cap) in base 2, with tanh(z) = 2 sigmoid(2z) - 1: ``tl`` has no tanh.
        b_tanh = 2 * tl.sigmoid(2 * b_logits / (SOFTCAP * LOG2E)) - 1
        b_logits = SOFTCAP * LOG2E * b_tanh
    b_logits = tl.where(m_owned, b_logits, float("-inf"))
    b_new_max = tl.maximum(b_max, tl.max(b_logits, 1))
    # A query that has owned no key so far has maximum -inf, and -inf minus -inf is NaN. With 0 in
    # its place all of its exponentials are exp2(-inf) = 0.
    b_base = tl.where(b_new_max == float("-inf"), 0.0, b_new_max)
    b_weights = tl.exp2(b_logits - b_base[:, None])
    # Before the first owned key b_max is -inf, so the decay is 0 and the empty state drops out.
    b_decay = tl.exp2(b_max - b_base)
    # ``tl.dot`` takes operands of one type; its sums are float32, as the state is.
    b_out = b_out * b_decay[:, None] + tl.dot(b_weights.to(b_v.dtype), b_v, input_precision="ieee")
    return b_out, b_new_max, b_sum * b_decay + tl.sum(b_weights, 1)


@triton.jit
def attend_to_keys(
    b_q, b_out, b_max, b_sum, p_k, p_v, stride_k_t, stride_v_t, start, stop, K, b_first, b_last,
    scale, D: tl.constexpr, BD: tl.constexpr, E: tl.constexpr, BE: tl.constexpr, BK: tl.constexpr,
    IS_MASKED: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Add the keys ``start..stop`` to the running softmax, one block after the other.

    Args:
        b_q: ``[BQ, BD]``, rotated.
        b_out: state of the softmax, see ``update_softmax``.
        b_max: state.
        b_sum: state.
        p_k: pointer to key 0, ``[K, D]``, rotated.
        p_v: pointer to value 0, ``[K, E]``.
        stride_k_t: stride between keys.
        stride_v_t: stride between values.
        start: first key, a multiple of BK.
        stop: key after the last. The last block is computed as a whole.
        K: number of keys.
        b_first: ``[BQ]``, first key that each query owns.
        b_last: ``[BQ]``, last key that each query owns.
        scale: factor on the logits.
        D: dimensions of a key.
        BD: columns of a block of keys.
        E: dimensions of a value.
        BE: columns of a block of values.
        BK: keys of a block.
        IS_MASKED: whether some query does not own some key of these blocks.
        SOFTCAP: soft cap of the logits.
    """
    o_d, o_e = tl.arange(0, BD), tl.arange(0, BE)
    for block_start in range(start, stop, BK):
        o_k = block_start + tl.arange(0, BK)
        o_k64 = o_k.to(tl.int64)
        # Zeros beyond the last key: memory there may hold NaN, and 0 x NaN would reach the output.
        # Keys are loaded transposed, as the right side of the product.
        b_k = tl.load(
            p_k + o_k64[None, :] * stride_k_t + o_d[:, None],
            mask=(o_k < K)[None, :] & (o_d < D)[:, None],
            other=0.0,
        )
        b_v = tl.load(
            p_v + o_k64[:, None] * stride_v_t + o_e[None, :],
            mask=(o_k < K)[:, None] & (o_e < E)[None, :],
            other=0.0,
        )
        if IS_MASKED:
            m_owned = (b_first[:, None] <= o_k[None, :]) & (o_k[None, :] <= b_last[:, None])
        else:
            # All true: every query of the block owns every key of these blocks.
            m_owned = o_k[None, :] >= 0
        b_out, b_max, b_sum = update_softmax(
            b_q, b_k, b_v, b_out, b_max, b_sum, m_owned, scale, SOFTCAP
        )
    return b_out, b_max, b_sum


@triton.jit
def prefill(
    query, stride_q_b, stride_q_h, stride_q_t, keys, stride_k_v, stride_k_b, stride_k_g,
    value, stride_v_b, stride_v_g, stride_v_t, out, stride_o_b, stride_o_h, stride_o_t,
    first_key, last_key, map_of_region, cos, sin, table_rows, sinks, start,
    Q, K, H, G, scale,
    D: tl.constexpr, BD: tl.constexpr, E: tl.constexpr, BE: tl.constexpr, P: tl.constexpr,
    BEGIN: tl.constexpr, IS_HALF_LAYOUT: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    S: tl.constexpr, SOFTCAP: tl.constexpr, USE_SINKS: tl.constexpr,
):  # fmt: skip
    """Attend with one block of queries of one head to all keys. Grid: blocks of queries, B x H.

    Inputs and outputs:
        query: ``[B, H, Q, D]``, not rotated.
        keys: ``[V, B, G, K, D]``, rotated by each of V maps; the rows are contiguous.
        value: ``[B, G, K, E]``.
        out: ``[B, H, Q, E]``, written.
        first_key: ``[S, Q]`` int32, row of the first key that a query owns in a region.
        last_key: ``[S, Q]`` int32, that of the last key; below the first where it owns none.
        map_of_region: ``[S]`` int32, which of the V maps a region's keys have.
        cos: ``[S, table_rows, P]`` float32, of queries by token index.
        sin: the same shape.
        table_rows: tokens that the tables cover.
        sinks: ``[H]``, logits in natural units.
        start: token index of the first query.
        scale: factor on the logits, log2(e) included.
    """
    # Late queries own the most keys. Programs start in order of their index, so the longest run
    # first and short ones fill the gaps at the end.
    i_block = tl.num_programs(0) - 1 - tl.program_id(0)
    i_b = (tl.program_id(1) // H).to(tl.int64)
    i_h = (tl.program_id(1) % H).to(tl.int64)
    # Query heads of a group are consecutive, and share one key head without copies of it.
    i_g = i_h // (H // G)
    o_q = i_block * BQ + tl.arange(0, BQ)
    m_q = o_q < Q
    p_query = query + i_b * stride_q_b + i_h * stride_q_h
    p_value = value + i_b * stride_v_b + i_g * stride_v_g
    b_out = tl.zeros([BQ, BE], tl.float32)
    if USE_SINKS:
        # The softmax begins with the sink: its logit is the maximum so far, exp2(0) = 1 the sum.
        b_max = tl.zeros([BQ], tl.float32) + tl.load(sinks + i_h).to(tl.float32) * LOG2E
        b_sum = tl.full([BQ], 1.0, tl.float32)
    else:
        b_max = tl.full([BQ], float("-inf"), tl.float32)
        b_sum = tl.zeros([BQ], tl.float32)
    # One running softmax serves all regions, so no second output is written and none is merged.
    for region in range(S):
        b_first = tl.load(first_key + region * Q + o_q, mask=m_q, other=0)
        b_last = tl.load(last_key + region * Q + o_q, mask=m_q, other=-1)
        m_owns = m_q & (b_first <= b_last)
        # K and 0 are neutral: where no query owns a key the run is empty, and the region is
        # skipped.
        start_key = tl.min(tl.where(m_owns, b_first, K))
        stop_key = tl.max(tl.where(m_owns, b_last + 1, 0))
        if start_key < stop_key:
            # Keys ``all_start..all_stop`` are owned by all queries of the block. Whole blocks of
            # keys within need no mask; only those before and after, at the edges of the region, do.
            # A query that owns nothing here makes ``all_stop`` 0, so that all blocks are masked.
            all_start = tl.max(tl.where(m_owns, b_first, 0))
            all_stop = tl.min(tl.where(m_q, tl.where(m_owns, b_last + 1, 0), K))
            # Rounded down, so that the plain blocks in the middle are whole; the mask hides the
            # rest.
            start_key = start_key // BK * BK
            plain_start = tl.minimum(tl.cdiv(all_start, BK) * BK, stop_key)
            # Where no whole block belongs to all queries, the plain run is empty and the masked
            # ones meet.
            plain_stop = tl.maximum(plain_start, all_stop // BK * BK)
            # Only the query of this region is held in registers, however many regions there are.
            b_q = load_rotated(
                p_query, stride_q_t, o_q, cos, sin, start + o_q, m_q,
                D, BD, P, BEGIN, IS_HALF_LAYOUT,
            )  # fmt: skip
            i_map = tl.load(map_of_region + region).to(tl.int64)
            p_key = keys + i_map * stride_k_v + i_b * stride_k_b + i_g * stride_k_g
            # The stride of keys is D, because ``rotate_keys`` writes contiguous rows.
            b_out, b_max, b_sum = attend_to_keys(
                b_q, b_out, b_max, b_sum, p_key, p_value, D, stride_v_t,
                start_key, plain_start, K, b_first, b_last, scale,
                D, BD, E, BE, BK, True, SOFTCAP,
            )  # fmt: skip
            b_out, b_max, b_sum = attend_to_keys(
                b_q, b_out, b_max, b_sum, p_key, p_value, D, stride_v_t,
                plain_start, plain_stop, K, b_first, b_last, scale,
                D, BD, E, BE, BK, False, SOFTCAP,
            )  # fmt: skip
            b_out, b_max, b_sum = attend_to_keys(
                b_q, b_out, b_max, b_sum, p_key, p_value, D, stride_v_t,
                plain_stop, stop_key, K, b_first, b_last, scale,
                D, BD, E, BE, BK, True, SOFTCAP,
            )  # fmt: skip
        cos += table_rows * P
        sin += table_rows * P
    o_e = tl.arange(0, BE)
    p_out = out + i_b * stride_o_b + i_h * stride_o_h
    p_out += o_q.to(tl.int64)[:, None] * stride_o_t + o_e[None, :]
    # A query without any key has sum 0 and output 0; dividing by 1 leaves 0 instead of NaN.
    b_out = b_out / tl.where(b_sum == 0.0, 1.0, b_sum)[:, None]
    tl.store(p_out, b_out.to(out.dtype.element_ty), mask=m_q[:, None] & (o_e < E)[None, :])


@triton.jit
def decode(
    query, stride_q_b, stride_q_h, key, stride_k_b, stride_k_g, stride_k_t,
    value, stride_v_b, stride_v_g, stride_v_t, out, lse, first_key, last_key, missing,
    query_cos, query_sin, map_of_region, key_cos, key_sin, table_rows, K, G, R, scale,
    D: tl.constexpr, BD: tl.constexpr, E: tl.constexpr, BE: tl.constexpr, P: tl.constexpr,
    BEGIN: tl.constexpr, IS_HALF_LAYOUT: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    S: tl.constexpr, SPLIT_KEYS: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Attend with one query to one split of the keys. Grid: splits of the keys, B x G.

    Keys are rotated after they are loaded.

    Inputs and outputs:
        query: ``[B, H, D]``, not rotated.
        key: ``[B, G, K, D]``, not rotated.
        value: ``[B, G, K, E]``.
        out: ``[B, G, splits, R, E]`` float32, written: attention over the split alone.
        lse: ``[B, G, splits, R]`` float32, written: its log-sum-exp, -inf where it owns no key.
        first_key: ``[S]`` int32, row of the first key that the query owns in a region.
        last_key: ``[S]`` int32, that of the last key; below the first where it owns none.
        missing: ``[S]`` int32, token index of a region's keys minus their row.
        query_cos: ``[S, P]`` float32.
        query_sin: ``[S, P]`` float32.
        map_of_region: ``[S]`` int32, which of the V maps a region's keys need.
        key_cos: ``[V, table_rows, P]`` float32, by token index.
        key_sin: the same shape.
        table_rows: tokens that the tables of keys cover.
        scale: factor on the logits, log2(e) included.
    """
    i_split = tl.program_id(0)
    i_b = (tl.program_id(1) // G).to(tl.int64)
    i_g = (tl.program_id(1) % G).to(tl.int64)
    # The R query heads of a group are the rows of the block, so that a split's keys and values are
    # read once for all of them.
    o_r = tl.arange(0, BQ)
    m_r = o_r < R
    o_e = tl.arange(0, BE)
    p_query = query + i_b * stride_q_b + i_g * R * stride_q_h
    p_key = key + i_b * stride_k_b + i_g * stride_k_g
    p_value = value + i_b * stride_v_b + i_g * stride_v_g
    b_out = tl.zeros([BQ, BE], tl.float32)
    b_max = tl.full([BQ], float("-inf"), tl.float32)
    b_sum = tl.zeros([BQ], tl.float32)
    # A key is in one region (releases that count pairs twice excepted), so the split is read once.
    for region in range(S):
        # The part of the region that lies in this split.
        start_key = tl.maximum(tl.load(first_key + region), i_split * SPLIT_KEYS)
        split_stop = tl.minimum(K, (i_split + 1) * SPLIT_KEYS)
        stop_key = tl.minimum(tl.load(last_key + region) + 1, split_stop)
        if start_key < stop_key:
            # All rows use row 0 of the region's table: the heads of a group are at the same token.
            b_q = load_rotated(
                p_query, stride_q_h, o_r, query_cos + region * P, query_sin + region * P, o_r * 0,
                m_r, D, BD, P, BEGIN, IS_HALF_LAYOUT,
            )  # fmt: skip
            o_tables = tl.load(map_of_region + region).to(tl.int64) * table_rows * P
            first_token = tl.load(missing + region)
            for block_start in range(start_key, stop_key, BK):
                o_k = block_start + tl.arange(0, BK)
                m_k = o_k < stop_key
                b_k = load_rotated(
                    p_key, stride_k_t, o_k, key_cos + o_tables, key_sin + o_tables,
                    first_token + o_k, m_k, D, BD, P, BEGIN, IS_HALF_LAYOUT,
                )  # fmt: skip
                p_v = p_value + o_k.to(tl.int64)[:, None] * stride_v_t + o_e[None, :]
                b_v = tl.load(p_v, mask=m_k[:, None] & (o_e < E)[None, :], other=0.0)
                b_out, b_max, b_sum = update_softmax(
                    b_q, tl.trans(b_k), b_v, b_out, b_max, b_sum, m_k[None, :], scale, SOFTCAP
                )
    # The layout of ``out`` and ``lse`` [B, G, splits, R], in which the caller merges over splits.
    o_row = ((i_b * G + i_g) * tl.num_programs(0) + i_split) * R + o_r
    # A split without any owned key: output 0 with log-sum-exp -inf, which has no weight in the
    # merge. The 1 avoids 0 / 0 and log2(0).
    m_empty = b_sum == 0.0
    b_sum = tl.where(m_empty, 1.0, b_sum)
    # From powers of two to the natural logarithm, in which every backend merges.
    b_lse = tl.where(m_empty, float("-inf"), (b_max + tl.log2(b_sum)) / LOG2E)
    tl.store(lse + o_row, b_lse, mask=m_r)
    p_out = out + o_row[:, None] * E + o_e[None, :]
    tl.store(p_out, b_out / b_sum[:, None], mask=m_r[:, None] & (o_e < E)[None, :])


@triton.jit
def merge_two(
    x_out, stride_x_b, stride_x_h, stride_x_t, x_lse, y_out, stride_y_b, stride_y_h, stride_y_t,
    y_lse, out, stride_o_b, stride_o_h, stride_o_t, lse, Q, H,
    E: tl.constexpr, BE: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    """Merge two partial attentions, x and y, into one. Grid: blocks of queries, B x H.

    Inputs and outputs:
        x_out: ``[B, H, Q, E]``, output of x.
        x_lse: ``[B, H, Q]`` float32, contiguous, natural log-sum-exp of x.
        y_out: ``[B, H, Q, E]``, output of y.
        y_lse: ``[B, H, Q]`` float32, contiguous, that of y.
        out: ``[B, H, Q, E]``, written.
        lse: ``[B, H, Q]`` float32, written.
    """
    i_b = (tl.program_id(1) // H).to(tl.int64)
    i_h = (tl.program_id(1) % H).to(tl.int64)
    o_q = tl.program_id(0) * BQ + tl.arange(0, BQ)
    o_q64 = o_q.to(tl.int64)[:, None]
    o_e = tl.arange(0, BE)
    m_q = o_q < Q
    m_out = m_q[:, None] & (o_e < E)[None, :]
    p_x = x_out + i_b * stride_x_b + i_h * stride_x_h + o_q64 * stride_x_t + o_e[None, :]
    p_y = y_out + i_b * stride_y_b + i_h * stride_y_h + o_q64 * stride_y_t + o_e[None, :]
    b_x = tl.load(p_x, mask=m_out, other=0.0).to(tl.float32)
    b_y = tl.load(p_y, mask=m_out, other=0.0).to(tl.float32)
    o_lse = tl.program_id(1).to(tl.int64) * Q + o_q
    b_x_lse = tl.load(x_lse + o_lse, mask=m_q, other=float("-inf"))
    b_y_lse = tl.load(y_lse + o_lse, mask=m_q, other=float("-inf"))
    # Relative to the larger log-sum-exp, so that no exponential overflows; relative to 0 where both
    # are -inf, for -inf minus -inf is NaN.
    b_max = tl.maximum(b_x_lse, b_y_lse)
    b_base = tl.where(b_max == float("-inf"), 0.0, b_max)
    b_x_weight = tl.exp(b_x_lse - b_base)
    b_y_weight = tl.exp(b_y_lse - b_base)
    b_sum = b_x_weight + b_y_weight
    # A query that owns no key in either part stays at output 0 with log-sum-exp -inf.
    m_empty = b_sum == 0.0
    b_sum = tl.where(m_empty, 1.0, b_sum)
    b_out = (b_x_weight[:, None] * b_x + b_y_weight[:, None] * b_y) / b_sum[:, None]
    p_out = out + i_b * stride_o_b + i_h * stride_o_h + o_q64 * stride_o_t + o_e[None, :]
    tl.store(p_out, b_out.to(out.dtype.element_ty), mask=m_out)
    b_lse = tl.where(m_empty, float("-inf"), b_base + tl.log(b_sum))
    tl.store(lse + o_lse, b_lse, mask=m_q)
