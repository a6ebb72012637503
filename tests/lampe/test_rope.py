"""Frequencies against golden numbers for D=128, base 10000 and window 4096."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

import lampe
from lampe.encoding import NO_LIMIT
from lampe.errors import BadSetting
from lampe.methods import method_of
from lampe.rope import rope_from
from tests.lampe.tiny import WINDOW, llama, random_ids

LLAMA2 = lampe.Geometry(window=4096, head_dim=128)
PAIRS = (0, 1, 16, 20, 21, 32, 45, 46, 63)
GOLDEN = {
    ("original", None): (
        "1 8.659643234e-01 1e-01 5.623413252e-02 4.869675252e-02 1e-02 "
        "1.539926526e-03 1.333521432e-03 1.154781985e-04"
    ),
    ("pi", 4): (
        "2.5e-01 2.164910808e-01 2.5e-02 1.405853313e-02 1.217418813e-02 2.5e-03 "
        "3.849816315e-04 3.333803580e-04 2.886954962e-05"
    ),
    ("ntk", 4): (
        "1 8.471171852e-01 7.032275479e-02 3.621344522e-02 3.067703178e-02 4.945289841e-03 "
        "5.720805059e-04 4.846192278e-04 2.886954962e-05"
    ),
    ("dynamic-ntk", 4): (
        "1 8.314159647e-01 5.213072343e-02 2.490962501e-02 2.071025991e-02 2.717612326e-03 "
        "2.465052521e-04 2.049484020e-04 8.882938344e-06"
    ),
    ("yarn", 4): (
        "1 8.659643234e-01 1e-01 5.623413252e-02 4.729203850e-02 6.538461538e-03 "
        "4.294025890e-04 3.333803580e-04 2.886954962e-05"
    ),
}


LLAMA3 = lampe.Geometry(window=8192, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
QWEN2 = lampe.Geometry(window=32768, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
UNIFORM, PROGRESSIVE = {"spread": "uniform"}, {"spread": "progressive"}
HARD = {"mode": "hard", "clip": 5}
OF_2026: list[tuple[lampe.Geometry, str, dict[str, Any], dict[int, float]]] = [
    (LLAMA2, "mrrope", {"factor": 4, **UNIFORM},
     {20: 5.623413252e-02, 21: 4.616829608e-02, 33: 4.329821617e-03, 45: 4.060655650e-04,
      46: 3.333803580e-04, 63: 2.886954962e-05}),
    (LLAMA2, "mrrope", {"factor": 4, **PROGRESSIVE},
     {20: 5.623413252e-02, 21: 4.850480125e-02, 33: 6.045195809e-03, 45: 4.266159073e-04,
      46: 3.333803580e-04, 63: 2.886954962e-05}),
    (LLAMA3, "mrrope", {"factor": 16, **UNIFORM},
     {19: 1.726981530e-02, 26: 1.312649381e-03, 34: 6.904508836e-05}),
    (LLAMA3, "mrrope", {"factor": 16, **PROGRESSIVE},
     {19: 1.996403004e-02, 26: 2.520409378e-03, 34: 7.981661614e-05}),
    (QWEN2, "mrrope", {"factor": 4, **UNIFORM}, {31: 6.462903199e-04}),
    (QWEN2, "mrrope", {"factor": 4, **PROGRESSIVE}, {31: 8.955479118e-04}),
    (LLAMA2, "cope", {},
     {43: 2.053525026e-03, 44: 1.778279410e-03, 50: 5.800237330e-04, 54: 1.934365411e-04,
      60: 1.071646733e-05, 62: 9.093747110e-07, 63: 0}),
    (LLAMA2, "cope", HARD, {58: 2.371373706e-04, 59: 0, 63: 0}),
    (LLAMA2, "cope", {"mode": "hard", "clip": 99}, {0: 0, 63: 0}),
    (LLAMA2, "resonance", {},
     {pair: math.tau / wavelength for pair, wavelength in
      {0: 6, 1: 7, 2: 8, 8: 20, 16: 63, 32: 628, 63: 54410}.items()}),
]  # fmt: skip


@pytest.mark.parametrize(("geometry", "name", "settings", "golden"), OF_2026)
def test_frequencies_of_newer_methods_equal_the_golden_table(
    geometry: lampe.Geometry, name: str, settings: dict[str, Any], golden: dict[int, float]
) -> None:
    inv_freq = method_of(name, **settings).encode(geometry, 16384).rope.inv_freq
    assert [inv_freq[pair] for pair in golden] == pytest.approx(list(golden.values()), rel=1e-6)


@pytest.mark.parametrize(
    ("factor", "interpolated"),
    [
        (2, [*range(2, 7), *range(8, 11), *range(15, 20), 28, *range(30, 45), *range(46, 64)]),
        (4, [1, 2, 4, 8, 10, 21, 25, 28, *range(30, 64)]),
    ],
)
def test_pairs_that_dprope_interpolates(factor: int, interpolated: list[int]) -> None:
    own = LLAMA2.rope(16384).inv_freq
    changed = method_of("dprope", factor=factor).encode(LLAMA2, 16384).rope.inv_freq
    assert [pair for pair in range(64) if changed[pair] != own[pair]] == interpolated
    assert all(changed[pair] == own[pair] / factor for pair in interpolated)


@pytest.mark.parametrize("name", ["cope", "resonance"])
def test_frequencies_underneath_may_be_yarns_with_its_factor(name: str) -> None:
    yarn = method_of("yarn", factor=4).encode(LLAMA2, 16384).rope
    rope = method_of(name, factor=4).encode(LLAMA2, 16384).rope
    assert rope.scaling == yarn.scaling
    assert rope.inv_freq[:40] == pytest.approx(yarn.inv_freq[:40], rel=0.05)
    assert method_of(name).encode(LLAMA2, 16384).rope.scaling == 1


@pytest.mark.parametrize("name", ["mrrope", "cope", "resonance", "dprope"])
def test_frequencies_of_a_model_that_rotates_in_the_opposite_direction(name: str) -> None:
    opposite = dataclasses.replace(LLAMA2, sense=-1)
    ropes = [method_of(name).encode(geometry, 16384).rope for geometry in (LLAMA2, opposite)]
    assert ropes[1].inv_freq == tuple(-frequency for frequency in ropes[0].inv_freq)


def test_a_ramp_without_pairs_is_a_step() -> None:
    """Take a window so short that even the fastest pair does not turn once."""
    short = lampe.Geometry(window=4, head_dim=16)
    own = short.rope(16).inv_freq
    inv_freq = method_of("mrrope", factor=4).encode(short, 16).rope.inv_freq
    assert inv_freq == (own[0], *(frequency / 4 for frequency in own[1:]))
    alike = dataclasses.replace(short, rope_parameters={"rope_type": "default", "rope_theta": 1.0})
    with pytest.raises(BadSetting, match="rope_theta=1"):
        method_of("mrrope", factor=4).encode(alike, 16)


@pytest.mark.parametrize(("name", "factor"), GOLDEN)
def test_frequencies_equal_the_golden_table(name: str, factor: int | None) -> None:
    method = method_of(name, factor=factor) if factor else method_of(name)
    rope = method.encode(LLAMA2, 16384).rope
    golden = [float(number) for number in GOLDEN[name, factor].split()]
    assert [rope.inv_freq[pair] for pair in PAIRS] == pytest.approx(golden, rel=1e-6)


def test_yarn_without_truncation() -> None:
    rope = method_of("yarn", factor=4, truncate=False).encode(LLAMA2, 16384).rope
    assert [rope.inv_freq[pair] for pair in (21, 32, 45)] == pytest.approx(
        [4.861255519e-02, 6.556971521e-03, 3.862708049e-04], rel=1e-6
    )


@pytest.mark.parametrize(
    ("factor", "scaling"), [(1.5, 1.040547), (2, 1.069315), (4, 1.138629436), (32, 1.346574)]
)
def test_yarn_scales_cos_and_sin(factor: float, scaling: float) -> None:
    assert method_of("yarn", factor=factor).encode(LLAMA2, 16384).rope.scaling == pytest.approx(
        scaling, rel=1e-6
    )


@pytest.mark.parametrize("name", ["pi", "ntk", "dynamic-ntk", "yarn", "mrrope", "dprope"])
@pytest.mark.parametrize("length", [1, 4096])
def test_a_prompt_that_fits_keeps_the_models_own_rope(name: str, length: int) -> None:
    assert method_of(name).encode(LLAMA2, length).rope == LLAMA2.rope(length)


def test_the_factor_follows_the_prompt() -> None:
    assert method_of("pi").encode(LLAMA2, 10240).rope.inv_freq[0] == pytest.approx(1 / 2.5)
    assert (
        method_of("yarn").encode(LLAMA2, 16384).rope
        == method_of("yarn", factor=4).encode(LLAMA2, 16384).rope
    )


@pytest.mark.parametrize("name", ["pi", "ntk", "yarn", "mrrope", "dprope"])
def test_frequency_methods_stay_within_the_window(name: str) -> None:
    model_rope = LLAMA2.rope(16384)
    assert method_of("original").encode(LLAMA2, 16384).largest_position(16384, model_rope) == 16383
    assert method_of(name).encode(LLAMA2, 16384).largest_position(
        16384, model_rope
    ) == pytest.approx(16383 / 4)


@dataclass(frozen=True, kw_only=True)
class PartialFrequencies(lampe.Method):
    """Method as p-RoPE: only the fastest pairs rotate, the others have frequency 0."""

    name: ClassVar[str] = ""
    pairs: int

    def rope(self, geometry: lampe.Geometry, length: int) -> lampe.Rope:
        rope = geometry.rope(length)
        rotating = rope.inv_freq[: self.pairs]
        still = (0.0,) * (len(rope.inv_freq) - self.pairs)
        return dataclasses.replace(rope, inv_freq=rotating + still)


def test_a_frequency_of_zero_does_not_hide_a_position_beyond_the_window() -> None:
    """Measure on the slowest pair that rotates under both ropes, whichever has the zeros."""
    model_rope = LLAMA2.rope(16384)
    encoding = PartialFrequencies(pairs=48).encode(LLAMA2, 16384)
    assert encoding.position_scale(model_rope) == 1
    assert encoding.largest_position(16384, model_rope) == 16383
    assert encoding.length_within_window(4096, 100, model_rope) == 4097
    assert lampe.Encoding(model_rope).largest_position(16384, encoding.rope) == 16383
    fastest_slowed = (0.25, *encoding.rope.inv_freq[1:])
    slowed = dataclasses.replace(encoding.rope, inv_freq=fastest_slowed)
    assert lampe.Encoding(slowed).position_scale(model_rope) == 1  # a fast pair does not decide


def test_frequencies_of_zero_and_in_no_order_have_a_reach() -> None:
    """Measure CoPE on the slowest pair that it leaves, and DPRoPE on the model's slowest one."""
    model_rope = LLAMA2.rope(16384)
    hard = method_of("cope", mode="hard").encode(LLAMA2, 16384)
    assert hard.largest_position(16384, model_rope) == 16383
    assert hard.length_within_window(4096, 100, model_rope) == 4097
    soft = method_of("cope").encode(LLAMA2, 16384)
    assert soft.largest_position(16384, model_rope) == 16383
    assert soft.rope.clipped == 19
    all_clipped = method_of("cope", mode="hard", clip=64).encode(LLAMA2, 16384)
    assert all_clipped.largest_position(16384, model_rope) == 0
    uneven = method_of("dprope", factor=2).encode(LLAMA2, 16384)
    assert list(uneven.rope.inv_freq) != sorted(uneven.rope.inv_freq, reverse=True)
    assert uneven.largest_position(16384, model_rope) == pytest.approx(16383 / 2)


def test_no_rotating_pair_means_no_position() -> None:
    encoding = PartialFrequencies(pairs=0).encode(LLAMA2, 16384)
    assert encoding.largest_position(16384, LLAMA2.rope(16384)) == 0
    assert encoding.length_within_window(4096, 100, LLAMA2.rope(100)) == NO_LIMIT


def test_a_method_with_zero_frequencies_warns_beyond_the_window() -> None:
    model = llama()
    with (
        lampe.patch(model, PartialFrequencies(pairs=5)),
        pytest.warns(lampe.PositionWarning),
    ):
        model(random_ids(WINDOW + 10))


def test_llama3_scaling_is_the_base_of_index_methods() -> None:
    parameters = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    llama31 = lampe.Geometry(window=131072, rope_parameters=parameters)
    rope = method_of("lampe").encode(llama31, 200_000).rope
    nearly = method_of("ntk", factor=1.0001).encode(llama31, 200_000).rope
    assert nearly.inv_freq == pytest.approx(rope.inv_freq, rel=1e-3)
    golden = [8.146172339e-01, 3.760603093e-02, 5.248461610e-04, 1.229763868e-05, 3.068925989e-07]
    assert [rope.inv_freq[pair] for pair in (1, 16, 32, 45, 63)] == pytest.approx(golden, rel=1e-6)


def test_an_unknown_rope_type_is_named() -> None:
    odd = lampe.Geometry(window=64, rope_parameters={"rope_type": "yam", "rope_theta": 1e4})
    with pytest.raises(lampe.UnknownName, match="did you mean 'yarn'"):
        odd.rope(64)


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("yarn", {"factor": -3.0}, "factor=-3.0"),
        ("dynamic", {"factor": 0.0}, "factor=0.0"),
        ("llama3", {"low_freq_factor": 4.0, "high_freq_factor": 1.0}, "low_freq_factor=4.0"),
        ("llama3", {"low_freq_factor": "x"}, "low_freq_factor"),
        ("yarn", {"beta_fast": 1.0, "beta_slow": 32.0}, "beta_slow=32.0"),
    ],
)
def test_parameters_of_no_rope_are_refused(
    kind: str, changes: dict[str, object], named: str
) -> None:
    parameters = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0} | {
        "original_max_position_embeddings": 64,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }
    with pytest.raises(BadSetting, match=named):
        rope_from(parameters | changes, dim=16, max_position_embeddings=256, length=512)
