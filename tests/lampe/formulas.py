"""Relative positions of every index method as plain arithmetic, for query ``i`` at key ``j <= i``.

``n`` is the number of tokens of the prompt, so queries from ``n`` on are generated ones. Functions
return a list, because the releases of some methods count pairs of the prompt twice, and in some
methods a query does not see a key. Sources: the papers, and for releases the authors' code.
"""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

Positions = list[int | Fraction]


def selfextend(
    i: int, j: int, n: int, group_size: int, window_size: int, shift: str = "integer"
) -> Positions:
    if i - j < window_size:
        return [i - j]
    whole = shift == "integer" or (shift == "fractional-prefill" and i >= n)
    step = window_size // group_size if whole else Fraction(window_size, group_size)
    return [i // group_size - j // group_size + window_size - step]


def dpe(
    i: int,
    j: int,
    n: int,
    group_sizes: str,
    window_size: int,
    shift: str = "integer",
    band: int = -1,
) -> Positions:
    """Return the positions that the pairs of a band see; those of the last band by default."""
    size = int(group_sizes.split("/")[band])
    return selfextend(i, j, n, size, window_size, shift)


def gali(
    i: int, j: int, n: int, window: int, local_window: int, chunk: float, interpolate: bool = True
) -> Positions:
    """Return positions whose fractions stand for interpolated logits."""
    end = i + 1 if i >= n else window
    while i < n and end <= i:
        tokens = int(chunk * end if isinstance(chunk, float) else chunk)
        end = min(n, end + max(1, tokens))
    if end <= window:
        return [i - j]
    group = math.ceil(Fraction(end - local_window, window - local_window))
    begin = math.ceil(Fraction(end - window, group - 1))
    exact = end - (window - begin)

    def position(x: int) -> int | Fraction:
        return x - exact + begin if x >= exact else Fraction(x, group)

    key = position(j)
    return [math.ceil(position(i)) - (key if interpolate else math.ceil(key))]


def rerope(i: int, j: int, n: int, window_size: int) -> Positions:
    return [min(i - j, window_size)]


def leaky_rerope(i: int, j: int, n: int, window_size: int, factor: int) -> Positions:
    return [i - j if i - j < window_size else window_size + Fraction(i - j - window_size, factor)]


def string(i: int, j: int, n: int, shift: int, local: int, variant: str = "exact") -> Positions:
    if i - j == shift and i < n and variant == "reference":
        return [shift, local]
    return [i - j if i - j < shift else i - j - shift + local]


def dca(i: int, j: int, n: int, chunk_size: int, cap: int) -> Positions:
    match i // chunk_size - j // chunk_size:
        case 0:
            return [i - j]
        case 1:
            return [min(i % chunk_size + chunk_size, cap) - j % chunk_size]
        case _:
            return [cap - j % chunk_size]


def chunkllama(
    i: int, j: int, n: int, pretraining_length: int, local_window: int, variant: str = "steady"
) -> Positions:
    cap = pretraining_length if variant == "vllm" else pretraining_length * 3 // 4
    return dca(i, j, n, cap - local_window, cap)


def self_groups(
    i: int,
    j: int,
    n: int,
    window_size: int,
    capacity: int,
    rate: float,
    first: int = 1,
    decode: str = "prompt",
) -> Positions:
    if i - j < window_size:
        return [i - j]
    if i >= n and decode == "eager":
        return [window_size]
    if i >= n and decode == "flash":
        return [window_size + _packed(j - 1, window_size, 0.02) if j else 0]
    if capacity == 2:
        return [i - j]
    query, key = (_packed(x - first, capacity, rate) for x in (i - window_size, j))
    return [window_size + query - key]


def _packed(token: int, capacity: int, rate: float) -> int:
    """Return the group of a token where groups of SELF's sizes are filled one after another."""
    group, left = 0, max(0, token)
    while True:
        size = math.floor(capacity / (1 + (capacity - 1) * math.exp(-rate * group)))
        # The curve never reaches its capacity, but rounds to it.
        size = min(size, capacity - 1)
        if left < size:
            return group
        left -= size
        group += 1


def adagrope(i: int, j: int, n: int, positions: int, ratio: float = 0.25) -> Positions:
    if n <= positions:
        return [i - j]
    least = [0 if k & (k - 1) else int(ratio * positions / k) for k in range(1, n + 1)]
    reach = [m * positions - sum((m - k) * least[k - 1] for k in range(1, m)) for m in range(n + 1)]
    most = next(m for m in range(2, n + 1) if n <= reach[m])
    farthest = n - reach[most - 1]
    tokens = [k for k in range(1, most) for _ in range(least[k - 1])]
    tokens += [most - 1] * (positions - len(tokens) - farthest) + [most] * farthest
    begins = [sum(tokens[:position]) for position in range(positions)]
    position = max(position for position in range(positions) if begins[position] <= i - j)
    return [position + Fraction(i - j - begins[position], tokens[position])]


def lampe(
    i: int,
    j: int,
    n: int,
    mapping_length: int,
    head_tokens: int,
    tail_tokens: int,
    variant: str = "continuous",
) -> Positions:
    if variant in ("reference", "reference-nodup"):
        return _three_regions(
            i, j, n, head_tokens, tail_tokens, mapping_length, variant == "reference"
        )
    if variant in ("sw-map", "sw-map-nodup"):
        return _two_regions(i, j, n, head_tokens, mapping_length, variant == "sw-map")
    if variant == "reference-fixed":
        return _repaired(i, j, n, head_tokens, tail_tokens, mapping_length)
    distance = i - j
    if mapping_length >= n or distance <= head_tokens:
        return [distance]
    if distance >= n - tail_tokens:
        return [mapping_length - n + distance]
    slope = Fraction(mapping_length - head_tokens - tail_tokens, n - head_tokens - tail_tokens)
    match variant:
        case "paper":
            return [slope * (distance - head_tokens) // 1 + head_tokens]
        case "separable":
            return [head_tokens + slope * (i - head_tokens) // 1 - slope * j // 1]
    return [slope * (distance - head_tokens) + head_tokens]


def _three_regions(
    i: int, j: int, n: int, head: int, tail: int, last: int, twice: bool
) -> Positions:
    """Follow ``llama_cache1.py``: inclusive windows, and a frozen middle query in an answer."""
    if n < 2 * head:
        return [i - j]
    mapped = _mapped(n, last)
    end, near, far = _constants(n, head, tail, mapped)
    inclusive = int(twice and i < n)
    positions: Positions = []
    if i - j < head + inclusive:
        positions.append(i - j)
    if head <= i - j < n - end + inclusive:
        positions.append(mapped(min(i, n - 1)) + near - mapped(j))
    if i - j >= n - end:
        positions.append(i - j - far)
    return positions


def _two_regions(i: int, j: int, n: int, head: int, last: int, twice: bool) -> Positions:
    """Follow ``llama_sw_map.py``: no tail, and a map that ends with each generated token."""
    if n <= head:
        return [i - j]
    mapped, near = _mapped(max(n, i + 1), last), head - _mapped(n, last)(head) - 1
    positions: Positions = []
    if i - j < head + int(twice and i < n):
        positions.append(i - j)
    if i - j >= head:
        positions.append(mapped(i) + near - mapped(j))
    return positions


def _repaired(i: int, j: int, n: int, head: int, tail: int, last: int) -> Positions:
    """Return the three regions in exact integers, each pair once, the same for an answer."""
    if n < 2 * head:
        return [i - j]

    def mapped(x: int) -> int:
        return last * x // (n - 1)

    end, near, far = _constants(n, head, tail, mapped)
    if i - j <= head:
        return [i - j]
    return [i - j - far if i - j >= n - end else mapped(i) + near - mapped(j)]


def _mapped(n: int, last: int) -> Callable[[int], int]:
    """Return the release's mapped index, floored in float32."""
    slope = np.float32(1) / np.float32(n - 1) * np.float32(last)
    return lambda x: int(np.floor(np.float32(x) * slope))


def _constants(n: int, head: int, tail: int, mapped: Callable[[int], int]) -> tuple[int, int, int]:
    """Return the release's ``re``, ``b1`` and ``b2``."""
    end = max(x for x in range(n) if mapped(x) == mapped(tail))
    near = head - mapped(head) - 1
    return end, near, n - 1 - end - mapped(n - 1 - end) - near


def streaming_llm(i: int, j: int, n: int, sinks: int, recent: int) -> Positions:
    """Return the difference of indices in the cache that a token finds, itself included."""
    cache = [key for key in range(i + 1) if key < sinks or key >= i - recent]
    return [len(cache) - 1 - cache.index(j)] if j in cache else []


def lm_infinite(i: int, j: int, n: int, sinks: int, local: int, limit: int) -> Positions:
    tokens = n if i < n else i + 1
    if i - j < local:
        return [i - j]
    return [min(limit, tokens - 1)] if j < sinks else []


FORMULAS: dict[str, Callable[..., Positions]] = {
    "adagrope": adagrope,
    "chunkllama": chunkllama,
    "dca": dca,
    "dpe": dpe,
    "gali": gali,
    "lampe": lampe,
    "leaky-rerope": leaky_rerope,
    "lm-infinite": lm_infinite,
    "rerope": rerope,
    "self": self_groups,
    "selfextend": selfextend,
    "streaming-llm": streaming_llm,
    "string": string,
}
