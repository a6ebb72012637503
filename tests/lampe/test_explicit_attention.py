"""Logits of prefill and cached decode against attention computed pair by pair from formulas.

The other side uses nothing of ``lampe``: the model has one layer, whose attention is two loops in
float64, and positions, frequencies and attention factors are those of the papers.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

import lampe
from tests.lampe.formulas import FORMULAS, dpe
from tests.lampe.tiny import WINDOW, llama, random_ids

PAIRS, THETA, RELEASED = 8, 10000.0, 0.1 * math.log(2) + 1
ANSWER = 4

INDEX: list[tuple[str, dict[str, Any]]] = [
    ("selfextend", {"group_size": 3, "window_size": 7}),
    ("selfextend", {"group_size": 3, "window_size": 16, "shift": "fractional"}),
    ("rerope", {"window_size": 16}),
    ("leaky-rerope", {"window_size": 15, "factor": 4}),
    ("string", {"shift": 13, "local": 5}),
    ("string", {"shift": 13, "local": 5, "variant": "reference"}),
    ("dca", {"chunk_size": 15, "cap": 18}),
    ("self", {"capacity": 5, "window_size": 7, "rate": 0.5}),
    ("self", {"capacity": 5, "window_size": 7, "rate": 0.5, "decode": "flash"}),
    ("adagrope", {"positions": 12}),
    ("chunkllama", {"pretraining_length": 20, "local_window": 4}),
    ("streaming-llm", {"sinks": 3, "recent": 9}),
    ("lm-infinite", {"sinks": 3, "local": 9, "limit": 9}),
    ("lm-infinite", {"sinks": 3, "local": 9, "limit": 42}),
    ("dpe", {"group_sizes": "3/1/5/2", "window_size": 7}),
    ("dpe", {"group_sizes": "3/1/5/2", "window_size": 7, "shift": "fractional-prefill"}),
    ("gali", {"window": 16, "local_window": 3, "chunk": 5}),
    ("gali", {"window": 16, "local_window": 3, "chunk": 30, "interpolate": False}),
    *(
        ("lampe", {"head_tokens": 5, "tail_tokens": 4, "mapping_length": 14, "variant": variant})
        for variant in (
            "continuous",
            "separable",
            "paper",
            "reference",
            "reference-nodup",
            "reference-fixed",
            "sw-map",
        )
    ),
]


def _frequencies(name: str, factor: float) -> list[float]:
    """Return the frequency of each pair, in radians per position."""
    plain = [THETA ** (-pair / PAIRS) for pair in range(PAIRS)]
    match name:
        case "pi":
            return [frequency / factor for frequency in plain]
        case "ntk":
            theta = THETA * factor ** (2 * PAIRS / (2 * PAIRS - 2))
            return [theta ** (-pair / PAIRS) for pair in range(PAIRS)]
        case "cope":
            weights = [(1 + math.cos(math.pi * k / 3)) / 2 for k in range(4)]
            return [a * b for a, b in zip(plain, [1] * 4 + weights, strict=True)]
        case "resonance":
            return [2 * math.pi / round(2 * math.pi / frequency) for frequency in plain]
        case "yarn" | "mrrope":
            turns = [
                2 * PAIRS * math.log(WINDOW / (2 * math.pi * n)) / (2 * math.log(THETA))
                for n in (32, 1)
            ]
            low, high = max(math.floor(turns[0]), 0), min(math.ceil(turns[1]), 2 * PAIRS - 1)
            if name == "mrrope":
                steps = [min(high - low, max(0, pair - low)) for pair in range(PAIRS)]
                share = [t * (t + 1) / ((high - low) * (high - low + 1)) for t in steps]
                return [a / factor**e for a, e in zip(plain, share, strict=True)]
            ramp = [min(1.0, max(0.0, (pair - low) / (high - low))) for pair in range(PAIRS)]
            return [
                frequency * (1 - slow) + frequency / factor * slow
                for frequency, slow in zip(plain, ramp, strict=True)
            ]
    return plain


@torch.no_grad()
def _explicit_logits(
    model: LlamaForCausalLM,
    ids: Tensor,
    positions: Any,
    frequencies: list[float],
    logit_factor: Any,
    interpolated: bool = False,
) -> Tensor:
    """Return logits ``[tokens, vocabulary]``.

    ``positions(i, j)`` are relative, each one number or one for each pair, and ``logit_factor(i)``
    multiplies the logits of query i. With ``interpolated`` the logit at a fraction lies between
    those at the whole positions around it.
    """
    model = copy.deepcopy(model).double()
    layer, hidden = model.model.layers[0], model.model.embed_tokens(ids[0])
    normed, attention = layer.input_layernorm(hidden), layer.self_attn
    q, k, v = (
        project(normed).view(len(hidden), -1, 2 * PAIRS) for project in _projections(attention)
    )
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    out, frequency = torch.zeros_like(q), torch.tensor(frequencies, dtype=torch.float64)
    for i in range(len(hidden)):
        logits, values = [], []
        for j in range(i + 1):
            for position in positions(i, j):
                logit = _dot(q[i], k[j], position, frequency)
                if interpolated:
                    low, high = (
                        _dot(q[i], k[j], whole, frequency)
                        for whole in (math.floor(position), math.ceil(position))
                    )
                    logit = low + float(position % 1) * (high - low)
                logits.append(logit / math.sqrt(2 * PAIRS) * logit_factor(i))
                values.append(v[j])
        weights = torch.stack(logits).softmax(0)
        out[i] = (weights[..., None] * torch.stack(values)).sum(0)
    hidden = hidden + attention.o_proj(out.flatten(1))
    hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    written: Tensor = model.lm_head(model.model.norm(hidden)).float()
    return written


def _dot(q: Tensor, k: Tensor, position: Any, frequency: Tensor) -> Tensor:
    """Return the product ``[heads]`` of a rotated query and a key."""
    numbers = position if isinstance(position, tuple) else (position,)
    angle = torch.tensor([float(number) for number in numbers]).double() * frequency
    first, second = q[:, :PAIRS], q[:, PAIRS:]
    rotated = torch.cat(
        [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()],
        dim=-1,
    )
    return (rotated * k).sum(-1)


def _projections(attention: Any) -> tuple[Any, Any, Any]:
    return attention.q_proj, attention.k_proj, attention.v_proj


@torch.no_grad()
def _read_and_answered(model: LlamaForCausalLM, ids: Tensor, prompt: int) -> Tensor:
    """Return logits of a prompt read at once, then of an answer token by token with the cache."""
    out = model(ids[:, :prompt], use_cache=True)
    parts = [out.logits[0]]
    for at in range(prompt, ids.shape[1]):
        out = model(ids[:, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
        parts.append(out.logits[0])
    return torch.cat(parts)


def _plain(i: int, j: int) -> list[int]:
    return [i - j]


@pytest.mark.parametrize("prompt", [14, 40])
@pytest.mark.parametrize(("name", "settings"), INDEX, ids=str)
def test_methods_of_positions(name: str, settings: dict[str, Any], prompt: int) -> None:
    """Try a prompt whose answer leaves windows, chunks and shifts that hold the whole prompt."""
    model, ids = llama(layers=1), random_ids(prompt + ANSWER)
    with lampe.patch(model, name, attention_factor="none", **settings):
        ours = _read_and_answered(model, ids, prompt)
    formula = FORMULAS[name]

    def positions(i: int, j: int) -> Any:
        if name != "dpe":
            return formula(i, j, prompt, **settings)
        # Four bands of two pairs.
        bands = [dpe(i, j, prompt, **settings, band=pair // 2)[0] for pair in range(PAIRS)]
        return [tuple(bands)]

    theirs = _explicit_logits(
        model,
        ids,
        positions,
        _frequencies(name, 1),
        lambda i: 1,
        interpolated=settings.get("interpolate", name == "gali"),
    )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore::lampe.PositionWarning")
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("original", {}),
        *((name, {"factor": 4}) for name in ("pi", "ntk", "yarn", "mrrope")),
        ("cope", {"clip": 4}),
        ("resonance", {}),
    ],
)
def test_methods_of_frequencies(name: str, settings: dict[str, Any]) -> None:
    model, ids = llama(layers=1), random_ids(40 + ANSWER)
    with lampe.patch(model, name, **settings):
        ours = _read_and_answered(model, ids, 40)
    logit_factor = (0.1 * math.log(4) + 1) ** 2 if name in ("yarn", "mrrope") else 1
    theirs = _explicit_logits(model, ids, _plain, _frequencies(name, 4), lambda i: logit_factor)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


LOGIT_FACTORS: dict[str, Callable[[int], float]] = {
    "lampe": lambda i: RELEASED**2,
    "string": lambda i: RELEASED**2,
    "rerope": lambda i: max(1, math.log(i + 1) / math.log(16)),
    "leaky-rerope": lambda i: max(1, math.log(i + 1) / math.log(16)),
    "chunkllama": lambda i: (1 + 0.05 * math.log(40 / 16)) ** 2,
    "selfextend": lambda i: 1,
    "dca": lambda i: 1,
    "streaming-llm": lambda i: 1,
    "lm-infinite": lambda i: 1,
}
"""Factor on the logits of query ``i``, for a prompt of 40 tokens and a window of 16."""


@pytest.mark.filterwarnings("ignore::lampe.PositionWarning")
@pytest.mark.parametrize("name", LOGIT_FACTORS)
def test_released_attention_factors(name: str) -> None:
    settings = next(settings for method, settings in INDEX if method == name)
    model, ids, formula = llama(layers=1), random_ids(40 + ANSWER), FORMULAS[name]
    with lampe.patch(model, name, window=16, **settings):
        ours = _read_and_answered(model, ids, 40)
    theirs = _explicit_logits(
        model,
        ids,
        lambda i, j: formula(i, j, 40, **settings),
        _frequencies(name, 1),
        LOGIT_FACTORS[name],
    )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
