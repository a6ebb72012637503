"""Methods as users write them."""

import pytest

from lampe_eval.cards import shipped_names
from lampe_eval.errors import UserError
from lampe_eval.method_specs import parse_methods


def test_commas_separate_methods_and_continue_settings() -> None:
    specs = parse_methods(
        [
            "original,pi,lampe:mapping_length=128,attention_factor=logn,yarn",
            "dca:attention_factor=1.12",
        ]
    )
    assert [(spec.label, dict(spec.settings)) for spec in specs] == [
        ("original", {}),
        ("pi", {}),
        (
            "lampe:mapping_length=128,attention_factor=logn",
            {"mapping_length": 128, "attention_factor": "logn"},
        ),
        ("yarn", {}),
        ("dca:attention_factor=1.12", {"attention_factor": 1.12}),
    ]


def test_settings_come_from_the_model_then_the_user() -> None:
    (spec,) = parse_methods(["lampe:head_tokens=512"])
    assert spec.build({"lampe": {"curve": "llama2", "head_tokens": 256}}).settings == {
        "attention_factor": "released",
        "attention_factor_rate": 0.0,
        "attention_factor_from": None,
        "logn_base": None,
        "mapping_length": None,
        "head_tokens": 512,
        "tail_tokens": None,
        "curve": "llama2",
        "slope": None,
        "intercept": None,
        "ceiling": None,
        "variant": "continuous",
    }


@pytest.mark.parametrize("name", shipped_names("methods"))
def test_every_shipped_method_card_builds(name: str) -> None:
    (spec,) = parse_methods([name])
    assert spec.build({}).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lamp", "unknown method 'lamp' (did you mean 'lampe'"),
        ("head_tokens=3", "'head_tokens=3'"),
        ("lampe:head", "'head' "),
        (
            "lampe:haed_tokens=3",
            "'haed_tokens' (did you mean 'head_tokens'",
        ),
        ("lampe,lampe", "lampe given twice"),
        ("lampe+yam", "unknown method 'yam' (did you mean 'yarn'?)"),
        ("LAMPE", "unknown method 'LAMPE' (did you mean 'lampe'?)"),
        ("SelfExtend:group_size=8", "unknown method 'SelfExtend' (did you mean 'selfextend'?)"),
        ("lampe+YaRN", "unknown method 'YaRN' (did you mean 'yarn'?)"),
        ("lampe+yarn:factor=2", "unknown setting of lampe+yarn 'factor'"),
        ("lampe:head_tokens=1,head_tokens=2", "lampe: head_tokens is set twice"),
        ("lampe:head_tokens=1,tail_tokens=8,head_tokens=1", "lampe: head_tokens is set twice"),
        ("lampe+yarn:yarn.factor=2,yarn.factor=3", "yarn.factor is set twice"),
        ("lampe:head_tokens=[1", "'[1' is not a value"),
        ("lampe:head_tokens=[1]", "'[1]' is not a value"),
        ("lampe:head_tokens=2020-13-45", "head_tokens must be of type int, got '2020-13-45'"),
        ("lampe:head_tokens=!!int x", "'!!int x' is not a value"),
        ("lampe:head_tokens=!!timestamp x", "'!!timestamp x' is not a value"),
        (f"lampe:head_tokens={'1' * 6000}", "is not a value for head_tokens"),
        (f"lampe:head_tokens={'[' * 3000}", "is not a value for head_tokens"),
        (f"lampe:head_tokens={'1' * 400}", "a value for head_tokens: 1111"),
    ],
)
def test_a_wrong_method_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        [spec.build({}) for spec in parse_methods([text])]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("string+yarn:yarn.factor=2.68,yarn.attention_factor=1.0", "yarn.factor", 2.68),
        ("string+yarn:variant=reference,yarn.truncate=false", "yarn.truncate", False),
        ("string+yarn:yarn.factor=2,variant=reference", "variant", "reference"),
        ("lampe:head_tokens=auto", "head_tokens", None),
        ("lampe+yarn:yarn.attention_factor=auto", "yarn.attention_factor", None),
        ("yarn:beta_fast=auto", "beta_fast", 32.0),
    ],
)
def test_settings_are_given_by_the_names_that_are_shown(text: str, key: str, value: object) -> None:
    (spec,) = parse_methods([text])
    assert spec.label == text
    assert spec.build({}).settings[key] == value


def test_both_parts_of_a_composed_method_take_the_settings_of_the_model() -> None:
    (spec,) = parse_methods(["lampe+yarn:yarn.beta_slow=2.0"])
    defaults = {"lampe": {"head_tokens": 64}, "yarn": {"factor": 3.0, "beta_slow": 4.0}}
    settings = spec.build(defaults).settings
    assert settings["head_tokens"] == 64
    assert settings["yarn.factor"] == 3.0
    assert settings["yarn.beta_slow"] == 2.0


def test_auto_is_the_default_rule_even_where_the_model_has_a_setting() -> None:
    (spec,) = parse_methods(["lampe:head_tokens=auto"])
    assert spec.build({"lampe": {"head_tokens": 64}}).settings["head_tokens"] is None


def test_a_row_with_other_settings_has_each_in_its_label_once() -> None:
    (spec,) = parse_methods(["lampe:head_tokens=8,attention_factor=1.0"])
    (parsed,) = parse_methods([spec.with_settings(attention_factor=1.25, tail_tokens=4).label])
    assert parsed.settings == {"head_tokens": 8, "attention_factor": 1.25, "tail_tokens": 4}
    assert spec.with_settings(tail_tokens=4).label == f"{spec.label},tail_tokens=4"
