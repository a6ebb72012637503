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
        ("lampe+yam", "'yam' (did you mean 'yarn'"),
        ("lampe:head_tokens=[1", "'[1' is not a value"),
    ],
)
def test_a_wrong_method_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        [spec.build({}) for spec in parse_methods([text])]
    assert message in str(caught.value)
