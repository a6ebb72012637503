"""Triton kernels: a plan in one pass over the keys, with one running softmax.

A kernel knows nothing of methods. It is handed the first and last key that each query owns in each region (``low``,
``high``), and tables of cos and sin. A region that a query tile enters has its own rotation of the query; the tiles of
keys that only some queries of the tile own are masked, and those at a boundary of two regions are visited twice.

Shapes: B batch, H query heads, G key heads, R query heads of a group, Q queries, K keys, D and E dimensions of keys and
values, P rotated pairs, S regions. Tiles are M queries by N keys. Logits are in base 2.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _turned(
    x, stride, rows, cos, sin, tokens, real,
    D: tl.constexpr, DP: tl.constexpr, P: tl.constexpr, BEGIN: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Rows of ``x[., D]`` turned by the tables' rows ``tokens``, as a tile of ``DP`` columns in the type of ``x``.

    The dimensions from ``BEGIN`` on turn, in pairs ``(p, p + P)`` where ``HALF``, else ``(2p, 2p + 1)``.
    """
    d = tl.arange(0, DP)
    owned = real[:, None] & (d < D)[None, :]
    row = x + rows.to(tl.int64)[:, None] * stride
    own = tl.load(row + d[None, :], mask=owned, other=0.0)
    y = own.to(tl.float32)
    if P > 0:
        at = d - BEGIN
        if HALF:
            pair = at % P
            ahead = at < P
            other = tl.where(ahead, d + P, d - P)
        else:
            pair = at // 2
            ahead = at % 2 == 0
            other = tl.where(ahead, d + 1, d - 1)
        turning = owned & ((at >= 0) & (at < 2 * P))[None, :]
        table = tokens.to(tl.int64)[:, None] * P + pair[None, :]
        across = tl.load(row + other[None, :], mask=turning, other=0.0).to(tl.float32)
        c = tl.load(cos + table, mask=turning, other=1.0)
        s = tl.load(sin + table, mask=turning, other=0.0)
        y = y * c + across * tl.where(ahead[None, :], -s, s)
    return y.to(own.dtype)


@triton.jit
def turn(
    x, x_b, x_g, x_k, out, out_b, out_g, cos, sin, first, K, G,
    D: tl.constexpr, DP: tl.constexpr, P: tl.constexpr, BEGIN: tl.constexpr, HALF: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """``x[B, G, K, D]`` turned into ``out[B, G, K, D]``; its first token is row ``first`` of the tables."""
    b, g = (tl.program_id(1) // G).to(tl.int64), (tl.program_id(1) % G).to(tl.int64)
    rows = tl.program_id(0) * N + tl.arange(0, N)
    d = tl.arange(0, DP)
    y = _turned(
        x + b * x_b + g * x_g, x_k, rows, cos, sin, first + rows, rows < K, D, DP, P, BEGIN, HALF
    )
    spot = out + b * out_b + g * out_g + rows.to(tl.int64)[:, None] * D + d[None, :]
    tl.store(spot, y, mask=(rows < K)[:, None] & (d < D)[None, :])


@triton.jit
def _softmax(q, k, v, acc, top, total, owned, scale, SOFTCAP: tl.constexpr):
    """One tile ``q[M, D]`` by ``k[D, N]`` and ``v[N, E]`` taken into the running softmax."""
    x = tl.dot(q, k, input_precision="ieee") * scale
    if SOFTCAP > 0:
        x = SOFTCAP * LOG2E * (2 * tl.sigmoid(2 * x / (SOFTCAP * LOG2E)) - 1)
    x = tl.where(owned, x, float("-inf"))
    new = tl.maximum(top, tl.max(x, 1))
    base = tl.where(new == float("-inf"), 0.0, new)
    p = tl.exp2(x - base[:, None])
    fade = tl.exp2(top - base)
    acc = acc * fade[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
    return acc, new, total * fade + tl.sum(p, 1)


@triton.jit
def _walk(
    q, acc, top, total, keys, values, k_stride, v_stride, begin, end, K, low, high, scale,
    D: tl.constexpr, DP: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, N: tl.constexpr, MASKED: tl.constexpr,
    SOFTCAP: tl.constexpr,
):  # fmt: skip
    """The key tiles ``begin..end``, both rows of ``keys``, of which a query owns ``low..high``."""
    d, e = tl.arange(0, DP), tl.arange(0, EP)
    for at in range(begin, end, N):
        y = at + tl.arange(0, N)
        wide = y.to(tl.int64)
        k = tl.load(
            keys + wide[None, :] * k_stride + d[:, None],
            mask=(y < K)[None, :] & (d < D)[:, None],
            other=0.0,
        )
        v = tl.load(
            values + wide[:, None] * v_stride + e[None, :],
            mask=(y < K)[:, None] & (e < E)[None, :],
            other=0.0,
        )
        owned = (
            (low[:, None] <= y[None, :]) & (y[None, :] <= high[:, None])
            if MASKED
            else y[None, :] >= 0
        )
        acc, top, total = _softmax(q, k, v, acc, top, total, owned, scale, SOFTCAP)
    return acc, top, total


@triton.jit
def prefill(
    query, q_b, q_h, q_q, keys, k_s, k_b, k_g, value, v_b, v_g, v_k, out, o_b, o_h, o_q,
    low, high, rotation, cos, sin, table, sinks, start, first, Q, K, H, G, scale,
    D: tl.constexpr, DP: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, P: tl.constexpr, BEGIN: tl.constexpr,
    HALF: tl.constexpr, M: tl.constexpr, N: tl.constexpr, S: tl.constexpr, SOFTCAP: tl.constexpr,
    SINKS: tl.constexpr,
):  # fmt: skip
    """Attention of one tile of queries of one head: region after region, each a walk over the keys it owns.

    ``keys[rotation[s]]`` are the keys as region ``s`` turns them, ``cos[s]`` and ``sin[s]`` (of ``table`` rows) its
    tables for queries; ``low[s, Q]`` and ``high[s, Q]`` are token indices, -1 in ``high`` where a query owns nothing.
    """
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    b, h = (tl.program_id(1) // H).to(tl.int64), (tl.program_id(1) % H).to(tl.int64)
    g = h // (H // G)
    rows = tile * M + tl.arange(0, M)
    real = rows < Q
    values = value + b * v_b + g * v_g
    acc = tl.zeros([M, EP], tl.float32)
    if SINKS:
        top = tl.zeros([M], tl.float32) + tl.load(sinks + h).to(tl.float32) * LOG2E
        total = tl.full([M], 1.0, tl.float32)
    else:
        top = tl.full([M], float("-inf"), tl.float32)
        total = tl.zeros([M], tl.float32)
    for s in range(S):
        lows = tl.load(low + s * Q + rows, mask=real, other=0) - first
        highs = tl.load(high + s * Q + rows, mask=real, other=-1) - first
        owns = real & (lows <= highs)
        begin = tl.min(tl.where(owns, lows, K))
        end = tl.max(tl.where(owns, highs + 1, 0))
        if begin < end:
            shared = tl.max(tl.where(owns, lows, 0))
            until = tl.min(tl.where(real, tl.where(owns, highs + 1, 0), K))
            begin = begin // N * N
            clear = tl.minimum(tl.cdiv(shared, N) * N, end)
            blurred = tl.maximum(clear, until // N * N)
            q = _turned(
                query + b * q_b + h * q_h, q_q, rows, cos, sin, start + rows, real, D, DP, P, BEGIN, HALF,
            )  # fmt: skip
            turned = keys + tl.load(rotation + s).to(tl.int64) * k_s + b * k_b + g * k_g
            acc, top, total = _walk(
                q, acc, top, total, turned, values, D, v_k, begin, clear, K, lows, highs, scale,
                D, DP, E, EP, N, True, SOFTCAP,
            )  # fmt: skip
            acc, top, total = _walk(
                q, acc, top, total, turned, values, D, v_k, clear, blurred, K, lows, highs, scale,
                D, DP, E, EP, N, False, SOFTCAP,
            )  # fmt: skip
            acc, top, total = _walk(
                q, acc, top, total, turned, values, D, v_k, blurred, end, K, lows, highs, scale,
                D, DP, E, EP, N, True, SOFTCAP,
            )  # fmt: skip
        cos += table * P
        sin += table * P
    e = tl.arange(0, EP)
    spot = out + b * o_b + h * o_h + rows.to(tl.int64)[:, None] * o_q + e[None, :]
    total = tl.where(total == 0.0, 1.0, total)
    tl.store(
        spot, (acc / total[:, None]).to(out.dtype.element_ty), mask=real[:, None] & (e < E)[None, :]
    )


@triton.jit
def decode(
    query, q_b, q_h, key, k_b, k_g, k_k, value, v_b, v_g, v_k, out, lse,
    low, high, q_cos, q_sin, rotation, k_cos, k_sin, table, first, K, G, R, scale,
    D: tl.constexpr, DP: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, P: tl.constexpr, BEGIN: tl.constexpr,
    HALF: tl.constexpr, M: tl.constexpr, N: tl.constexpr, S: tl.constexpr, SPLIT: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Attention of one query, all heads of a group together, over one split of the keys as they lie in the cache.

    Keys are turned on their way: ``k_cos[rotation[s]]`` and ``k_sin`` (of ``table`` rows) are region ``s``'s tables for
    keys, ``q_cos[s, P]`` and ``q_sin`` for the query. ``out[B, G, splits, R, E]`` and ``lse[B, G, splits, R]``.
    """
    split, b, g = (
        tl.program_id(0),
        (tl.program_id(1) // G).to(tl.int64),
        (tl.program_id(1) % G).to(tl.int64),
    )
    rows = tl.arange(0, M)
    real = rows < R
    e = tl.arange(0, EP)
    acc = tl.zeros([M, EP], tl.float32)
    top = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    for s in range(S):
        begin = tl.maximum(tl.load(low + s) - first, split * SPLIT)
        end = tl.minimum(tl.load(high + s) + 1 - first, tl.minimum(K, (split + 1) * SPLIT))
        if begin < end:
            q = _turned(
                query + b * q_b + g * R * q_h, q_h, rows, q_cos + s * P, q_sin + s * P, rows * 0, real,
                D, DP, P, BEGIN, HALF,
            )  # fmt: skip
            tables = tl.load(rotation + s).to(tl.int64) * table * P
            for at in range(begin, end, N):
                y = at + tl.arange(0, N)
                owned = y < end
                k = _turned(
                    key + b * k_b + g * k_g,
                    k_k,
                    y,
                    k_cos + tables,
                    k_sin + tables,
                    first + y,
                    owned,
                    D,
                    DP,
                    P,
                    BEGIN,
                    HALF,
                )
                spot = value + b * v_b + g * v_g + y.to(tl.int64)[:, None] * v_k + e[None, :]
                v = tl.load(spot, mask=owned[:, None] & (e < E)[None, :], other=0.0)
                acc, top, total = _softmax(
                    q, tl.trans(k), v, acc, top, total, owned[None, :], scale, SOFTCAP
                )
    row = ((b * G + g) * tl.num_programs(0) + split) * R + rows
    some = tl.where(total == 0.0, 1.0, total)
    tl.store(
        lse + row, tl.where(total == 0.0, float("-inf"), (top + tl.log2(some)) / LOG2E), mask=real
    )
    tl.store(
        out + row[:, None] * E + e[None, :],
        acc / some[:, None],
        mask=real[:, None] & (e < E)[None, :],
    )


@triton.jit
def both(
    one, a_b, a_h, a_q, one_lse, other, c_b, c_h, c_q, other_lse, out, o_b, o_h, o_q, lse, Q, H,
    E: tl.constexpr, EP: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Two parts ``[B, H, Q, E]`` of attention as one, by their log-sum-exps ``[B, H, Q]``."""
    b, h = (tl.program_id(1) // H).to(tl.int64), (tl.program_id(1) % H).to(tl.int64)
    rows = tl.program_id(0) * M + tl.arange(0, M)
    e, wide, real = tl.arange(0, EP), rows.to(tl.int64)[:, None], rows < Q
    mask = real[:, None] & (e < E)[None, :]
    x = tl.load(one + b * a_b + h * a_h + wide * a_q + e[None, :], mask=mask, other=0.0).to(
        tl.float32
    )
    y = tl.load(other + b * c_b + h * c_h + wide * c_q + e[None, :], mask=mask, other=0.0).to(
        tl.float32
    )
    row = tl.program_id(1).to(tl.int64) * Q + rows
    x_lse = tl.load(one_lse + row, mask=real, other=float("-inf"))
    y_lse = tl.load(other_lse + row, mask=real, other=float("-inf"))
    top = tl.maximum(x_lse, y_lse)
    base = tl.where(top == float("-inf"), 0.0, top)
    x_share, y_share = tl.exp(x_lse - base), tl.exp(y_lse - base)
    total = x_share + y_share
    some = tl.where(total == 0.0, 1.0, total)
    merged = (x_share[:, None] * x + y_share[:, None] * y) / some[:, None]
    tl.store(
        out + b * o_b + h * o_h + wide * o_q + e[None, :],
        merged.to(out.dtype.element_ty),
        mask=mask,
    )
    tl.store(lse + row, tl.where(total == 0.0, float("-inf"), base + tl.log(some)), mask=real)
