"""Labels over several lines: no letter is lost, no line is too wide."""

import pytest

from lampe_eval.report.labels import wrap_label


@pytest.mark.parametrize(
    ("label", "width", "lines"),
    [
        ("original · run", 26, ["original · run"]),
        (
            "lampe:mapping_length=128,attention_factor=1.12",
            26,
            ["lampe:mapping_length=128,", "attention_factor=1.12"],
        ),
        ("lampe · a-run-of-llama3-8b-instruct", 16, ["lampe ·", "a-run-of-llama3-", "8b-instruct"]),
        ("pretraining_length=256", 12, ["pretraining_", "length=256"]),
    ],
)
def test_a_label_is_broken_after_punctuation(label: str, width: int, lines: list[str]) -> None:
    assert wrap_label(label, width) == lines
