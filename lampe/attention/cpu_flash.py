"""Partial attention by torch's flash kernel for the CPU, which also returns the log-sum-exp.

The kernel supports full attention, causal squares and additive masks, but no sliding window. So a
key range whose left edge is diagonal, a band, needs a mask. One mask for all of it would have
``Q x K`` entries, most of them -inf, and the kernel would compute every masked pair. The band is
cut into strips of queries instead: each strip attends to the keys that some of its queries own, and
only the two triangles at its corners are masked.

Shapes: B batch, G key heads, R query heads per key head, Q queries, K keys, D head dimensions,
S strips.
"""

import torch
from torch import Tensor

from lampe.attention.partial_attention import PartialAttention, merge_two

# An operator of torch's own, not its public function: that returns no log-sum-exp, without which
# parts cannot be merged.
KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

# Half of STRIP x STRIP pairs is masked on either side of a strip, so strips are short. At a band of
# 64 keys, strips of 128 queries took twice as long as these, of 256 four times, of 32 a tenth less.
STRIP_QUERIES = 64

# Queries of a causal square that is computed in one call. The kernel leaves out masked pairs in
# blocks of 512 keys, so it computes all of a square of 512: in parts of 192 queries, squares of 500
# to 2000 take 7 to 21 % less time.
CAUSAL_QUERIES = 192

# Widest band, in keys per query, whose strips run in one call. Where a batch has several rows, that
# call copies the keys of every strip: in all (width + 63) / 64 times the keys of the band.
NARROW_BAND_KEYS = 512


def supports(q: Tensor, v: Tensor) -> bool:
    """Return whether the kernel can run: on a CPU, for equal head dimensions, without gradients."""
    # The kernel's log-sum-exp has no gradient, and the merge of parts depends on it.
    return q.device.type == "cpu" and q.shape[-1] == v.shape[-1] and not q.requires_grad


def partials(
    q: Tensor, k: Tensor, v: Tensor, *, left_diagonal: bool, right_diagonal: bool, scale: float
) -> list[PartialAttention]:
    """Return attention over one run of keys as parts to be merged.

    The arguments are those of ``lampe.attention.eager.partials``, without soft caps.
    """
    queries, keys = q.shape[-2], k.shape[-2]
    if queries == 1:
        return [_full(q, k, v, scale)]
    if left_diagonal:
        # Keys that every query owns, but for one at either edge.
        common = slice(queries, keys - queries if right_diagonal else keys)
        if common.stop - common.start <= NARROW_BAND_KEYS:
            return [_band(q, k, v, right_diagonal, scale)]
        # A mask over a wide band would be nearly all zeros, and reading it takes a quarter more
        # time (16384 tokens, bands of 6000 and 11000 keys).
        parts = [
            _band(q, k[..., :queries, :], v[..., :queries, :], False, scale),
            _full(q, k[..., common, :], v[..., common, :], scale),
        ]
        if right_diagonal:
            last = slice(common.stop, keys)
            parts.append(_causal_square(q, k[..., last, :], v[..., last, :], scale))
        return parts
    if not right_diagonal:
        return [_full(q, k, v, scale)]
    # A causal edge that begins after the first keys: those are full attention, the rest a causal
    # square, which the kernel computes without a mask.
    full = keys - queries
    square = _causal_square(q, k[..., full:, :], v[..., full:, :], scale)
    if not full:
        return [square]
    return [_full(q, k[..., :full, :], v[..., :full, :], scale), square]


def _full(q: Tensor, k: Tensor, v: Tensor, scale: float) -> PartialAttention:
    """Return attention of queries that own all keys."""
    # The query heads of a group become queries of one head, so that the kernel reads their keys
    # once: for a single query 13 to 36 % faster than a view of the keys for each head. From 768
    # queries on the kernel's blocks are larger, and a pair takes a fifth less time.
    out, lse = KERNEL(q.flatten(2, 3), k, v, scale=scale)
    rows = q.shape[2:4]
    return PartialAttention(out.unflatten(2, rows), lse.unflatten(2, rows))


def _flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    *,
    causal: bool = False,
    bias: Tensor | None = None,
) -> PartialAttention:
    """Return attention of one kernel call, with an additive ``bias[Q, K]`` if there is one."""
    # The kernel's batch is B x G and its heads are the R heads of a group, so that a key head is
    # shared by expanding a view, without a copy.
    grouped = q.flatten(0, 1)
    k, v = (x.flatten(0, 1)[:, None].expand(-1, q.shape[2], -1, -1) for x in (k, v))
    out, lse = KERNEL(grouped, k, v, is_causal=causal, attn_mask=bias, scale=scale)
    return PartialAttention(out.unflatten(0, q.shape[:2]), lse.unflatten(0, q.shape[:2]))


def _causal_square(q: Tensor, k: Tensor, v: Tensor, scale: float) -> PartialAttention:
    """Return attention where query x owns the keys up to x."""
    queries = q.shape[-2]
    if queries <= CAUSAL_QUERIES:
        return _flash(q, k, v, scale, causal=True)
    out = q.new_empty(*q.shape[:-1], v.shape[-1])
    lse = q.new_empty(q.shape[:-1], dtype=torch.promote_types(q.dtype, torch.float32))
    for start in range(0, queries, CAUSAL_QUERIES):
        own = slice(start, min(start + CAUSAL_QUERIES, queries))
        rows = q[..., own, :]
        part = _flash(rows, k[..., own, :], v[..., own, :], scale, causal=True)
        if start:
            part = merge_two(_full(rows, k[..., :start, :], v[..., :start, :], scale), part)
        out[..., own, :], lse[..., own] = part
    return PartialAttention(out, lse)


def _band(q: Tensor, k: Tensor, v: Tensor, right_diagonal: bool, scale: float) -> PartialAttention:
    """Return attention where query x owns keys from x on, up to ``x + K - Q`` or to the last."""
    queries, keys = q.shape[-2], k.shape[-2]
    width = keys - queries + 1
    batched = 0
    if right_diagonal and width <= NARROW_BAND_KEYS:
        # Strips have the same mask only where both edges are diagonal. Queries that do not fill a
        # strip run below, one call each.
        batched = queries - queries % STRIP_QUERIES
    parts = []
    if batched:
        parts.append(_batched_strips(q[..., :batched, :], k, v, width, scale))
    for start in range(batched, queries, STRIP_QUERIES):
        stop = min(start + STRIP_QUERIES, queries)
        run = slice(start, stop + width - 1 if right_diagonal else keys)
        x = torch.arange(stop - start)[:, None]
        y = torch.arange(run.stop - start)
        owned = (x <= y) & (y < x + width) if right_diagonal else x <= y
        bias = _bias(owned, q.dtype)
        strip = _flash(q[..., start:stop, :], k[..., run, :], v[..., run, :], scale, bias=bias)
        parts.append(strip)
    if len(parts) == 1:
        return parts[0]
    out = torch.cat([part.out for part in parts], dim=3)
    lse = torch.cat([part.lse for part in parts], dim=3)
    return PartialAttention(out, lse)


def _batched_strips(q: Tensor, k: Tensor, v: Tensor, width: int, scale: float) -> PartialAttention:
    """Return attention of a narrow band, all of its strips in one kernel call.

    Args:
        q: ``[B, G, R, Q, D]``, with a number of queries that is a multiple of ``STRIP_QUERIES``.
        k: ``[B, G, K, D]``.
        v: ``[B, G, K, D]``.
        width: keys that each query owns.
        scale: factor on the logits.
    """
    batch, groups, heads, queries, dim = q.shape
    strips = queries // STRIP_QUERIES
    strip_keys = STRIP_QUERIES + width - 1
    # All strips have the same mask, so they can be rows of the kernel's batch. The query heads of a
    # group are stacked as queries of one head:
    # [B, G, R, S, STRIP, D] to [B, S, G, R, STRIP, D] to [B S, G, R STRIP, D]
    q = q.reshape(batch, groups, heads, strips, STRIP_QUERIES, dim).permute(0, 3, 1, 2, 4, 5)
    q = q.reshape(batch * strips, groups, heads * STRIP_QUERIES, dim)
    k, v = (_strips_of_keys(x, strips, strip_keys) for x in (k, v))
    x = torch.arange(STRIP_QUERIES).repeat(heads)[:, None]
    y = torch.arange(strip_keys)
    bias = _bias((x <= y) & (y < x + width), q.dtype)
    out, lse = KERNEL(q, k, v, attn_mask=bias, scale=scale)
    out, lse = (
        tensor.reshape(batch, strips, groups, heads, STRIP_QUERIES, -1).permute(0, 2, 3, 1, 4, 5)
        for tensor in (out, lse)
    )
    return PartialAttention(out.flatten(3, 4), lse.flatten(3))


def _strips_of_keys(x: Tensor, strips: int, strip_keys: int) -> Tensor:
    """Return overlapping views ``[B S, G, strip_keys, D]`` of ``x[B, G, K, D]``, one per strip."""
    # Neighbouring strips share ``strip_keys - STRIP_QUERIES`` keys. ``unfold`` gives views; the
    # last line copies them only where the batch has several rows.
    x_BGSDK = x.unfold(2, strip_keys, STRIP_QUERIES)[:, :, :strips]
    return x_BGSDK.permute(0, 2, 1, 4, 3).flatten(0, 1)


def _bias(owned: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mask that the kernel adds to its logits: 0 for an owned pair, else -inf."""
    return torch.zeros(owned.shape, dtype=dtype).masked_fill(~owned, -torch.inf)
