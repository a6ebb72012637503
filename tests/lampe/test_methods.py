"""Methods as dataclasses: settings, errors, composition, attention_factor."""

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

import lampe
from lampe.attention_factor import STRING_FACTOR
from lampe.methods import METHODS, method_of, register_method
from lampe.methods.method import OTHERWISE

SMALL = lampe.Geometry(window=256, head_dim=64)
INDEX = [name for name, method in METHODS.items() if issubclass(method, lampe.IndexMethod)]


def test_registered_methods() -> None:
    assert set(METHODS) == {
        "original", "pi", "ntk", "dynamic-ntk", "yarn", "selfextend", "dca", "chunkllama",
        "rerope", "leaky-rerope", "string", "lampe", "mrrope", "cope", "resonance", "dprope",
        "self", "adagrope", "dpe", "gali", "streaming-llm", "lm-infinite",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("original", "unchanged"), ("pi", "frequencies"), ("dynamic-ntk", "frequencies"),
        ("lampe", "positions"), ("rerope", "positions"), ("lampe+yarn", "both"),
    ],
)  # fmt: skip
def test_a_method_is_of_the_kind_of_what_it_changes(name: str, kind: str) -> None:
    assert method_of(name).kind() == kind


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_frozen_value(name: str) -> None:
    assert method_of(name) == method_of(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method_of(name).factor = 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", METHODS)
def test_resolved_fills_in_every_hyper_parameter(name: str) -> None:
    optional = {"attention_factor", "logn_base", "curve", "slope", "intercept", "ceiling"}
    settings = method_of(name).resolved(SMALL, 1024).settings
    assert not [key for key, value in settings.items() if value is None and key not in optional]


@pytest.mark.parametrize("name", METHODS)
def test_every_derived_setting_has_a_rule(name: str) -> None:
    rules = METHODS[name].default_rules()
    settings = method_of(name).settings
    assert set(rules) <= set(settings)
    resolved = method_of(name).resolved(lampe.Geometry(window=4096), 16384).settings
    derived = {key for key, value in settings.items() if value is None and resolved[key]}
    assert derived <= set(rules)
    for key, rule in rules.items():
        assert METHODS[name].default_rule(key)
        if not isinstance(rule, str):
            assert set(rule) <= {*settings, OTHERWISE}


def test_the_rule_of_a_setting_follows_the_settings_it_depends_on() -> None:
    rules = {
        METHODS["lampe"].default_rule("mapping_length", settings)
        for settings in ((), ("curve",), ("slope", "curve"))
    }
    assert len(rules) == 3


@pytest.mark.parametrize("name", METHODS)
def test_a_setting_is_derived_by_itself_as_in_the_resolved_method(name: str) -> None:
    resolved = method_of(name).resolved(SMALL, 1024)
    for key, value in resolved.settings.items():
        assert resolved.value_of(key, SMALL, 1024) == value


def test_registering_refuses_a_name_that_exists() -> None:
    register_method(METHODS["pi"])  # the class itself is no conflict
    other = type("Other", (lampe.Method,), {"name": "pi"})
    with pytest.raises(lampe.BadSetting, match="'pi'"):
        register_method(other)
    assert METHODS["pi"] is not other


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lampe:head_tokens=3", {}, "lampe:head_tokens=3"),
        ("lamp", {}, "'lamp' .*'lampe'"),
        ("yam", {}, "'yam' .*'yarn'"),
        (
            "lampe",
            {"maping_length": 3},
            "'maping_length' .*'mapping_length'",
        ),
        ("lampe", {"head_tokens": "many"}, "head_tokens .*int.*'many'"),
        ("lampe", {"head_tokens": True}, "head_tokens .*int.*True"),
        ("yarn", {"truncate": 1}, "truncate .*bool.*1"),
        (
            "lampe",
            {"mapping_length": 40, "head_tokens": 32, "tail_tokens": 8},
            "mapping_length=40 .*head_tokens=32 .*tail_tokens=8",
        ),
        (
            "lampe",
            {"curve": "llama4"},
            "curve of lampe 'llama4' .* 'llama3'|'llama2'",
        ),
        (
            "lampe",
            {"slope": 0.01, "ceiling": 200.0},
            "slope, intercept and ceiling",
        ),
        (
            "lampe",
            {"slope": math.nan, "intercept": 1.0, "ceiling": 200.0},
            "slope=nan",
        ),
        (
            "lampe",
            {"slope": math.inf, "intercept": 1.0, "ceiling": 200.0},
            "slope=inf",
        ),
        (
            "lampe",
            {"slope": -0.1, "intercept": 1.0, "ceiling": 200.0},
            "slope=-0.1",
        ),
        (
            "lampe",
            {"slope": 0.1, "intercept": -math.inf, "ceiling": 200.0},
            "intercept=-inf",
        ),
        (
            "lampe",
            {"slope": 0.1, "intercept": 1.0, "ceiling": math.inf},
            "ceiling=inf",
        ),
        ("dca", {"attention_factor_rate": 0.1}, "attention_factor_rate=0.1"),
        (
            "dca",
            {"attention_factor_rate": -2, "attention_factor": 1.0},
            "attention_factor_rate=-2",
        ),
        ("lampe", {"variant": "papr"}, "variant of lampe 'papr' .*'paper'"),
        ("pi", {"factor": -2}, "factor=-2"),
        ("pi", {"factor": 0}, "factor=0"),
        ("ntk", {"factor": math.nan}, "factor=nan"),
        ("rerope", {"window_size": 0}, "window_size=0"),
        ("lampe", {"mapping_length": 0}, "mapping_length=0"),
        ("dca", {"attention_factor": math.inf}, "attention_factor=inf"),
        ("lampe+dca", {}, r"lampe.dca"),
        ("yarn+pi", {}, r"yarn.pi"),
        ("lampe+", {}, "unknown method ''"),
        ("selfextend", {"window_size": 255}, "255 "),
        ("selfextend", {"shift": "whole"}, "unknown shift of selfextend 'whole'"),
        ("string", {"shift": 4, "local": 9}, "local=9 .*shift=4"),
        ("dca", {"chunk_size": 100, "cap": 50}, "cap=50 .*chunk_size=100"),
        ("chunkllama", {"local_window": 200}, "local_window=200 .*192"),
        (
            "dca",
            {"attention_factor": "warm"},
            "attention_factor='warm'.*released",
        ),
        ("dca", {"attention_factor": -1}, "attention_factor=-1"),
        ("dca", {"attention_factor": "auto"}, "attention_factor='auto'"),
        ("LaMPE", {}, "unknown method 'LaMPE' .did you mean 'lampe'"),
        ("YARN", {}, "unknown method 'YARN' .did you mean 'yarn'"),
        ("lampe", {"Tail_Tokens": 8}, "'Tail_Tokens' .did you mean 'tail_tokens'"),
        ("lampe", {"head_tokens": 2**63}, "head_tokens .*64 bits"),
        ("chunkllama", {"variant": "flash"}, "variant of chunkllama 'flash'.*'flash-decoding'"),
        ("lampe+dca+yarn", {}, "dca.yarn"),
        ("lampe+yarn", {"factor": 2}, "setting of lampe.yarn 'factor' .*'yarn.factor'"),
        ("lampe+yarn", {"pi.factor": 2}, "setting of lampe.yarn 'pi.factor' .*'yarn.factor'"),
        ("lampe", {"yarn.factor": 2}, "setting of lampe 'yarn.factor'"),
        ("lampe+yarn", {"yarn.factor": "two"}, "yarn: factor must be of type .*'two'"),
        ("lampe+yarn", {"yarn.attention_factor": 0}, "yarn: attention_factor=0"),
        ("yarn", {"attention_factor": math.nan}, "yarn: attention_factor=nan"),
        ("dca", {"logn_base": 128}, "logn_base=128 .*attention_factor=released"),
        ("rerope", {"logn_base": 128, "attention_factor": 1.1}, "logn_base=128 .*factor=1.1"),
        ("rerope", {"logn_base": 1}, "logn_base=1 "),
        ("lampe", {"attention_factor_from": "windw"}, "attention_factor_from.*window"),
        ("mrrope", {"spread": "even"}, "spread of mrrope 'even'"),
        ("mrrope", {"beta_fast": 1}, "beta_fast=1 .*beta_slow=1.0"),
        ("mrrope", {"beta_slow": math.nan}, "beta_slow=nan"),
        ("mrrope", {"factor": 0}, "mrrope: factor=0"),
        ("mrrope", {"attention_factor": -1}, "mrrope: attention_factor=-1"),
        ("cope", {"clip": -1}, "clip=-1"),
        ("cope", {"mode": "firm"}, "mode of cope 'firm'"),
        ("cope", {"factor": -2}, "cope: factor=-2"),
        ("cope+yarn", {}, r"cope.yarn.*frequencies and frequencies"),
        ("resonance", {"factor": math.inf}, "resonance: factor=inf"),
        ("dprope", {"intervals": 0}, "intervals=0 .*65536"),
        ("dprope", {"factor": 1e9}, r"factor=1e.09 .*256 .*16777216"),
        ("dprope", {"factor": 1e-9}, r"factor=1e-09 .*256"),
        ("self", {"capacity": 1}, "capacity=1 .*65536"),
        ("self", {"capacity": 65537}, "capacity=65537 .*65536"),
        ("self", {"rate": 0}, "self: rate=0"),
        ("self", {"rate": 1e-6}, "rate=1e-06 .*1024 tokens.*256"),
        ("self", {"window_size": 0}, "self: window_size=0"),
        ("self", {"window_size": 200}, "200 .*256"),
        ("self", {"first": 2}, "first=2"),
        ("self", {"decode": "fast"}, "decode of self 'fast'"),
        ("self", {"decode": "flash", "window_size": 1}, "window_size=1 .*decode=flash"),
        ("self+adagrope", {}, r"self.adagrope.*positions and positions"),
        ("adagrope", {"positions": 0}, "positions=0"),
        ("adagrope", {"ratio": 0.7}, "ratio=0.7"),
        ("adagrope", {"ratio": 0}, "ratio=0 "),
        ("streaming-llm", {"sinks": 0}, "sinks=0 "),
        ("streaming-llm", {"recent": 0}, "recent=0 "),
        ("streaming-llm", {"recent": 256}, "recent=256 .*256 tokens"),
        ("lm-infinite", {"sinks": 0}, "sinks=0 "),
        ("lm-infinite", {"local": 300}, "local=300 .*256 tokens"),
        ("lm-infinite", {"limit": -1}, "limit=-1 "),
        ("lampe+streaming-llm", {}, r"lampe.streaming-llm: .*frequencies"),
        ("lm-infinite+streaming-llm", {}, r"lm-infinite.streaming-llm: .*frequencies"),
        ("dpe", {"group_sizes": "2/4", "bands": "8/16"}, "bands=8/16 .*24 .*32"),
        ("dpe", {"group_sizes": "2/4", "bands": "8/8/16"}, "2/4 .*2 .*8/8/16 .*3"),
        ("dpe", {"group_sizes": "2/4/8"}, "3 group_sizes .*32 pairs"),
        ("dpe", {"group_sizes": "2/0"}, "group_sizes=2/0 .*1"),
        ("dpe", {"group_sizes": 0}, "group_sizes=0 .*1"),
        ("dpe", {"group_sizes": "2/-4"}, "group_sizes=2/-4"),
        ("dpe", {"group_sizes": "2;4"}, "group_sizes=2;4 .*2/8/2/8"),
        ("dpe", {"bands": "16/x"}, "bands=16/x"),
        ("dpe", {"group_sizes": 2.5}, "group_sizes .*2.5"),
        ("dpe", {"window_size": 256}, "window_size=256 .*256"),
        ("dpe", {"window_size": 0}, "window_size=0"),
        ("dpe", {"shift": "whole"}, "shift of dpe 'whole'"),
        ("gali", {"local_window": 256}, "local_window=256 .*256"),
        ("gali", {"local_window": 64, "window": 64}, "local_window=64 .*window=64"),
        ("gali", {"local_window": 0}, "local_window=0 .*1 "),
        ("gali", {"window": 0}, "window=0"),
        ("gali", {"chunk": 0}, "chunk=0"),
        ("gali", {"chunk": math.nan}, "chunk=nan"),
        ("gali", {"interpolate": 1}, "interpolate .*bool"),
        ("dpe+gali", {}, "dpe.gali"),
    ],
)
def test_a_bad_setting_is_one_clear_line(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(lampe.LampeError, match=message) as caught:
        method_of(name, **settings).encode(SMALL, 1024)
    assert "\n" not in str(caught.value)


def test_dpe_says_how_many_pairs_rotate_where_a_head_rotates_in_part() -> None:
    geometry = lampe.Geometry(window=256, head_dim=64, rotary_dim=16)
    with pytest.raises(lampe.BadSetting, match=r"64 .*16 .*8 pairs"):
        method_of("dpe", group_sizes="2/4").encode(geometry, 1024)
    encoding = method_of("dpe", group_sizes="2/4", bands="5/3").encode(geometry, 1024)
    assert encoding.plan.pair_stops == (5, 8)


@pytest.mark.parametrize("name", METHODS)
def test_methods_keep_the_rotating_pairs_of_a_proportional_rope_or_refuse_it(
    name: str,
) -> None:
    """Check Gemma 4's rope: a quarter of the pairs rotate, the others do not."""
    rope = {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}
    geometry = lampe.Geometry(window=256, head_dim=64, rope_parameters=rope)
    if name in ("yarn", "mrrope", "dynamic-ntk"):
        with pytest.raises(lampe.BadSetting, match=r"proportional.*\bpi\b.*lampe"):
            method_of(name).encode(geometry, 1024)
        return
    frequencies = method_of(name).encode(geometry, 1024).rope.inv_freq
    assert [frequency > 0 for frequency in frequencies] == [True] * 8 + [False] * 24


@pytest.mark.parametrize("name", INDEX)
@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("none", lampe.AttentionFactor()),
        (1.2, lampe.AttentionFactor(1.2)),
        ("logn", lampe.AttentionFactor(logn_base=256)),
        ("yarn", lampe.AttentionFactor(0.1 * math.log(4) + 1)),
    ],
)
def test_every_index_method_takes_an_attention_factor(
    name: str, setting: str | float, expected: lampe.AttentionFactor
) -> None:
    assert (
        method_of(name, attention_factor=setting).encode(SMALL, 1024).attention_factor == expected
    )


@pytest.mark.parametrize("name", INDEX)
def test_an_attention_factor_can_grow_with_the_length(name: str) -> None:
    method = method_of(name, attention_factor=1.1, attention_factor_rate=0.2)
    squares = [
        method.encode(SMALL, length).attention_factor.factor ** 2
        for length in (64, 256, 1024, 4096)
    ]
    assert squares == pytest.approx(
        [1.21, 1.21, 1.21 + 0.2 * math.log(4), 1.21 + 0.2 * math.log(16)]
    )


@pytest.mark.parametrize("name", INDEX)
@pytest.mark.parametrize(
    "factor",
    [
        {"attention_factor": 1.2},
        {"attention_factor": "logn", "logn_base": 128},
        {"attention_factor": 1.1, "attention_factor_rate": 0.2},
    ],
)
def test_an_attention_factor_can_begin_beyond_the_window(
    name: str, factor: dict[str, float | str]
) -> None:
    everywhere = method_of(name, **factor, attention_factor_from="start")
    beyond = method_of(name, **factor, attention_factor_from="window")
    for length in (2, SMALL.window):
        assert beyond.encode(SMALL, length).attention_factor == lampe.AttentionFactor()
    longer = SMALL.window + 1
    expected = everywhere.encode(SMALL, longer).attention_factor
    assert beyond.encode(SMALL, longer).attention_factor == expected != lampe.AttentionFactor()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("original", lampe.AttentionFactor()),
        ("selfextend", lampe.AttentionFactor()),
        ("dca", lampe.AttentionFactor()),
        ("chunkllama", lampe.AttentionFactor(1 + 0.05 * math.log(4))),
        ("rerope", lampe.AttentionFactor(logn_base=256)),
        ("leaky-rerope", lampe.AttentionFactor(logn_base=256)),
        ("string", lampe.AttentionFactor(STRING_FACTOR)),
        ("lampe", lampe.AttentionFactor(STRING_FACTOR)),
        ("self", lampe.AttentionFactor()),
        ("adagrope", lampe.AttentionFactor()),
        ("streaming-llm", lampe.AttentionFactor()),
        ("lm-infinite", lampe.AttentionFactor()),
        ("dpe", lampe.AttentionFactor()),
        ("gali", lampe.AttentionFactor()),
    ],
)
def test_released_attention_factors(name: str, expected: lampe.AttentionFactor) -> None:
    assert method_of(name).encode(SMALL, 1024).attention_factor == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 1.0),
        ({"variant": "separable"}, 1.0),
        ({"attention_factor_from": "start"}, STRING_FACTOR),
        ({"attention_factor": 1.2}, 1.2),
        ({"variant": "reference"}, STRING_FACTOR),
        ({"variant": "sw-map"}, STRING_FACTOR),
        ({"variant": "reference", "attention_factor_from": "window"}, 1.0),
    ],
)
def test_lampe_has_its_released_factor_beyond_the_window_only(
    settings: dict[str, float | str], expected: float
) -> None:
    method = method_of("lampe", **settings)
    assert method.encode(SMALL, SMALL.window).attention_factor.factor == expected
    beyond = method.encode(SMALL, SMALL.window + 1).attention_factor.factor
    assert beyond == settings.get("attention_factor", STRING_FACTOR)


def test_logn_scales_only_beyond_its_base() -> None:
    scale = lampe.AttentionFactor(logn_base=256).query_scale(torch.tensor([0, 255, 65535]))
    assert scale is not None
    assert scale.tolist() == pytest.approx([1, 1, 2])


def test_composition_takes_plan_and_attention_factor_of_one_and_rope_of_the_other() -> None:
    both = method_of("lampe+yarn", mapping_length=128).encode(SMALL, 1024)
    assert both.plan == method_of("lampe", mapping_length=128).encode(SMALL, 1024).plan
    assert both.attention_factor == method_of("lampe").encode(SMALL, 1024).attention_factor
    assert both.rope == method_of("yarn", attention_factor=1.0).encode(SMALL, 1024).rope


def test_effective_attention_factor_includes_the_scaling_of_the_rope() -> None:
    yarn = method_of("yarn", factor=4).encode(SMALL, 1024)
    assert yarn.attention_factor == lampe.AttentionFactor()
    assert yarn.effective_attention_factor.factor == pytest.approx(0.1 * math.log(4) + 1)


YARN_FACTOR = 0.1 * math.log(4) + 1


@pytest.mark.parametrize(
    ("name", "settings", "expected", "note"),
    [
        ("string+yarn", {}, STRING_FACTOR, "string alone"),
        ("string+yarn", {"yarn.attention_factor": 1.0}, STRING_FACTOR, "attention_factor=1"),
        (
            "string+yarn",
            {"yarn.attention_factor": 1.2},
            1.2 * STRING_FACTOR,
            "attention_factor=1.2",
        ),
        ("string+yarn", {"yarn.attention_factor": "auto"}, STRING_FACTOR, "string alone"),
        ("lampe+yarn", {"attention_factor": 1.1}, 1.1, "lampe alone"),
        ("lampe+yarn", {"attention_factor": 1.0}, 1.0, "lampe alone"),
        ("lampe+yarn", {"attention_factor": "none"}, YARN_FACTOR, "yarn"),
        ("selfextend+yarn", {}, YARN_FACTOR, "yarn"),
        ("original+yarn", {"yarn.attention_factor": 1.2}, 1.2, "yarn"),
        ("chunkllama+yarn", {}, 0.05 * math.log(4) + 1, "chunkllama alone"),
        ("lampe+pi", {}, STRING_FACTOR, "lampe"),
        ("selfextend+pi", {}, 1.0, ""),
        ("lampe+mrrope", {}, STRING_FACTOR, "lampe alone"),
        ("self+mrrope", {}, YARN_FACTOR, "mrrope"),
        ("string+mrrope", {"mrrope.attention_factor": 1.2}, 1.2 * STRING_FACTOR, "factor=1.2"),
        ("adagrope+cope", {}, 1.0, ""),
        ("adagrope+cope", {"cope.factor": 4}, YARN_FACTOR, "cope"),
        ("lampe+resonance", {"resonance.factor": 4}, STRING_FACTOR, "lampe alone"),
        ("lampe+dprope", {}, STRING_FACTOR, "lampe"),
        ("dpe+yarn", {"group_sizes": "2/4"}, YARN_FACTOR, "yarn"),
        ("gali+yarn", {}, YARN_FACTOR, "yarn"),
    ],
)
def test_one_attention_factor_holds_in_a_composition_unless_the_user_sets_both(
    name: str, settings: dict[str, Any], expected: float, note: str
) -> None:
    method = method_of(name, **settings)
    assert method.encode(SMALL, 1024).effective_attention_factor.factor == pytest.approx(expected)
    assert note in method.attention_factor_note
    assert bool(note) == bool(method.attention_factor_note)
    resolved = method.resolved(SMALL, 1024)
    assert resolved.encode(SMALL, 1024) == method.encode(SMALL, 1024)


@dataclass(frozen=True, kw_only=True)
class Warm(lampe.Method):
    """Frequencies with a factor of 1.25, whose setting has a name of its own."""

    name: ClassVar[str] = "warm"
    factor_setting: ClassVar[str] = "warmth"
    warmth: float | None = lampe.setting(rule="5/4")

    @property
    def has_attention_factor(self) -> bool:
        return True

    def rope(self, geometry: lampe.Geometry, length: int) -> lampe.Rope:
        return replace(geometry.rope(length), scaling=self.warmth or 1.25)


class UndeclaredWarm(Warm):
    """Method that does not say which of its settings is the factor."""

    factor_setting: ClassVar[str] = "attention_factor"


@pytest.mark.parametrize(
    ("positions", "frequencies", "expected", "note"),
    [
        ("string", Warm(), STRING_FACTOR, "string alone"),
        ("string", Warm(warmth=1.5), 1.5 * STRING_FACTOR, "times warm.warmth=1.5"),
        ("string", UndeclaredWarm(), STRING_FACTOR, "string alone"),
        ("selfextend", Warm(), 1.25, "warm"),
        ("selfextend", UndeclaredWarm(), 1.25, "warm"),
    ],
)
def test_the_setting_of_the_factor_may_have_another_name(
    positions: str, frequencies: lampe.Method, expected: float, note: str
) -> None:
    method = lampe.Composed(positions=method_of(positions), frequencies=frequencies)
    assert method.encode(SMALL, 1024).effective_attention_factor.factor == pytest.approx(expected)
    assert note in method.attention_factor_note
    resolved = method.resolved(SMALL, 1024)
    assert resolved.encode(SMALL, 1024) == method.encode(SMALL, 1024)


def test_a_composition_has_the_rules_of_both_parts() -> None:
    rules = method_of("string+yarn").setting_rules()
    assert rules["shift"] == method_of("string").setting_rules()["shift"]
    assert rules["yarn.factor"] == method_of("yarn").setting_rules()["factor"]
    assert "string alone" in rules["yarn.attention_factor"]
    given = method_of("lampe+yarn", curve="llama2").setting_rules({"curve"})
    assert given["mapping_length"] == method_of("lampe").setting_rules({"curve"})["mapping_length"]


def test_a_log_n_scale_is_the_one_attention_factor_of_a_composition() -> None:
    encoding = method_of("rerope+yarn").encode(SMALL, 1024)
    assert encoding.effective_attention_factor == lampe.AttentionFactor(logn_base=256)


def test_the_settings_of_a_composition_are_those_that_it_shows() -> None:
    shown = method_of("string+yarn", variant="reference", **{"yarn.factor": 2.68}).settings
    assert shown["yarn.factor"] == 2.68
    assert shown["variant"] == "reference"
    assert method_of("string+yarn", **shown).settings == shown


def test_string_on_qwen_2_as_its_authors_ran_it() -> None:
    """Compare with the release at 131072 tokens: factor 2.68, and 1.0693 once."""
    rope = {"rope_type": "default", "rope_theta": 1e6}
    geometry = lampe.Geometry(window=32768, head_dim=128, rope_parameters=rope)
    settings = {"yarn.factor": 2.68, "yarn.attention_factor": 1.0}
    encoding = method_of("string+yarn", variant="reference", local=128, **settings).encode(
        geometry, 131072
    )
    parts = lampe.Composed(
        positions=method_of("string", variant="reference", local=128),
        frequencies=method_of("yarn", factor=2.68, attention_factor=1.0),
    )
    assert encoding == parts.encode(geometry, 131072)
    assert encoding.effective_attention_factor.factor**2 == pytest.approx(1.143434, abs=1e-6)
    own = geometry.rope(131072).inv_freq
    assert encoding.rope.inv_freq[-1] == pytest.approx(own[-1] / 2.68)
    assert encoding.rope.inv_freq[0] == pytest.approx(own[0])


@pytest.mark.parametrize("name", METHODS)
def test_auto_is_the_default_of_every_setting_that_has_a_rule(name: str) -> None:
    rules = METHODS[name].default_rules()
    assert method_of(name, **dict.fromkeys(rules, "auto")) == method_of(name)


@pytest.mark.parametrize("name", INDEX)
def test_a_log_n_scale_takes_a_base_of_its_own(name: str) -> None:
    method = method_of(name, attention_factor="logn", logn_base=4096)
    factor = method.encode(SMALL, 1024).attention_factor
    assert factor == lampe.AttentionFactor(logn_base=4096)


@pytest.mark.parametrize("name", ["rerope", "leaky-rerope"])
def test_a_released_log_n_scale_takes_a_base_of_its_own(name: str) -> None:
    factor = method_of(name, logn_base=64).encode(SMALL, 1024).attention_factor
    assert factor == lampe.AttentionFactor(logn_base=64)


@pytest.mark.parametrize(
    ("variant", "cap", "local_window", "rate"),
    [
        ("steady", 192, 32, 0.05),
        ("reference", 192, 32, 0.05),
        ("flash-decoding", 192, 16, 0.1),
        ("vllm", 256, 32, 0.1),
    ],
)
def test_released_files_of_chunkllama(
    variant: str, cap: int, local_window: int, rate: float
) -> None:
    """Check cap, local window and attention factor; all but "steady" grow in an answer."""
    method = method_of("chunkllama", variant=variant)
    encoding = method.encode(SMALL, 1024)
    expected = method_of("dca", chunk_size=cap - local_window, cap=cap).encode(SMALL, 1024)
    assert encoding.plan == expected.plan
    assert method.decode_plan(SMALL, 1024, 1025) is None
    factor = encoding.attention_factor
    assert factor.factor == pytest.approx(1 + rate * math.log(4))
    later = factor.per_token_factor(torch.tensor([0, 1023, 2047]))
    if variant == "steady":
        assert later is None
    else:
        assert later is not None
        grown = [factor.factor * value for value in later.tolist()]
        ends = [4, 4, 8]
        assert grown == pytest.approx([1 + rate * math.log(end) for end in ends])


def test_selfextend_shifts_a_prompt_by_a_fraction_and_its_answer_by_a_whole_number() -> None:
    """Check the decode row of LongLM's flash path: W - W // G, where prefill has W - W / G."""
    sizes = {"window_size": 10, "group_size": 6}
    method = method_of("selfextend", shift="fractional-prefill", **sizes)
    fractional = method_of("selfextend", shift="fractional", **sizes).encode(SMALL, 100)
    integer = method_of("selfextend", shift="integer", **sizes).encode(SMALL, 100)
    assert method.encode(SMALL, 100) == fractional
    assert method.decode_plan(SMALL, 100, 101) == integer.plan
    assert method_of("selfextend", **sizes).decode_plan(SMALL, 100, 101) is None


@pytest.mark.parametrize(("window", "recent"), [(256, 128), (4096, 2000), (131072, 2000)])
def test_streaming_llm_sees_as_much_as_its_authors_chat(window: int, recent: int) -> None:
    plan = method_of("streaming-llm").encode(lampe.Geometry(window=window), 2 * window).plan
    assert plan.visible is not None
    assert plan.visible.describe(2 * window) == f"4 + {recent} of {2 * window} tokens"
    assert plan.visible.describe(recent) == f"all of {recent} tokens"


def test_lm_infinite_limits_positions_by_the_tokens_of_a_call_while_they_are_few() -> None:
    """Check the release's minimum of limit and last position: of the prompt, then of each token."""
    method = method_of("lm-infinite", sinks=2, local=8, limit=30)
    prompt = method.encode(SMALL, 20).plan
    assert prompt.relative(torch.tensor(19), torch.tensor(0)) == 19
    for stop, expected in ((21, 20), (30, 29), (40, 30)):
        plan = method.decode_plan(SMALL, 20, stop)
        assert plan is not None
        assert plan.relative(torch.tensor(stop - 1), torch.tensor(1)) == expected
    assert method.decode_plan(SMALL, 31, 32) is None
    assert method_of("lm-infinite").decode_plan(SMALL, 20, 21) is None


def test_dpe_of_one_size_is_selfextend() -> None:
    sizes = {"window_size": 10, "shift": "fractional-prefill"}
    for group_sizes in (6, "6/6", "6/6/6/6"):
        ours = method_of("dpe", group_sizes=group_sizes, **sizes)
        theirs = method_of("selfextend", group_size=6, **sizes)
        assert ours.encode(SMALL, 100) == theirs.encode(SMALL, 100)
        assert ours.decode_plan(SMALL, 100, 101) == theirs.decode_plan(SMALL, 100, 101)


@pytest.mark.parametrize(
    ("group_sizes", "reach"),
    [
        # The pairs before the slowest, the slowest, pairs that have not turned by then, and pairs
        # that have.
        ("2/2/2/8", 999 // 2 + 5),
        ("2/2/8/2", 999 // 2 + 5),
        ("8/8/1/8", 999),
        ("8/1/8/8", 2 * math.pi * 10000 ** (15 / 32)),
    ],
)
def test_the_largest_position_is_that_of_pairs_that_can_leave_the_window(
    group_sizes: str, reach: float
) -> None:
    encoding = method_of("dpe", window_size=10, group_sizes=group_sizes).encode(SMALL, 1000)
    assert encoding.largest_position(1000, SMALL.rope(1000)) == pytest.approx(reach)


def test_composed_in_python() -> None:
    method = lampe.Composed(positions=method_of("lampe"), frequencies=method_of("yarn", factor=2))
    expected = method_of("yarn", factor=2, attention_factor=1.0).encode(SMALL, 1024).rope
    assert method.encode(SMALL, 1024).rope == expected
    assert method.settings["yarn.factor"] == 2
