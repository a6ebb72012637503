"""Scaled sigmoid against the table of the authors' release, and its mapping lengths."""

import math

import pytest

import lampe
from lampe.mapping_length import PUBLISHED_CURVES, effective_mapping_length
from lampe.methods import method_of

LENGTHS = (4096, 8191, 8192, 12288, 16384, 25600, 32768, 65536, 131072)
TABLE = {
    "llama2": (1536, 1536, 1283, 1500, 1702, 2061, 2239, 2473, 2489),
    "llama3": (1536, 1536, 1036, 1461, 1993, 3441, 4501, 6129, 6204),
    "mistral": (1536, 1536, 4104, 5788, 7898, 13631, 17829, 24280, 24575),
    "llama3.1": (5672, 6728, 6728, 7960, 9389, 13433, 17468, 44548, 78864),
}


@pytest.mark.parametrize("curve", TABLE)
def test_published_curves(curve: str) -> None:
    assert tuple(PUBLISHED_CURVES[curve](length) for length in LENGTHS) == TABLE[curve]


@pytest.mark.parametrize(
    ("length", "last", "head", "run", "mapping"),
    [(8192, 1036, 1024, 205, 2110), (32768, 4501, 1024, 203, 5560), (65536, 6129, 1024, 203, 7242)],
)
def test_effective_length_is_what_the_release_reaches(
    length: int, last: int, head: int, run: int, mapping: int
) -> None:
    """Use ``run``, the tail as the release rounds it, so that both count the same positions."""
    assert (
        effective_mapping_length(last, length=length, head_tokens=head, tail_tokens=run) == mapping
    )


def test_a_curve_carries_over_in_units_of_the_window() -> None:
    small = PUBLISHED_CURVES["llama3"].in_units_of(256)
    for length in (256, 512, 1024, 4096):
        assert small(length) == pytest.approx(PUBLISHED_CURVES["llama3"](32 * length) / 32, abs=1)


def test_default_mapping_length_is_llama3s_at_llama3s_window() -> None:
    llama3 = lampe.Geometry(window=8192)
    default = method_of("lampe").resolved(llama3, 32768)
    published = method_of("lampe", curve="llama3").resolved(llama3, 32768)
    assert default.settings["mapping_length"] == published.settings["mapping_length"]
    assert default.settings["mapping_length"] == 5560


@pytest.mark.parametrize("length", [1, 30, 41, 42, 255, 256, 257, 1000, 100_000])
def test_mapping_length_stays_between_its_ends_and_the_window(length: int) -> None:
    method = method_of("lampe").resolved(lampe.Geometry(window=256), length)
    settings = method.settings
    assert settings["head_tokens"] + settings["tail_tokens"] < settings["mapping_length"] < 256


@pytest.mark.parametrize("length", [1230, 1300, 1500])
def test_a_prompt_that_the_curve_reaches_keeps_true_distances(length: int) -> None:
    llama3 = lampe.Geometry(window=8192)
    assert method_of("lampe", curve="llama3").encode(llama3, length).plan == lampe.IDENTITY_PLAN


def test_a_fitted_curve_gives_the_mapping_length_itself() -> None:
    fitted = {"slope": 0.002, "intercept": -1.0, "ceiling": 240.0}
    small = lampe.Geometry(window=256)
    for length in (300, 512, 1024, 4096):
        expected = int(240 / (1 + math.exp(1 - 0.002 * length)))
        assert (
            method_of("lampe", curve="llama3", **fitted).resolved(small, length).mapping_length
            == expected
        )
    assert (
        method_of("lampe", **fitted | {"ceiling": 900.0}).resolved(small, 4096).mapping_length
        == 255
    )
    assert (
        method_of("lampe", **fitted | {"intercept": -9e9}).resolved(small, 4096).mapping_length
        == 32 + 8 + 1
    )
