"""Properties of every method at any length and setting, tried on examples by hypothesis."""

import dataclasses
import math
import re
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import lampe
from lampe.attention import BACKENDS
from lampe.mapping_length import PUBLISHED_CURVES
from lampe.methods import METHODS, method_of
from lampe.methods.dca import CHUNKLLAMA_VARIANTS
from lampe.methods.self import LogisticGroups
from tests.lampe.formulas import FORMULAS

EXAMPLES = settings(max_examples=20, deadline=None, derandomize=True, database=None)
GEOMETRY = lampe.Geometry(window=64, head_dim=8)
LENGTHS = st.integers(1, 60)
SMALL = st.integers(1, 20)
NAMES = [
    *sorted(set(FORMULAS) - {"lampe"}),
    *(f"lampe {variant}" for variant in ("continuous", "separable", "paper", "reference-fixed")),
    *(f"lampe {variant}" for variant in ("reference", "reference-nodup", "sw-map", "sw-map-nodup")),
    *("lampe+pi reference", "lampe+yarn sw-map", "string+pi", "gali+yarn", "streaming-llm+yarn"),
]
FLOATS = {"atol": 1e-9, "rtol": 0}

INDEX = [name for name, method in METHODS.items() if issubclass(method, lampe.IndexMethod)]


@st.composite
def hyper_parameters(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Draw hyper-parameters that a method takes; LaMPE's variant is given after a space.

    Those of a composed method go to its positions.
    """
    method, _, variant = name.partition(" ")
    match method.partition("+")[0]:
        case "lampe":
            head, tail = draw(SMALL), draw(SMALL)
            least = 1 if variant.startswith(("reference", "sw-map")) else head + tail + 1
            mapping = draw(st.integers(least, least + 30))
            return {
                "head_tokens": head,
                "tail_tokens": tail,
                "mapping_length": mapping,
                "variant": variant,
            }
        case "selfextend":
            shift = draw(st.sampled_from(["integer", "fractional", "fractional-prefill"]))
            return {"group_size": draw(SMALL), "window_size": draw(SMALL), "shift": shift}
        case "dpe":
            sizes = draw(st.lists(SMALL, min_size=4, max_size=4))
            shift = draw(st.sampled_from(["integer", "fractional", "fractional-prefill"]))
            group_sizes = "/".join(map(str, sizes))
            return {"group_sizes": group_sizes, "window_size": draw(SMALL), "shift": shift}
        case "gali":
            window = draw(st.integers(2, 40))
            return {
                "window": window,
                "local_window": draw(st.integers(1, window - 1)),
                "chunk": draw(st.integers(1, 30) | st.sampled_from([0.25, 1.5])),
                "interpolate": draw(st.booleans()),
            }
        case "string":
            shift = draw(SMALL)
            variant = draw(st.sampled_from(["exact", "reference"]))
            return {"shift": shift, "local": draw(st.integers(0, shift)), "variant": variant}
        case "dca":
            chunk = draw(SMALL)
            return {"chunk_size": chunk, "cap": chunk + draw(st.integers(0, 30))}
        case "chunkllama":
            length = draw(st.integers(3, 40))
            return {
                "pretraining_length": length,
                "local_window": draw(st.integers(1, length * 3 // 4 - 1)),
                "variant": draw(st.sampled_from(list(CHUNKLLAMA_VARIANTS))),
            }
        case "self":
            return {
                "capacity": draw(st.integers(2, 9)),
                "window_size": draw(st.integers(2, 20)),
                "rate": draw(st.sampled_from([0.02, 0.1, 0.5, 4.0])),
                "first": draw(st.integers(0, 1)),
                "decode": draw(st.sampled_from(["prompt", "eager", "flash"])),
            }
        case "adagrope":
            return {"positions": draw(SMALL), "ratio": draw(st.sampled_from([0.1, 0.25, 0.5]))}
        case "leaky-rerope":
            return {"window_size": draw(SMALL), "factor": draw(SMALL)}
        case "streaming-llm":
            return {"sinks": draw(SMALL), "recent": draw(SMALL)}
        case "lm-infinite":
            return {"sinks": draw(SMALL), "local": draw(SMALL), "limit": draw(st.integers(1, 40))}
    return {"window_size": draw(SMALL)}


def _encoding(method: lampe.Method, prompt: int, query: int | None = None) -> lampe.Encoding:
    """Return the encoding under which a query attends, or a generated token beyond the prompt.

    Prompts and answers that a release cannot take are skipped.
    """
    try:
        encoding = method.encode(GEOMETRY, prompt)
        if query is None or query < prompt:
            return encoding
        return dataclasses.replace(
            encoding, plan=method.decode_plan(GEOMETRY, prompt, query + 1) or encoding.plan
        )
    except lampe.BadSetting:
        assume(False)
        raise


def _row(plan: lampe.PositionPlan, query: int) -> list[list[float]]:
    """Return the positions of a query at each key."""
    i, keys = torch.tensor([query]), torch.arange(query + 1)
    cells: list[list[float]] = [[] for _ in range(query + 1)]
    for region in plan:
        positions = region.relative(i, keys).tolist()
        for key in region.owns(i, keys).nonzero()[:, -1].tolist():
            cells[key].append(positions[key])
    return cells


@pytest.mark.parametrize("name", NAMES)
@EXAMPLES
@given(data=st.data(), prompt=LENGTHS, answer=st.integers(0, 5))
def test_prompt_and_answer_have_the_positions_of_the_formula(
    name: str, data: st.DataObject, prompt: int, answer: int
) -> None:
    """Compare pair by pair; the formula has two positions where a release counts a pair twice."""
    chosen = data.draw(hyper_parameters(name))
    method, formula = method_of(name.split()[0], **chosen), FORMULAS[re.split(r"[ +]", name)[0]]
    whole = _encoding(method, prompt).plan
    assert whole.coverage_fault() is None
    for query in [*range(0, prompt, 3), *range(prompt - 1, prompt + answer)]:
        plan = _encoding(method, prompt, query).plan.of_query(query)
        row = _row(plan, query)
        for key in range(query + 1):
            expected = [float(x) for x in formula(query, key, prompt, **chosen)]
            assert row[key] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", METHODS)
@EXAMPLES
@given(window=st.integers(32, 300), length=st.integers(1, 400))
def test_defaults_cover_every_causal_pair_once(name: str, window: int, length: int) -> None:
    plan = method_of(name).encode(lampe.Geometry(window=window), length).plan
    index = torch.arange(length)
    counts = torch.stack([region.owns(index[:, None], index).int() for region in plan]).sum(0)
    covered = torch.ones(length, length).tril().bool()
    if plan.visible:
        recent = index[:, None] - index <= plan.visible.last
        covered &= recent | (index < plan.visible.first)
    assert torch.equal(counts, covered.int())


@pytest.mark.parametrize(
    "name",
    [
        *("selfextend", "dca", "chunkllama", "rerope", "leaky-rerope", "lampe", "self", "adagrope"),
        *("dpe", "streaming-llm", "lm-infinite"),
    ],
)
@EXAMPLES
@given(window=st.integers(32, 3000), length=st.integers(1, 100_000))
def test_defaults_stay_inside_the_window_and_true_nearby(
    name: str, window: int, length: int
) -> None:
    plan = method_of(name).encode(lampe.Geometry(window=window), length).plan
    if length > window or name == "lampe":
        assert plan.largest(length) < window
    near = torch.arange(max(0, length - window // 8), length)
    if name not in ("dca", "chunkllama"):
        assert torch.equal(
            plan.relative(torch.tensor(length - 1), near), (length - 1 - near).double()
        )


@pytest.mark.parametrize(
    "name",
    [
        *("rerope", "leaky-rerope", "selfextend", "self", "adagrope"),
        *("lampe continuous", "lampe paper", "lampe separable"),
    ],
)
@EXAMPLES
@given(data=st.data(), length=LENGTHS)
def test_positions_never_fall_with_distance_nor_leap(
    name: str, data: st.DataObject, length: int
) -> None:
    """Allow one position more per token of distance, and two where groups meet the neighbours."""
    chosen = data.draw(hyper_parameters(name))
    matrix = method_of(name.split()[0], **chosen).encode(GEOMETRY, length).plan.matrix(length)
    steps = [-matrix[query, : query + 1].diff() for query in range(length)]
    assert all(bool((step >= 0).all()) for step in steps)
    leap = 2 if name in ("selfextend", "lampe separable") else 1
    assert all(bool((step <= leap + 1e-9).all()) for step in steps)
    if name not in ("selfextend", "self", "lampe separable"):
        for distance in range(length):
            torch.testing.assert_close(
                matrix.diagonal(-distance),
                matrix[-1, length - 1 - distance].expand(length - distance),
            )


@EXAMPLES
@given(length=st.integers(1, 1 << 31), positions=st.integers(1, 9000))
def test_adagrope_takes_few_regions_and_no_position_beyond_its_own(
    length: int, positions: int
) -> None:
    """Compare with the most tokens that a position stands for, which is about length / P."""
    plan = method_of("adagrope", positions=positions).encode(GEOMETRY, length).plan
    assert plan.coverage_fault() is None
    if length > positions:
        most = plan.regions[-1].key.scale.denominator
        assert len(plan.regions) <= math.ceil(math.log2(most)) + 2
        assert positions - 1 <= plan.largest(length) < positions


@EXAMPLES
@given(capacity=st.integers(2, 1000), rate=st.floats(1e-3, 10), token=st.integers(0, 1 << 31))
def test_groups_of_self_are_known_at_any_index(capacity: int, rate: float, token: int) -> None:
    """Check that groups follow each other, and that none has more tokens than allowed."""
    groups = LogisticGroups(capacity=capacity, rate=rate)
    around = groups(torch.arange(token, token + 2 * capacity))
    assert set(around.diff().tolist()) <= {0, 1}
    counts = around.unique(return_counts=True)[1][1:-1].tolist()
    assert all(count < capacity for count in counts)
    assert counts == sorted(counts)


@EXAMPLES
@given(data=st.data(), length=LENGTHS)
def test_lampe_ends_where_its_pieces_do(data: st.DataObject, length: int) -> None:
    """Check the ends: head at s1, tail from m - s2 to m - 1; variants differ by one at most."""
    chosen = data.draw(hyper_parameters("lampe continuous"))
    head, tail, mapping = chosen["head_tokens"], chosen["tail_tokens"], chosen["mapping_length"]
    assume(length > mapping)
    rows = {
        variant: method_of("lampe", **{**chosen, "variant": variant})
        .encode(GEOMETRY, length)
        .plan.matrix(length)
        for variant in ("continuous", "paper", "separable")
    }
    for matrix in rows.values():
        by_distance = matrix[-1].flip(0)
        assert by_distance[head] == head
        assert by_distance[length - tail] == mapping - tail
        assert by_distance[length - 1] == mapping - 1
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    continuous, paper, separable = (matrix[causal] for matrix in rows.values())
    assert torch.equal(paper, (continuous + 1e-9).floor())
    assert set((separable - paper).tolist()) <= {0, 1}


IDENTITIES: dict[str, Any] = {
    "selfextend": st.fixed_dictionaries({"group_size": st.just(1), "window_size": SMALL}),
    "leaky-rerope": st.fixed_dictionaries({"factor": st.just(1), "window_size": SMALL}),
    "string": SMALL.map(lambda shift: {"shift": shift, "local": shift}),
    "lampe": st.tuples(SMALL, SMALL).map(
        lambda ends: {"head_tokens": ends[0], "tail_tokens": ends[1], "mapping_length": 60}
    ),
    "rerope": st.just({"window_size": 60}),
    "streaming-llm": SMALL.map(lambda sinks: {"sinks": sinks, "recent": 60}),
    "lm-infinite": SMALL.map(lambda sinks: {"sinks": sinks, "local": 60}),
    "dpe": SMALL.map(lambda window: {"group_sizes": "1/1", "window_size": window}),
    "gali": st.just({"window": 60}),
    "dca": st.just({"chunk_size": 60, "cap": 70}),
    "pi": st.just({"factor": 1}),
    "ntk": st.just({"factor": 1}),
    "yarn": st.just({"factor": 1}),
    "mrrope": st.just({"factor": 1}),
    "dprope": st.just({"factor": 1}),
    "cope": st.sampled_from([{"clip": 0}, {"clip": 0, "mode": "hard"}, {"clip": 1}]),
    "self": st.sampled_from([{"capacity": 2, "window_size": 5}, {"window_size": 60}]),
    "adagrope": st.just({"positions": 60}),
}


@pytest.mark.parametrize("name", IDENTITIES)
@EXAMPLES
@given(data=st.data(), length=LENGTHS)
def test_at_their_identity_limits_methods_are_plain_rope(
    name: str, data: st.DataObject, length: int
) -> None:
    """Take m = l for LaMPE, and for windows of exact positions one as long as the prompt."""
    encoding = method_of(name, **data.draw(IDENTITIES[name])).encode(GEOMETRY, length)
    plain = method_of("original").encode(GEOMETRY, length)
    assert encoding.rope == plain.rope
    assert torch.equal(
        encoding.plan.matrix(length).nan_to_num(-1), plain.plan.matrix(length).nan_to_num(-1)
    )


def _inputs(length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of two rows, four query heads over two key heads."""
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(2, heads, length, 8, generator=generator) for heads in (4, 2, 2))
    return q, k, v


@pytest.mark.matrix
@pytest.mark.parametrize("backend", ["blockwise"])
@pytest.mark.parametrize("name", NAMES)
@EXAMPLES
@given(
    data=st.data(), prompt=st.integers(1, 80), answer=st.integers(0, 4), chunk=st.integers(1, 80)
)
def test_a_prompt_in_chunks_then_an_answer_equals_the_oracle_row_by_row(
    backend: str, name: str, data: st.DataObject, prompt: int, answer: int, chunk: int
) -> None:
    method, length = (
        method_of(name.split()[0], **data.draw(hyper_parameters(name))),
        prompt + answer,
    )
    encodings = [_encoding(method, prompt, query) for query in (0, *range(prompt, length))]
    starts = [*range(0, prompt, chunk), *range(prompt, length)]
    (q, k, v), begun = _inputs(length), [encodings[max(0, start - prompt + 1)] for start in starts]
    for start, stop, encoding in zip(starts, [*starts[1:], length], begun, strict=True):
        chunk_inputs = (q[:, :, start:stop], k[:, :, :stop], v[:, :, :stop])
        ours = BACKENDS[backend](*chunk_inputs, encoding, scale=0.35, start=start)
        oracle = BACKENDS["dense"](
            *(x.double() for x in chunk_inputs), encoding, scale=0.35, start=start
        )
        torch.testing.assert_close(ours.double(), oracle, atol=5e-5, rtol=0)


@pytest.mark.parametrize("backend", ["blockwise", "dense"])
@pytest.mark.parametrize("name", INDEX)
@EXAMPLES
@given(length=st.integers(1, 100), factor=st.floats(0.5, 2))
def test_an_attention_factor_multiplies_logits_by_its_square(
    backend: str, name: str, length: int, factor: float
) -> None:
    plain, sharper = (
        method_of(name, attention_factor=setting).encode(GEOMETRY, length)
        for setting in ("none", factor)
    )
    assert dataclasses.replace(sharper, attention_factor=lampe.AttentionFactor()) == plain
    ours = BACKENDS[backend](*_inputs(length), sharper, scale=0.35)
    torch.testing.assert_close(
        ours, BACKENDS[backend](*_inputs(length), plain, scale=0.35 * factor**2), atol=5e-5, rtol=0
    )


@pytest.mark.parametrize("curve", PUBLISHED_CURVES)
@EXAMPLES
@given(length=st.integers(1, 1_000_000), more=st.integers(0, 100_000))
def test_a_curve_rises_to_its_ceiling(curve: str, length: int, more: int) -> None:
    """Leave out the release's rule for short prompts, a constant."""
    sigmoid = dataclasses.replace(PUBLISHED_CURVES[curve], short_below=0)
    assert 0 <= sigmoid(length) <= sigmoid(length + more) <= sigmoid.ceiling
    assert PUBLISHED_CURVES[curve](length) in (sigmoid(length), PUBLISHED_CURVES[curve].short)


@pytest.mark.parametrize("curve", PUBLISHED_CURVES)
@EXAMPLES
@given(length=st.integers(1, 1_000_000), times=st.integers(1, 64))
def test_a_curve_in_units_of_a_window_is_the_same_curve(
    curve: str, length: int, times: int
) -> None:
    """Compare up to the floor of a position, which is ``times`` positions of the larger window."""
    published = PUBLISHED_CURVES[curve]
    larger = published.in_units_of(published.window * times)
    assert 0 <= larger(length * times) - published(length) * times < times + 1
    assert larger.in_units_of(published.window)(length) == pytest.approx(published(length), abs=1)
