"""Latent needles: worked examples of NoLiMa's scorers, and the needles that were checked."""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest

from lampe_eval.benches.latent import needle_set
from lampe_eval.benches.nolima_files import place_needle
from lampe_eval.scoring import latent_metrics
from tests.parity.data import DATA

FOLDER = DATA / "parity2"
if not FOLDER.is_dir():
    pytest.skip(f"no worked examples under {DATA}", allow_module_level=True)

EXAMPLES = json.loads((FOLDER / "nolima_scorer.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["id"])
def test_worked_example(example: Mapping[str, Any]) -> None:
    for name, expected in example["scores"].items():
        scorer = latent_metrics.SCORERS[name]
        assert scorer(example["prediction"], example["references"], ()) == expected, name


PLACED = json.loads((FOLDER / "nolima_placement.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", PLACED["cases"], ids=lambda case: case["id"])
def test_needles_lie_where_upstream_puts_them(case: Mapping[str, Any]) -> None:
    texts = re.findall(r"\n| ?[A-Za-z]+|[^\sA-Za-z]| ", PLACED["text"])
    text = place_needle(texts, PLACED["needle"], case["context_length"], case["depth"])
    assert sha256(text.encode()).hexdigest() == case["sha256"]


def test_needles_are_those_that_were_checked() -> None:
    checked = json.loads((FOLDER / "latent_needles.json").read_text(encoding="utf-8"))
    ours = needle_set()
    assert list(ours.names) == checked["names"]
    assert ours.distractor == checked["distractor"]
    assert ours.instruction.startswith(checked["instruction"])
    for needle, other in zip(ours.needles, checked["needles"], strict=True):
        assert (needle.id, needle.needle, needle.inverted, needle.topic) == (
            other["id"], other["needle"], other["inverted"], other["topic"],
        )  # fmt: skip
        assert other["questions"] == {"one_hop": needle.one_hop, "two_hop": needle.two_hop}
        assert (list(needle.avoid), list(needle.clash)) == (other["avoid"], other["clash"])
