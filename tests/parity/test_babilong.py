"""BABILong: worked examples, published predictions and the placement of facts, as upstream's."""

import csv
import json
import re
from collections.abc import Mapping
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pytest

from lampe_eval.benches.sentence_haystack import Haystack, SentencePool
from lampe_eval.ruler.piecewise_tokenizer import PiecewiseTokenizer
from lampe_eval.scoring import babilong_metrics
from lampe_eval.scoring.prediction_files import TaskResult, score_folder
from tests.parity.data import DATA

FOLDER = DATA / "parity2"
if not FOLDER.is_dir():
    pytest.skip(f"no worked examples under {DATA}", allow_module_level=True)


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


EXAMPLES = read("babilong_scorer.json")["cases"]
PUBLISHED = read("babilong_preds/expected.json")["scores"]
PLACED = read("babilong_injection.json")
UPSTREAM_NAMES = {"babilong": "babilong", "babilong_2024": "babilong_2024_and_opencompass"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["id"])
@pytest.mark.parametrize("name", UPSTREAM_NAMES)
def test_worked_example(example: Mapping[str, Any], name: str) -> None:
    arguments = (example["prediction"], example["target"], example["question"])
    labels = babilong_metrics.LABELS[example["task"]]
    right = babilong_metrics.SCORERS[name](*arguments, labels)
    assert right == example["scores"][UPSTREAM_NAMES[name]]


@cache
def scores(model: str) -> dict[str, TaskResult]:
    return score_folder("babilong", FOLDER / "babilong_preds" / model)


@pytest.mark.parametrize("file", PUBLISHED)
def test_published_predictions(file: str) -> None:
    model, _, name = file.partition("/")
    task, _, variant = name.removesuffix(".csv").partition("_")
    results = scores(model)
    label = f"{task} ({variant})"
    result = results[label if label in results else task]
    expected = PUBLISHED[file]
    assert (result.n, result.skipped) == (expected["n"], 0)
    for ours, theirs in UPSTREAM_NAMES.items():
        assert result.scores[ours] == pytest.approx(expected[theirs], rel=1e-12)


@pytest.mark.parametrize("file", [name for name, row in PUBLISHED.items() if row["right"]])
def test_each_published_prediction(file: str) -> None:
    task = file.partition("/")[2].partition("_")[0]
    labels = babilong_metrics.LABELS[task]
    with (FOLDER / "babilong_preds" / file).open(encoding="utf-8", newline="") as lines:
        right = [
            babilong_metrics.babilong(row["output"], row["target"], row["question"], labels)
            for row in csv.DictReader(lines)
        ]
    assert "".join(str(int(value)) for value in right) == PUBLISHED[file]["right"]


class LetterBatches:
    """Tokenizer of one token per letter, for lists of texts."""

    def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


@pytest.mark.parametrize(
    "case", [case for case in PLACED["cases"] if case["text"]], ids=lambda case: case["id"]
)
def test_facts_lie_where_upstream_puts_them(case: Mapping[str, Any]) -> None:
    """Upstream's text, cut into its sentences and facts, comes out again."""
    background = case["text"]
    for fact in case["facts"]:
        background = background.replace(f" {fact}", "", 1)
    tokens = re.findall(r"\s*\w+|\s*[^\w\s]|\s+", background)
    ends = [0, *accumulate(case["background_sentences"])]
    sentences = ["".join(tokens[start:stop]) for start, stop in pairwise(ends)]
    letters: Any = LetterBatches()
    tokenizer = PiecewiseTokenizer(letters)
    pool = SentencePool(tokenizer, tokenizer.build_table(sentences), 0)
    haystack = Haystack(pool, np.arange(len(sentences)), 0)
    ids = haystack.with_sentences(case["facts"], case["fact_positions"])
    assert "".join(map(chr, ids.tolist())) == case["text"]
