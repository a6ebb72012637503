"""Golden relative position matrices: row i holds the positions that query i sees at keys 0..i.

A point stands for a key that the query does not see.

They were worked out from each paper's formula; those of SelfExtend, DCA and STRING were also read
off the authors' running code.
"""

import math
from typing import Any, NamedTuple


class Golden(NamedTuple):
    """Rows of a method's matrix by query index, for its settings and a length."""

    method: str
    settings: dict[str, Any]
    length: int
    rows: dict[int, list[float]]


def _whole(method: str, settings: dict[str, Any], text: str) -> Golden:
    rows = {query: _numbers(line) for query, line in enumerate(text.strip().splitlines())}
    return Golden(method, settings, len(rows), rows)


def _some(method: str, settings: dict[str, Any], length: int, rows: dict[int, str]) -> Golden:
    return Golden(method, settings, length, {query: _numbers(row) for query, row in rows.items()})


def _numbers(row: str) -> list[float]:
    return [math.nan if entry == "." else float(entry) for entry in row.split()]


LAMPE = {"head_tokens": 3, "tail_tokens": 2, "mapping_length": 9}

GALI = {"window": 8, "local_window": 2, "chunk": 4}

GOLDENS = [
    _whole(
        "selfextend",
        {"group_size": 2, "window_size": 4},
        """
0
1 0
2 1 0
3 2 1 0
4 3 2 1 0
4 4 3 2 1 0
5 5 4 3 2 1 0
5 5 4 4 3 2 1 0
6 6 5 5 4 3 2 1 0
6 6 5 5 4 4 3 2 1 0
7 7 6 6 5 5 4 3 2 1 0
7 7 6 6 5 5 4 4 3 2 1 0
8 8 7 7 6 6 5 5 4 3 2 1 0
8 8 7 7 6 6 5 5 4 4 3 2 1 0
""",
    ),
    _whole(
        "selfextend",
        {"group_size": 3, "window_size": 4},
        """
0
1 0
2 1 0
3 2 1 0
4 3 2 1 0
4 4 3 2 1 0
5 5 5 3 2 1 0
5 5 5 4 3 2 1 0
5 5 5 4 4 3 2 1 0
6 6 6 5 5 5 3 2 1 0
6 6 6 5 5 5 4 3 2 1 0
6 6 6 5 5 5 4 4 3 2 1 0
7 7 7 6 6 6 5 5 5 3 2 1 0
7 7 7 6 6 6 5 5 5 4 3 2 1 0
""",
    ),
    _whole(
        "rerope",
        {"window_size": 4},
        """
0
1 0
2 1 0
3 2 1 0
4 3 2 1 0
4 4 3 2 1 0
4 4 4 3 2 1 0
4 4 4 4 3 2 1 0
4 4 4 4 4 3 2 1 0
4 4 4 4 4 4 3 2 1 0
4 4 4 4 4 4 4 3 2 1 0
4 4 4 4 4 4 4 4 3 2 1 0
""",
    ),
    _whole(
        "string",
        {"shift": 4, "local": 2},
        """
0
1 0
2 1 0
3 2 1 0
2 3 2 1 0
3 2 3 2 1 0
4 3 2 3 2 1 0
5 4 3 2 3 2 1 0
6 5 4 3 2 3 2 1 0
7 6 5 4 3 2 3 2 1 0
8 7 6 5 4 3 2 3 2 1 0
9 8 7 6 5 4 3 2 3 2 1 0
""",
    ),
    _whole(
        "dca",
        {"chunk_size": 6, "cap": 9},
        """
0
1 0
2 1 0
3 2 1 0
4 3 2 1 0
5 4 3 2 1 0
6 5 4 3 2 1 0
7 6 5 4 3 2 1 0
8 7 6 5 4 3 2 1 0
9 8 7 6 5 4 3 2 1 0
9 8 7 6 5 4 4 3 2 1 0
9 8 7 6 5 4 5 4 3 2 1 0
9 8 7 6 5 4 6 5 4 3 2 1 0
9 8 7 6 5 4 7 6 5 4 3 2 1 0
""",
    ),
    _whole(
        "chunkllama",
        {"pretraining_length": 7, "local_window": 2},
        """
0
1 0
2 1 0
3 2 1 0
4 3 2 1 0
5 4 3 2 1 0
5 4 3 3 2 1 0
5 4 3 4 3 2 1 0
5 4 3 5 4 3 2 1 0
5 4 3 5 4 3 3 2 1 0
5 4 3 5 4 3 4 3 2 1 0
5 4 3 5 4 3 5 4 3 2 1 0
""",
    ),
    _whole(
        "lampe",
        {"head_tokens": 3, "tail_tokens": 2, "mapping_length": 9, "variant": "paper"},
        """
0
1 0
2 1 0
3 2 1 0
3 3 2 1 0
3 3 3 2 1 0
4 3 3 3 2 1 0
4 4 3 3 3 2 1 0
4 4 4 3 3 3 2 1 0
5 4 4 4 3 3 3 2 1 0
5 5 4 4 4 3 3 3 2 1 0
5 5 5 4 4 4 3 3 3 2 1 0
6 5 5 5 4 4 4 3 3 3 2 1 0
6 6 5 5 5 4 4 4 3 3 3 2 1 0
7 6 6 5 5 5 4 4 4 3 3 3 2 1 0
8 7 6 6 5 5 5 4 4 4 3 3 3 2 1 0
""",
    ),
    _whole(
        "streaming-llm",
        {"sinks": 2, "recent": 3},
        """
0
1 0
2 1 0
3 2 1 0
4 3 2 1 0
5 4 3 2 1 0
5 4 . 3 2 1 0
5 4 . . 3 2 1 0
5 4 . . . 3 2 1 0
""",
    ),
    _whole(
        "lm-infinite",
        {"sinks": 2, "local": 3, "limit": 3},
        """
0
1 0
2 1 0
3 2 1 0
3 3 2 1 0
3 3 . 2 1 0
3 3 . . 2 1 0
3 3 . . . 2 1 0
""",
    ),
    _some(
        "selfextend",
        {"group_size": 3, "window_size": 4, "shift": "fractional"},
        14,
        {
            13: (
                "6.666667 6.666667 6.666667 5.666667 5.666667 5.666667 4.666667 4.666667 "
                "4.666667 3.666667 3 2 1 0"
            )
        },
    ),
    _some(
        "leaky-rerope",
        {"window_size": 4, "factor": 4},
        12,
        {11: "5.75 5.5 5.25 5 4.75 4.5 4.25 4 3 2 1 0"},
    ),
    _whole(
        "self",
        {"window_size": 4, "capacity": 5, "rate": 0.5},
        """
0
1 0
2 1 0
3 2 1 0
4 3 2 1 0
4 4 3 2 1 0
5 5 4 3 2 1 0
6 6 5 4 3 2 1 0
6 6 5 4 4 3 2 1 0
7 7 6 5 5 4 3 2 1 0
7 7 6 5 5 4 4 3 2 1 0
8 8 7 6 6 5 5 4 3 2 1 0
8 8 7 6 6 5 5 4 4 3 2 1 0
8 8 7 6 6 5 5 4 4 4 3 2 1 0
9 9 8 7 7 6 6 5 5 5 4 3 2 1 0
9 9 8 7 7 6 6 5 5 5 4 4 3 2 1 0
""",
    ),
    _some(
        "self",
        {"window_size": 4, "capacity": 5, "rate": 0.5, "first": 0},
        16,
        {15: "9 8 7 7 6 6 5 5 5 4 4 4 3 2 1 0"},
    ),
    _some(
        "dpe",
        {"group_sizes": 3, "window_size": 4, "shift": "fractional-prefill"},
        14,
        {
            8: "4.666667 4.666667 4.666667 3.666667 3.666667 3 2 1 0",
            13: (
                "6.666667 6.666667 6.666667 5.666667 5.666667 5.666667 4.666667 4.666667 "
                "4.666667 3.666667 3 2 1 0"
            ),
        },
    ),
    _some(
        "gali",
        GALI,
        14,
        {
            7: "7 6 5 4 3 2 1 0",
            8: "4 3.5 3 2.5 2 1.5 1 .5 0",
            11: "7 6.5 6 5.5 5 4.5 4 3.5 3 2 1 0",
            13: "7 6.5 6 5.5 5 4.5 4 3.5 3 2.5 2 1.5 1 0",
        },
    ),
    _some(
        "gali",
        {**GALI, "interpolate": False},
        14,
        {13: "7 6 6 5 5 4 4 3 3 2 2 1 1 0"},
    ),
    _some("string", {"shift": 3, "local": 0}, 9, {8: "5 4 3 2 1 0 2 1 0"}),
    _some("dca", {"chunk_size": 6, "cap": 10}, 14, {13: "10 9 8 7 6 5 7 6 5 4 3 2 1 0"}),
    _some(
        "lampe",
        {**LAMPE, "variant": "separable"},
        16,
        {
            9: "5 5 5 4 4 4 3 2 1 0",
            12: "6 6 6 5 5 5 4 4 4 3 2 1 0",
            15: "8 7 7 6 6 6 5 5 5 4 4 3 3 2 1 0",
        },
    ),
    _some(
        "lampe",
        LAMPE,
        16,
        {
            15: (
                "8 7 6.636364 6.272727 5.909091 5.545455 5.181818 4.818182 4.454545 "
                "4.090909 3.727273 3.363636 3 2 1 0"
            )
        },
    ),
    _some(
        "lampe",
        {"head_tokens": 4, "tail_tokens": 3, "mapping_length": 18, "variant": "paper"},
        32,
        {
            5: "4 4 3 2 1 0",
            8: "5 5 4 4 4 3 2 1 0",
            16: "9 8 8 7 7 7 6 6 5 5 4 4 4 3 2 1 0",
            27: "14 13 13 12 12 11 11 11 10 10 9 9 8 8 7 7 7 6 6 5 5 4 4 4 3 2 1 0",
            28: "14 14 13 13 12 12 11 11 11 10 10 9 9 8 8 7 7 7 6 6 5 5 4 4 4 3 2 1 0",
            29: "15 14 14 13 13 12 12 11 11 11 10 10 9 9 8 8 7 7 7 6 6 5 5 4 4 4 3 2 1 0",
            30: "16 15 14 14 13 13 12 12 11 11 11 10 10 9 9 8 8 7 7 7 6 6 5 5 4 4 4 3 2 1 0",
            31: "17 16 15 14 14 13 13 12 12 11 11 11 10 10 9 9 8 8 7 7 7 6 6 5 5 4 4 4 3 2 1 0",
        },
    ),
]
"""Appendix A of the methods' specification, for every method that changes relative positions."""

TOKENS_OF_POSITIONS = {
    20: [1] * 12 + [2] * 4,
    28: [1] * 4 + [2] * 12,
    40: [1] * 4 + [2] * 2 + [3] * 8 + [4] * 2,
    64: [1] * 4 + [2] * 2 + [4] + [5] * 2 + [6] * 7,
}
"""Tokens that each of AdaGroPE's 16 positions stands for, by the number of tokens of the text."""

DECODE = {
    1: "9 8 7 6 6 5 5 5 4 4 4 3 3 3 2 1 0",
    4: "12 11 10 9 8 7 6 6 5 5 5 4 4 4 3 3 3 2 1 0",
}
"""LaMPE's paper plan of a 16-token prompt, by the number of generated tokens."""

OWN_PLANS = [
    _some(
        "dpe",
        {"group_sizes": 3, "window_size": 4, "shift": "fractional-prefill"},
        14,
        {14: "7 7 7 6 6 6 5 5 5 4 4 3 2 1 0"},
    ),
    _some(
        "gali",
        GALI,
        14,
        {
            14: ("7 6.666667 6.333333 6 5.666667 5.333333 5 4.666667 4.333333 4 3.666667 3 2 1 0"),
            15: (
                "7 6.666667 6.333333 6 5.666667 5.333333 5 4.666667 4.333333 4 3.666667 "
                "3.333333 3 2 1 0"
            ),
        },
    ),
    _some("gali", {**GALI, "interpolate": False}, 14, {14: "7 6 6 6 5 5 5 4 4 4 3 3 2 1 0"}),
    _some("gali", GALI, 4, {7: "7 6 5 4 3 2 1 0", 8: "7 6.5 6 5 4 3 2 1 0"}),
]
"""Rows of generated tokens that have plans of their own, after a prompt of the length."""
