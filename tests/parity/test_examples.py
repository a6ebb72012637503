"""Every worked example of a metric scores what the benchmark's own code gives it."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from lampe_eval.scoring import infinitebench, leval, longbench, ruler, text
from lampe_eval.scoring.text import percent
from tests.parity.data import DATA, golden

EXAMPLES = golden("scorer_examples")


def all_classes() -> list[str]:
    """The fifty classes of trec."""
    path = DATA / "longbench" / "preds_llama2-7b-chat-4k" / "trec.jsonl"
    with path.open(encoding="utf-8") as lines:
        classes: list[str] = json.loads(next(lines))["all_classes"]
    return classes


def dataset(metric: Callable[[str, list[str]], float]) -> Callable[..., float]:
    def total(predictions: list[str], references: list[list[str]]) -> float:
        return percent([metric(*pair) for pair in zip(predictions, references, strict=True)])

    return total


def trec(prediction: str, reference: str) -> float:
    return longbench.classification(prediction, reference, all_classes())


METRICS: Mapping[str, Callable[..., Any]] = {
    "longbench.normalize_answer": text.normalize,
    "longbench.qa_f1_score": text.token_f1,
    "longbench.qa_f1_zh_score": longbench.token_f1_zh,
    "longbench.rouge_score(rouge-l f, pltrdy rouge 1.0.1)": text.rouge_l,
    "longbench.rouge_zh_score": longbench.rouge_l_zh,
    "longbench.classification_score(all_classes fixed)": trec,
    "longbench.classification_score.substring(all_classes=[number, number of something])": partial(
        longbench.classification, classes=["number", "number of something"]
    ),
    "longbench.retrieval_score": longbench.retrieval,
    "longbench.retrieval_zh_score": longbench.retrieval_zh,
    "longbench.count_score": longbench.count,
    "longbench.code_sim_score": longbench.code_similarity,
    "ruler.string_match_all": dataset(ruler.match_all),
    "ruler.string_match_part": dataset(ruler.match_part),
    "leval.exact_match_score": leval.exact_match,
    "leval.f1_score": text.token_f1,
    "leval.process_output_mc[coursera]": partial(leval.choices, several=True),
    "leval.process_output_mc[other]": partial(leval.choices, several=False),
    "leval.process_gt_mc": leval.gold_choices,
    "leval.process_math": leval.final_number,
    "leval.process_gt_judge": leval.gold_judgements,
    "leval.process_output_judge": leval.judgements,
    "leval.process_output_code(response,gt)": leval.code_output,
}
BY_PREDICTION = [(name, example) for name in METRICS for example in EXAMPLES[name]]
BY_TASK = [
    (name.removeprefix("infinitebench."), example)
    for name, examples in EXAMPLES.items()
    if name.startswith("infinitebench.")
    for example in examples
]


def test_every_example_is_tested() -> None:
    datasets = {"longbench.scorer(post-process first line)", "longbench.scorer_e"}
    infinite = {f"infinitebench.{task}" for task in infinitebench.METRICS["official"]}
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
        percent([longbench.score(example["dataset"], *answer, extras) for answer in answers])
        == example["score"]
    )


@pytest.mark.parametrize("example", EXAMPLES["longbench.scorer_e"])
def test_longbench_e_task(example: Mapping[str, Any]) -> None:
    answers = zip(example["preds"], example["answers"], strict=True)
    scores = [longbench.score(example["dataset"], *answer, {}) for answer in answers]
    assert longbench.by_length(scores, example["lengths"]) == example["score"]


@pytest.mark.parametrize("scorer", infinitebench.METRICS)
@pytest.mark.parametrize(("task", "example"), BY_TASK)
def test_infinitebench(task: str, example: Mapping[str, Any], scorer: infinitebench.Scorer) -> None:
    expected = example[scorer]
    if isinstance(expected, str):
        expected = 0  # upstream breaks on it
    assert infinitebench.score(task, example["pred"], example["label"], {}, scorer) == expected
