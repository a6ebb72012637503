"""Formats of the prediction files that the benchmarks' own code writes.

longbench              <task>.jsonl          pred, answers, all_classes
longbench-e            <task>.jsonl          the same and length
longbench-v2           <model>.jsonl         judge, difficulty, length; response and answer
leval                  <task>.pred.jsonl     <model>_pred, gt, evaluation
ruler                  <task>.jsonl          pred, outputs
                       <task>/**/*.jsonl     pred, needle between lines of progress (STRING, LaMPE)
infinitebench          preds_<task>.jsonl    prediction or pred, ground_truth or label
infinitebench-lampe    preds_<task>.jsonl    the same, scored as LaMPE and STRING do
babilong               <task>_<length>*.csv  target, output, question
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from annotated_types import Len, MinLen
from pydantic import AliasChoices, Field, TypeAdapter, ValidationError

from lampe_eval.scoring import (
    babilong_metrics,
    infinitebench_metrics,
    leval_metrics,
    longbench_metrics,
    ruler_metrics,
)
from lampe_eval.scoring.estimates import Estimate
from lampe_eval.scoring.prediction_lines import (
    Line,
    Prediction,
    PredictionFile,
    Record,
    References,
    SomeReferences,
    Text,
)
from lampe_eval.scoring.reported_scores import (
    ReportedScores,
    mean_percent,
    percentages,
    reported_score,
)


@dataclass(frozen=True)
class PredictionFormat:
    """Format of a benchmark's prediction files.

    Attributes:
        tasks: names of tasks to look for in the names of files; empty if files are named after a
            model, whose name then stands for the task.
        read: yields the usable predictions of a file of a task, each with the `row` of its record
            in `extras`.
        total: returns the numbers of a task with what they are rounded from.
        cards: name of the bench whose cards say how many samples the data of a task have; empty if
            any number is complete.
        suffix: ending of the files.
        separator: what stands between the name of a task and the rest of a file's name.
    """

    tasks: Collection[str]
    read: Callable[[PredictionFile, str], Iterator[Prediction]]
    total: Callable[[str, Sequence[Prediction]], ReportedScores]
    cards: str = ""
    suffix: str = ".jsonl"
    separator: str = "-"


class LongBenchRecord(Record):
    """Prediction of LongBench."""

    pred: Text
    answers: References
    all_classes: References | None = None


class LongBenchERecord(LongBenchRecord):
    """Prediction of LongBench-E."""

    length: int


def _read_longbench(
    file: PredictionFile, task: str, *, schema: type[LongBenchRecord] = LongBenchRecord
) -> Iterator[Prediction]:
    """Yield predictions of LongBench.

    Args:
        file: the file.
        task: name of the task.
        schema: type of the records.
    """
    records = []
    rows = []
    for line in file.lines():
        file.text_references += isinstance(line.record.get("answers"), str)
        file.add_sample(line, "answers", "length", "_id")
        record = file.validated(line, schema)
        if record is None:
            continue
        problem = longbench_problem(task, record.answers, record.all_classes)
        if problem:
            file.add_broken(line.number, problem)
            continue
        records.append(record)
        rows.append(line.index)
    for row, record in zip(rows, records, strict=True):
        # eval.py keeps the classes of the last line it read and scores all lines with them.
        extras: dict[str, Any] = {"all_classes": records[-1].all_classes, "row": row}
        if isinstance(record, LongBenchERecord):
            extras["length"] = record.length
        yield Prediction(record.pred, record.answers, extras)


PARAGRAPHS = {"passage_retrieval_en": r"Paragraph \d+", "passage_retrieval_zh": r"段落\d+"}
"""What the references of the retrieval tasks contain."""


def longbench_problem(task: str, answers: Sequence[str], all_classes: Sequence[str] | None) -> str:
    """Return what the metric of a task of LongBench cannot use, or nothing.

    Args:
        task: name of the task.
        answers: the references.
        all_classes: the classes of trec and lsht.
    """
    metric = longbench_metrics.METRICS.get(task)
    if metric is longbench_metrics.classification and not all_classes:
        return "'all_classes' has no classes, which this task needs"
    pattern = PARAGRAPHS.get(task, "")
    if not all(re.search(pattern, answer) for answer in answers):
        return "'answers' names no paragraph"
    return ""


class LongBenchV2Judgement(Record):
    """Prediction of LongBench v2 with upstream's own judgement."""

    difficulty: Text
    length: Text
    judge: bool | int | float


class LongBenchV2Response(Record):
    """Prediction of LongBench v2 with the response of the model."""

    difficulty: Text
    length: Text
    response: Text
    answer: Text


def _read_longbench_v2(file: PredictionFile, _: str) -> Iterator[Prediction]:
    """Yield predictions of LongBench v2.

    A line without a `response` has upstream's own judgement; one with an `error` has neither.
    """
    for line in file.lines():
        if "_id" in line.record:
            file.add_sample(line, "_id")
        if "error" in line.record:
            file.add_broken(line.number, "is an error in place of an answer")
        elif "response" in line.record:
            answer = file.validated(line, LongBenchV2Response)
            if answer:
                extras: dict[str, Any] = {
                    "difficulty": answer.difficulty,
                    "length": answer.length,
                    "row": line.index,
                }
                yield Prediction(answer.response, [answer.answer], extras)
        else:
            judged = file.validated(line, LongBenchV2Judgement)
            if judged:
                yield Prediction("", [], {**judged.model_dump(), "row": line.index})


class LEvalRecord(Record):
    """Prediction of L-Eval without the prediction, whose key holds the name of the model."""

    gt: Text


def _read_leval(file: PredictionFile, task: str) -> Iterator[Prediction]:
    """Yield predictions of L-Eval that need no judge.

    The first key of the first record that contains `_pred` is the key of all predictions.
    """
    pred_key = ""
    for line in file.lines():
        pred_key = pred_key or next((key for key in line.record if "_pred" in key), "<model>_pred")
        if "evaluation" not in line.record:
            file.add_broken(line.number, "has no 'evaluation'")
            continue
        kind = line.record["evaluation"]
        if not isinstance(kind, str) or kind not in leval_metrics.SCORED:
            continue
        prediction = line.record.get(pred_key)
        if not isinstance(prediction, str):
            problem = "is not a text" if pred_key in line.record else ""
            message = f"{pred_key!r} {problem}" if problem else f"has no {pred_key!r}"
            file.add_broken(line.number, message)
            continue
        record = file.validated(line, LEvalRecord)
        if record is None:
            continue
        problem = _leval_problem(task, record.gt)
        if problem:
            file.add_broken(line.number, problem)
        else:
            yield Prediction(prediction, [record.gt], {"row": line.index})


CHOICE_TASKS = frozenset({"coursera", "quality", "tpo"})


def _leval_problem(task: str, reference: str) -> str:
    """Return what a task's metric cannot use in a reference, or nothing."""
    if task in CHOICE_TASKS and not reference.strip():
        return "'gt' is empty, but this task needs a letter"
    if task == "sci_fi" and "[fact:" not in reference.lower():
        return "'gt' has no second half '[fact: ...]'"
    return ""


class RulerRecord(Record):
    """Prediction of RULER, or of the code of STRING and LaMPE."""

    pred: Text
    outputs: SomeReferences = Field(validation_alias=AliasChoices("outputs", "needle"))


def _read_ruler(file: PredictionFile, _: str) -> Iterator[Prediction]:
    """Yield predictions of RULER; STRING's files have lines of progress in between."""
    indices = []
    for line in file.lines(only_objects=True):
        references = line.record.get("outputs", line.record.get("needle"))
        file.text_references += isinstance(references, str)
        # Upstream overwrites `index` in some tasks, so it identifies no sample alone.
        file.add_sample(line, "index", "input", "outputs", "needle", "ctx_len", "length")
        indices.append(line.record.get("index"))
        record = file.validated(line, RulerRecord)
        if record:
            yield Prediction(record.pred, record.outputs, {"row": line.index})
    numbers = {index for index in indices if isinstance(index, int) and index >= 0}
    if numbers and len(numbers) == len(set(file.samples)):
        file.expected = max(numbers) + 1


class InfiniteBenchRecord(Record):
    """Prediction of InfiniteBench; the type of its label depends on the task."""

    prediction: Text = Field(validation_alias=AliasChoices("prediction", "pred"))
    label: Any = Field(validation_alias=AliasChoices("ground_truth", "label"))


Scalar = str | int | float
Number = int | float
_VALUE: TypeAdapter[Any] = TypeAdapter(Scalar | Annotated[list[Scalar], MinLen(1)])
_PAIR: TypeAdapter[Any] = TypeAdapter(Annotated[list[str], Len(2, 2)])
_NUMBERS: TypeAdapter[Any] = TypeAdapter(
    Annotated[list[Number], MinLen(1)]
    | Annotated[list[Annotated[list[Number], MinLen(1)]], MinLen(1)]
)
_TEXTS: TypeAdapter[Any] = TypeAdapter(Annotated[list[str], MinLen(1)])
_TEXT_OR_TEXTS: TypeAdapter[Any] = TypeAdapter(
    Annotated[str, MinLen(1)] | Annotated[list[str], MinLen(1)]
)

LABELS: Mapping[str, tuple[TypeAdapter[Any], str]] = {
    "passkey": (_VALUE, "a value or a list of values"),
    "number_string": (_VALUE, "a value or a list of values"),
    "kv_retrieval": (_VALUE, "a value or a list of values"),
    "code_run": (_VALUE, "a value or a list of values"),
    "math_find": (_VALUE, "a value or a list of values"),
    "math_calc": (_NUMBERS, "a list of numbers"),
    "code_debug": (_PAIR, "a pair of name and letter"),
    "longbook_choice_eng": (_PAIR, "a pair of option and letter"),
    "longdialogue_qa_eng": (_TEXTS, "a list of texts"),
    "longbook_qa_eng": (_TEXT_OR_TEXTS, "a list of texts"),
    "longbook_qa_chn": (_TEXT_OR_TEXTS, "a list of texts"),
    "longbook_sum_eng": (_TEXT_OR_TEXTS, "a text or a list of texts"),
}
"""Type of the label of each task, and the type in words."""


def _read_infinitebench(file: PredictionFile, task: str) -> Iterator[Prediction]:
    """Yield predictions of InfiniteBench."""
    for line in file.lines():
        if "id" in line.record:
            file.add_sample(line, "id")
        record = file.validated(line, InfiniteBenchRecord)
        if record and _has_label(file, line, task, record.label):
            extras = {"model": file.path.parent.name, "row": line.index}
            yield Prediction(record.prediction, record.label, extras)


def _has_label(file: PredictionFile, line: Line, task: str, label: Any) -> bool:
    """Return whether a label has the type that the task's metric needs; if not, count the line."""
    adapter, words = LABELS[task]
    try:
        adapter.validate_python(label, strict=True)
    except ValidationError:
        file.add_broken(line.number, f"'ground_truth' or 'label' is not {words}")
        return False
    file.text_references += isinstance(label, str) and task.startswith("longbook_qa")
    return True


class BabilongRecord(Record):
    """Prediction of BABILong."""

    target: Text
    output: Text
    question: Text


def _read_babilong(file: PredictionFile, _: str) -> Iterator[Prediction]:
    """Yield predictions of BABILong, whose files are CSV with the number of a sample first."""
    for line in file.csv_rows():
        file.add_sample(line, "", "question")
        record = file.validated(line, BabilongRecord)
        if record:
            extras = {"question": record.question, "row": line.index}
            yield Prediction(record.output, [record.target], extras)


def _longbench(task: str, predictions: Sequence[Prediction]) -> ReportedScores:
    scores = [longbench_metrics.score(task, *prediction) for prediction in predictions]
    return percentages({"score": scores})


def _longbench_e(task: str, predictions: Sequence[Prediction]) -> ReportedScores:
    scores = [longbench_metrics.score(task, *prediction) for prediction in predictions]
    lengths = [prediction.extras["length"] for prediction in predictions]
    return percentages({"score": scores, **longbench_metrics.length_bands(scores, lengths)})


def _longbench_v2(_: str, predictions: Sequence[Prediction]) -> ReportedScores:
    answers = [_judged_answer(item) for item in predictions]
    scores = longbench_metrics.scores_by_group(answers)
    return {
        name: mean_percent(scores[name], accuracy)
        for name, accuracy in longbench_metrics.accuracies(answers).items()
    }


def _judged_answer(prediction: Prediction) -> longbench_metrics.JudgedAnswer:
    """Judge a prediction by its response, or take upstream's judgement if the file has none."""
    extras = prediction.extras
    if prediction.references:
        (answer,) = prediction.references
        score = longbench_metrics.choice_score(prediction.prediction, answer)
    else:
        score = float(extras["judge"])
    return longbench_metrics.JudgedAnswer(score, extras["difficulty"], extras["length"])


def _leval(task: str, predictions: Sequence[Prediction]) -> ReportedScores:
    samples = [leval_metrics.parts(task, *item) for item in predictions]
    (headline, value), *others = leval_metrics.total(samples).items()
    values = leval_metrics.values_by_part(samples)
    reported = {headline: reported_score(leval_metrics.estimate(samples), value)}
    for name, value in others:
        reported[name] = reported_score(Estimate.mean(values[name]), value)
    return reported


def _ruler(task: str, predictions: Sequence[Prediction]) -> ReportedScores:
    return percentages({"score": [ruler_metrics.score(task, *item) for item in predictions]})


def _infinitebench(
    task: str,
    predictions: Sequence[Prediction],
    scorer: infinitebench_metrics.Scorer = "official",
) -> ReportedScores:
    scores = [infinitebench_metrics.score(task, *item, scorer=scorer) for item in predictions]
    return percentages({"score": scores})


def _babilong(task: str, predictions: Sequence[Prediction]) -> ReportedScores:
    """Return the leaderboard's score and that of 2024, which upstream does not round."""
    labels = babilong_metrics.LABELS[task]
    reported: ReportedScores = {}
    for name in ("babilong", "babilong_2024"):
        scorer = babilong_metrics.SCORERS[name]
        scores = [
            float(scorer(answer, target, extras["question"], labels))
            for answer, (target,), extras in predictions
        ]
        reported[name] = mean_percent(scores, 100 * sum(scores) / len(scores))
    return reported


FORMATS: dict[str, PredictionFormat] = {
    "longbench": PredictionFormat(
        longbench_metrics.METRICS, _read_longbench, _longbench, "longbench"
    ),
    "longbench-e": PredictionFormat(
        longbench_metrics.METRICS,
        partial(_read_longbench, schema=LongBenchERecord),
        _longbench_e,
        "longbench-e",
    ),
    "longbench-v2": PredictionFormat((), _read_longbench_v2, _longbench_v2, "longbench-v2"),
    "leval": PredictionFormat(leval_metrics.METRICS, _read_leval, _leval, "leval"),
    "ruler": PredictionFormat(ruler_metrics.METRICS, _read_ruler, _ruler),
    "infinitebench": PredictionFormat(
        infinitebench_metrics.METRICS["official"],
        _read_infinitebench,
        _infinitebench,
        "infinitebench",
    ),
    "infinitebench-lampe": PredictionFormat(
        infinitebench_metrics.METRICS["lampe"],
        _read_infinitebench,
        partial(_infinitebench, scorer="lampe"),
        "infinitebench",
    ),
    "babilong": PredictionFormat(
        babilong_metrics.LABELS, _read_babilong, _babilong, suffix=".csv", separator="_"
    ),
}
