"""Every worked example of a metric scores what the benchmark's own code gives it."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from lampe_eval.scoring import (
    infinitebench_metrics,
    leval_metrics,
    longbench_metrics,
    ruler_metrics,
    text_metrics,
)
from lampe_eval.scoring.text_metrics import percent
from tests.parity.data import DATA, golden

EXAMPLES = golden("scorer_examples")


def all_classes() -> list[str]:
    """Return the fifty classes of trec."""
    path = DATA / "longbench" / "preds_llama2-7b-chat-4k" / "trec.jsonl"
    with path.open(encoding="utf-8") as lines:
        classes: list[str] = json.loads(next(lines))["all_classes"]
    return classes


def dataset(metric: Callable[[str, list[str]], float]) -> Callable[..., float]:
    def total(predictions: list[str], references: list[list[str]]) -> float:
        return percent([metric(*pair) for pair in zip(predictions, references, strict=True)])

    return total


def trec(prediction: str, reference: str) -> float:
    return longbench_metrics.classification(prediction, reference, all_classes())


METRICS: Mapping[str, Callable[..., Any]] = {
    "longbench.normalize_answer": text_metrics.normalize,
    "longbench.qa_f1_score": text_metrics.token_f1,
    "longbench.qa_f1_zh_score": longbench_metrics.token_f1_zh,
    "longbench.rouge_score(rouge-l f, pltrdy rouge 1.0.1)": text_metrics.rouge_l,
    "longbench.rouge_zh_score": longbench_metrics.rouge_l_zh,
    "longbench.classification_score(all_classes fixed)": trec,
    "longbench.classification_score.substring(all_classes=[number, number of something])": partial(
        longbench_metrics.classification, classes=["number", "number of something"]
    ),
    "longbench.retrieval_score": longbench_metrics.retrieval,
    "longbench.retrieval_zh_score": longbench_metrics.retrieval_zh,
    "longbench.count_score": longbench_metrics.count,
    "longbench.code_sim_score": longbench_metrics.code_similarity,
    "ruler.string_match_all": dataset(ruler_metrics.match_all),
    "ruler.string_match_part": dataset(ruler_metrics.match_part),
    "leval.exact_match_score": leval_metrics.exact_match,
    "leval.f1_score": text_metrics.token_f1,
    "leval.process_output_mc[coursera]": partial(leval_metrics.choices, several=True),
    "leval.process_output_mc[other]": partial(leval_metrics.choices, several=False),
    "leval.process_gt_mc": leval_metrics.gold_choices,
    "leval.process_math": leval_metrics.final_number,
    "leval.process_gt_judge": leval_metrics.gold_judgements,
    "leval.process_output_judge": leval_metrics.judgements,
    "leval.process_output_code(response,gt)": leval_metrics.code_output,
}
BY_PREDICTION: list[tuple[str, Any]] = []
for name in METRICS:
    BY_PREDICTION += [(name, example) for example in EXAMPLES[name]]
BY_TASK: list[tuple[str, Any]] = []
for name, examples in EXAMPLES.items():
    if name.startswith("infinitebench."):
        task = name.removeprefix("infinitebench.")
        BY_TASK += [(task, example) for example in examples]


def test_every_example_is_tested() -> None:
    datasets = {"longbench.scorer(post-process first line)", "longbench.scorer_e"}
    infinite = {f"infinitebench.{task}" for task in infinitebench_metrics.METRICS["official"]}
    assert EXAMPLES.keys() == METRICS.keys() | datasets | infinite


@pytest.mark.parametrize(("name", "example"), BY_PREDICTION)
def test_metric(name: str, example: Mapping[str, Any]) -> None:
    score = METRICS[name](*example["args"])
    assert (list(score) if isinstance(score, tuple) else score) == example["score"]


@pytest.mark.parametrize("example", EXAMPLES["longbench.scorer(post-process first line)"])
def test_longbench_task(example: Mapping[str, Any]) -> None:
    answers = zip(example["preds"], example["answers"], strict=True)
    extras = {"all_classes": all_classes()}
    assert (
        percent(
            [longbench_metrics.score(example["dataset"], *answer, extras) for answer in answers]
        )
        == example["score"]
    )


@pytest.mark.parametrize("example", EXAMPLES["longbench.scorer_e"])
def test_longbench_e_task(example: Mapping[str, Any]) -> None:
    answers = zip(example["preds"], example["answers"], strict=True)
    scores = [longbench_metrics.score(example["dataset"], *answer, {}) for answer in answers]
    assert longbench_metrics.by_length(scores, example["lengths"]) == example["score"]


@pytest.mark.parametrize("scorer", infinitebench_metrics.METRICS)
@pytest.mark.parametrize(("task", "example"), BY_TASK)
def test_infinitebench(
    task: str, example: Mapping[str, Any], scorer: infinitebench_metrics.Scorer
) -> None:
    expected = example[scorer]
    if isinstance(expected, str):
        expected = 0  # upstream breaks on it
    assert (
        infinitebench_metrics.score(task, example["pred"], example["label"], {}, scorer) == expected
    )
