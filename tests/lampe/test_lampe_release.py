"""LaMPE's release by its formulas: pairs that count twice, and rows of generated tokens.

Matrices are those of appendix A of the methods' specification; ``a|b`` is a pair in two regions.
"""

import dataclasses

import pytest
import torch
from transformers import LlamaForCausalLM

import lampe
from lampe.attention import BACKENDS
from lampe.errors import BadSetting
from lampe.methods import method_of
from lampe.methods.lampe_release import RELEASE_VARIANTS, Float32Floor, Release
from tests.lampe.tiny import llama, random_ids

SMALL = {"head_tokens": 4, "tail_tokens": 3, "mapping_length": 12}
FIXED = {"head_tokens": 3, "tail_tokens": 2, "mapping_length": 6, "variant": "reference-fixed"}
GEOMETRY = lampe.Geometry(window=64, head_dim=16)

THREE_REGIONS = """
0
1 0
2 1 0
3 2 1 0
4|3 3 2 1 0
3 4|3 3 2 1 0
4 4 4|4 3 2 1 0
4 4 4 4|3 3 2 1 0
5 5 5 4 4|4 3 2 1 0
5 5 5 4 4 4|4 3 2 1 0
5 5 5 4 4 4 4|3 3 2 1 0
6 6 6 5 5 5 4 4|4 3 2 1 0
6 6 6 5 5 5 4 4 4|3 3 2 1 0
7 7 7 6 6 6 5 5 4 4|4 3 2 1 0
7 7 7 6 6 6 5 5 4 4 4|4 3 2 1 0
7 7 7 6 6 6 5 5 4 4 4 4|3 3 2 1 0
8 8 8 7 7 7 6 6 5 5 5 4 4|4 3 2 1 0
8 8 8 7 7 7 6 6 5 5 5 4 4 4|3 3 2 1 0
8 8 8 7 7 7 6 6 5 5 5 4 4 3 4|3 3 2 1 0
9 9 9 8 8 8 7 7 6 6 6 5 5 4 4 4|4 3 2 1 0
9 9 9 8 8 8 7 7 6 6 6 5 5 4 4 4 4|3 3 2 1 0
10 10 10 9 9 9 8 8 7 7 7 6 6 5 5 5 4 4|4 3 2 1 0
10 10 10 9 9 9 8 8 7 7 7 6 6 5 5 5 4 4 4|4 3 2 1 0
10 10 10 9 9 9 8 8 7 7 7 6 6 5 5 5 4 4 4 4|3 3 2 1 0
11 11 11 10 10 10 9 9 8 8 8 7 7 6 6 6 5 5 5 4 4|4 3 2 1 0
11 11 11 10 10 10 9 9 8 8 8 7 7 6 6 6 5 5 5 4 4 4|3 3 2 1 0
12 12 12 11 11 11 10 10 9 9 9 8 8 7 7 7 6 6 6 5 5 4 4|4 3 2 1 0
12|13 12 12 11 11 11 10 10 9 9 9 8 8 7 7 7 6 6 6 5 5 4 4 4|4 3 2 1 0
14 12|13 12 11 11 11 10 10 9 9 9 8 8 7 7 7 6 6 6 5 5 4 4 4 4|3 3 2 1 0
15 14 13|13 12 12 12 11 11 10 10 10 9 9 8 8 8 7 7 7 6 6 5 5 5 4 4|4 3 2 1 0
16 15 14 12|13 12 12 11 11 10 10 10 9 9 8 8 8 7 7 7 6 6 5 5 5 4 4 4|3 3 2 1 0
17 16 15 14 13|13 13 12 12 11 11 11 10 10 9 9 9 8 8 8 7 7 6 6 6 5 5 4 4|4 3 2 1 0
"""

FIXED_ROWS = """
0
1 0
2 1 0
3 2 1 0
2 3 2 1 0
3 3 3 2 1 0
3 3 3 3 2 1 0
3 3 3 2 3 2 1 0
4 4 4 3 3 3 2 1 0
4 4 4 3 3 2 3 2 1 0
5 5 5 4 4 3 3 3 2 1 0
5 5 5 4 4 3 3 3 3 2 1 0
5 5 5 4 4 3 3 3 2 3 2 1 0
6 6 6 5 5 4 4 4 3 3 3 2 1 0
7 6 6 5 5 4 4 4 3 3 2 3 2 1 0
8 7 7 6 6 5 5 5 4 4 3 3 3 2 1 0
"""

DRIFTING = {
    1: "18 17 16 15 14 13 12 12 11 11 11 10 10 9 9 9 8 8 8 7 7 6 6 6 5 5 4 4 4 3 2 1 0",
    2: "19 18 17 16 15 14 13 12 11 11 11 10 10 9 9 9 8 8 8 7 7 6 6 6 5 5 4 4 4 3 3 2 1 0",
    4: "21 20 19 18 17 16 15 14 13 11 11 10 10 9 9 9 8 8 8 7 7 6 6 6 5 5 4 4 4 3 3 2 3 2 1 0",
}
TWO_REGIONS_FIRST = (
    "14 14 14 13 13 13 12 12 11 11 11 10 10 10 9 9 8 8 8 7 7 7 6 6 5 5 5 4 4 3 2 1 0"
)
FIXED_ANSWERS = {
    1: "9 8 7 6 6 5 5 5 4 4 3 3 3 3 2 1 0",
    5: "13 12 11 10 9 8 7 7 6 6 5 5 5 4 4 3 3 3 2 1 0",
}


def _row(plan: lampe.PositionPlan, query: int) -> str:
    """Return the positions of a query at each key, ``a|b`` where two regions own the pair."""
    i, keys = torch.tensor([query]), torch.arange(query + 1)
    cells: list[list[str]] = [[] for _ in range(query + 1)]
    for region in plan:
        positions = region.relative(i, keys)
        for key in region.owns(i, keys).nonzero()[:, -1].tolist():
            cells[key].append(f"{float(positions[key]):g}")
    return " ".join("|".join(cell) for cell in cells)


def _matrix(plan: lampe.PositionPlan, length: int) -> list[str]:
    return [_row(plan, query) for query in range(length)]


def test_three_regions_count_two_diagonals_twice() -> None:
    plan = method_of("lampe", variant="reference", **SMALL).encode(GEOMETRY, 32).plan
    assert _matrix(plan, 32) == THREE_REGIONS.strip().splitlines()
    assert plan.coverage_fault() is None
    cells = " ".join(_matrix(plan, 32)).split()
    assert (len(cells), sum("|" in cell for cell in cells)) == (528, 33)


def test_constants_of_the_release() -> None:
    release = Release(32, 4, 3, 12)
    assert (release.run_end, release.head_offset, release.tail_offset) == (5, 2, 14)


@pytest.mark.parametrize(
    ("head", "tail", "length", "last", "expected", "largest"),
    [
        (1024, 200, 8192, 1036, (205, 894, 6082), 2109),
        (1024, 200, 16384, 1993, (205, 899, 13311), 3072),
        (1024, 200, 32768, 4501, (203, 883, 27208), 5559),
        (512, 200, 32768, 4501, (203, 441, 27650), 5117),
        (512, 200, 25600, 2061, (211, 470, 22874), 2725),
        (2048, 200, 16384, 7898, (201, 1060, 7321), 9062),
        (8192, 1024, 131072, 78864, (1025, 3262, 48537), 82534),
    ],
)
def test_constants_at_real_sizes(
    head: int, tail: int, length: int, last: int, expected: tuple[int, int, int], largest: float
) -> None:
    release = Release(length, head, tail, last)
    assert (release.run_end, release.head_offset, release.tail_offset) == expected
    assert release.three_regions().largest(length) == largest


def test_without_the_second_count_every_pair_is_covered_once() -> None:
    for variant in ("reference-nodup", "sw-map-nodup", "reference-fixed"):
        plan = method_of("lampe", variant=variant, **SMALL).encode(GEOMETRY, 32).plan
        assert not plan.overlapping
        assert plan.coverage_fault() is None
        assert "|" not in " ".join(_matrix(plan, 32))


def test_two_regions() -> None:
    method = method_of("lampe", variant="sw-map", **SMALL)
    plan = method.encode(GEOMETRY, 32).plan
    assert plan.largest(32) == 14
    assert sum("|" in cell for cell in " ".join(_matrix(plan, 32)).split()) == 28
    answer = method.decode_plan(GEOMETRY, 32, 33)
    assert answer is not None
    assert _row(answer, 32) == TWO_REGIONS_FIRST


@pytest.mark.parametrize("generated", DRIFTING)
def test_answers_of_three_regions_drift(generated: int) -> None:
    answer = method_of("lampe", variant="reference", **SMALL).decode_plan(
        GEOMETRY, 32, 32 + generated
    )
    assert answer is not None
    assert _row(answer, 31 + generated) == DRIFTING[generated]


def test_the_repaired_release() -> None:
    method = method_of("lampe", **FIXED)
    plan = method.encode(GEOMETRY, 16).plan
    assert _matrix(plan, 16) == FIXED_ROWS.strip().splitlines()
    for generated, row in FIXED_ANSWERS.items():
        assert method.decode_plan(GEOMETRY, 16, 16 + generated) is None
        assert _row(plan, 15 + generated) == row


def test_floors_are_those_of_float32() -> None:
    """Map the last token of (48, 40) and (200, 48) one lower than the true floor."""
    for length, last in ((48, 40), (200, 48)):
        index = torch.tensor(length - 1)
        assert int(Float32Floor(last=last, span=length - 1)(index)) == last - 1
        assert (
            int(
                Release(length, 4, 3, last, variant=RELEASE_VARIANTS["reference-fixed"]).ids(
                    length
                )(index)
            )
            == last
        )


def test_short_prompts_keep_true_distances() -> None:
    assert (
        method_of("lampe", variant="reference", **SMALL).encode(GEOMETRY, 7).plan
        == lampe.IDENTITY_PLAN
    )
    assert (
        method_of("lampe", variant="sw-map", **SMALL).encode(GEOMETRY, 4).plan
        == lampe.IDENTITY_PLAN
    )


@pytest.mark.parametrize(
    ("variant", "length", "stop", "message"),
    [
        ("reference", 32, 37, "head_tokens=4"),
        ("sw-map", 4, 5, "4 tokens"),
    ],
)
def test_where_the_release_breaks_we_refuse(
    variant: str, length: int, stop: int, message: str
) -> None:
    with pytest.raises(BadSetting, match=message):
        method_of("lampe", variant=variant, **SMALL).decode_plan(GEOMETRY, length, stop)


@pytest.mark.parametrize(
    "settings",
    [
        {"head_tokens": 0},
        {"tail_tokens": 0},
        {"tail_tokens": 40},
        {"head_tokens": 15, "tail_tokens": 20},
    ],
)
def test_settings_that_the_release_cannot_take_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(BadSetting):
        method_of("lampe", variant="reference", **(SMALL | settings)).encode(GEOMETRY, 32)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lampe", {**SMALL, "variant": "reference"}),
        ("lampe", {**SMALL, "variant": "sw-map"}),
        ("string", {"shift": 20, "local": 4, "variant": "reference"}),
        ("chunkllama", {"variant": "reference"}),
    ],
)
def test_pairs_count_as_in_the_oracle(name: str, settings: dict[str, int | str]) -> None:
    method = method_of(name, **settings)
    q, k, v = torch.randn(1, 4, 150, 16), torch.randn(1, 2, 150, 16), torch.randn(1, 2, 150, 16)
    encoding = method.encode(GEOMETRY, 150)
    torch.testing.assert_close(
        BACKENDS["blockwise"](q, k, v, encoding, scale=0.25),
        BACKENDS["dense"](q, k, v, encoding, scale=0.25),
        atol=2e-5,
        rtol=0,
    )
    answer = dataclasses.replace(
        encoding, plan=method.decode_plan(GEOMETRY, 150, 152) or encoding.plan
    )
    q, k, v = torch.randn(1, 4, 1, 16), torch.randn(1, 2, 152, 16), torch.randn(1, 2, 152, 16)
    torch.testing.assert_close(
        BACKENDS["blockwise"](q, k, v, answer, scale=0.25, start=151),
        BACKENDS["dense"](q, k, v, answer, scale=0.25, start=151),
        atol=2e-5,
        rtol=0,
    )


@pytest.mark.parametrize(("length", "stop"), [(10, 12), (20, 22)])
def test_string_refuses_what_its_release_cannot_read(length: int, stop: int) -> None:
    with pytest.raises(BadSetting, match="shift=20"):
        method_of("string", shift=20, local=4, variant="reference").encode(GEOMETRY, length)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::lampe.PositionWarning")
def test_the_answer_of_a_release_is_rotated_by_the_prompts_rope() -> None:
    """Keep the prompt's frequencies in an answer, although LongRoPE's change at 64 tokens.

    In an answer STRING's release has every pair once, as "exact" has. With one layer, cached keys
    and values depend on their token alone, so both answers must be equal.
    """
    factors = {
        "short_factor": [1.0] * 8,
        "long_factor": [float(1 + pair) for pair in range(8)],
        "factor": 4.0,
    }
    config = llama(layers=1).config
    config.rope_parameters |= {
        "rope_type": "longrope",
        "original_max_position_embeddings": 64,
        **factors,
    }
    model, ids, answers = LlamaForCausalLM(config).eval(), random_ids(75), []
    for variant in ("exact", "reference"):
        with lampe.patch(model, "string", shift=20, local=5, variant=variant):
            cache = model(ids[:, :60], use_cache=True).past_key_values
            steps = [
                model(ids[:, at : at + 1], past_key_values=cache).logits for at in range(60, 75)
            ]
        answers.append(torch.cat(steps))
    torch.testing.assert_close(*answers, atol=1e-4, rtol=0)


def test_chunkllamas_cached_keys_keep_their_attention_factor() -> None:
    steady, growing = (
        method_of("chunkllama", variant=variant).encode(GEOMETRY, 100)
        for variant in ("steady", "reference")
    )
    index = torch.tensor([0, 99, 100, 199])
    assert steady.attention_factor.per_token_factor(index) is None
    factors = growing.attention_factor.per_token_factor(index)
    assert factors is not None
    assert factors[:2].tolist() == [1, 1]
    assert factors[3] > factors[2] > 1
    assert growing.attention_factor.factor == steady.attention_factor.factor
