"""Methods as a user writes them."""

import pytest

from lampe_eval.cards import names
from lampe_eval.errors import UserError
from lampe_eval.methods import parse


def test_commas_separate_methods_and_continue_settings() -> None:
    specs = parse(
        ["original,pi,lampe:mapping_length=128,temperature=logn,yarn", "dca:temperature=1.12"]
    )
    assert [(spec.label, dict(spec.settings)) for spec in specs] == [
        ("original", {}),
        ("pi", {}),
        (
            "lampe:mapping_length=128,temperature=logn",
            {"mapping_length": 128, "temperature": "logn"},
        ),
        ("yarn", {}),
        ("dca:temperature=1.12", {"temperature": 1.12}),
    ]


def test_settings_come_from_the_model_then_the_user() -> None:
    (spec,) = parse(["lampe:head=512"])
    assert spec.build({"lampe": {"curve": "llama2", "head": 256}}).settings == {
        "temperature": "released",
        "temperature_rate": 0.0,
        "mapping_length": None,
        "head": 512,
        "tail": None,
        "curve": "llama2",
        "slope": None,
        "intercept": None,
        "ceiling": None,
        "variant": "continuous",
    }


@pytest.mark.parametrize("name", names("methods"))
def test_every_shipped_method_card_builds(name: str) -> None:
    (spec,) = parse([name])
    assert spec.build({}).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lamp", "unknown method 'lamp' (did you mean 'lampe'?); see: lampe-eval list methods"),
        ("head=3", "setting 'head=3' comes before any method"),
        ("lampe:head", "'head' is not of the form setting=value"),
        ("lampe:haed=3", "unknown setting of lampe 'haed' (did you mean 'head'?)"),
        ("lampe,lampe", "lampe given twice"),
        ("lampe+yam", "unknown method 'yam' (did you mean 'yarn'?)"),
        ("lampe:head=[1", "'[1' is not a value"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        [spec.build({}) for spec in parse([text])]
    assert message in str(caught.value)
