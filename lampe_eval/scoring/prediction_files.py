"""Prediction files that the benchmarks' own code writes, scored as that code scores them.

longbench              <task>.jsonl          pred, answers, all_classes
longbench-e            <task>.jsonl          the same and length
longbench-v2           <model>.jsonl         judge, difficulty, length; response and answer
leval                  <task>.pred.jsonl     <model>_pred, gt, evaluation
ruler                  <task>.jsonl          pred, outputs
                       <task>/**/*.jsonl     pred, needle between lines of progress (STRING, LaMPE)
infinitebench          preds_<task>.jsonl    prediction or pred, ground_truth or label
infinitebench-lampe    preds_<task>.jsonl    the same, scored as LaMPE and STRING do
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lampe_eval.errors import UserError
from lampe_eval.scoring import (
    infinitebench_metrics,
    leval_metrics,
    longbench_metrics,
    ruler_metrics,
)
from lampe_eval.scoring.text_metrics import percent


class Prediction(NamedTuple):
    """Arguments that the `score` function of a benchmark takes.

    Attributes:
        prediction: the answer.
        references: the references; for InfiniteBench the label.
        extras: anything else that the benchmark's metrics need.
    """

    prediction: str
    references: Any
    extras: Mapping[str, Any]


@dataclass(frozen=True)
class TaskResult:
    """Result that a benchmark's own code reports for a task.

    Attributes:
        scores: its numbers by name, in percent and rounded as upstream rounds, the headline first.
        n: number of scored predictions.
        skipped: number of broken predictions; published files of InfiniteBench and LongBench v2
            have some.
    """

    scores: Mapping[str, float]
    n: int
    skipped: int = 0


@dataclass(frozen=True)
class PredictionFormat:
    """Format of a benchmark's prediction files.

    Attributes:
        tasks: names of tasks to look for in the names of files; empty if files are named after a
            model, whose name then stands for the task.
        read: yields the predictions of a file, None for broken ones.
        total: returns the numbers of a task.
    """

    tasks: Collection[str]
    read: Callable[[Path], Iterator[Prediction | None]]
    total: Callable[[str, Sequence[Prediction]], dict[str, float]]


def score_folder(bench: str, folder: Path) -> dict[str, TaskResult]:
    """Score every prediction file of one model, by task.

    Args:
        bench: a name in `FORMATS`.
        folder: folder that is searched with all its subfolders.

    Raises:
        UserError: for an unknown benchmark, a folder without predictions, a file of no known task,
            a second file of a task, or a line that cannot be used.
    """
    if bench not in FORMATS:
        raise UserError(
            f"no prediction files of {bench!r} are known; known are those of: {', '.join(FORMATS)}"
        )
    file_format = FORMATS[bench]
    paths: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.jsonl")):
        task = _task_name(path, folder, file_format.tasks)
        if task in paths:
            raise UserError(
                f"{path}: {task} has predictions in {paths[task]} too; name the folder of one model"
            )
        paths[task] = path
    if not paths:
        raise UserError(
            f"{folder}: holds no .jsonl files; name a folder with predictions of {bench}"
        )
    return {task: _task_result(file_format, task, path) for task, path in paths.items()}


def _task_name(path: Path, folder: Path, tasks: Collection[str]) -> str:
    """Return the task that a file, or else its nearest folder, is named after.

    If no tasks are known, return the name of the file.
    """
    if not tasks:
        return path.stem
    # From the parent, since the searched folder itself may be named after the task.
    relative = path.relative_to(folder.parent)
    file_name = path.name.split(".")[0].removeprefix("preds_")
    for name in (file_name, *reversed(relative.parts[:-1])):
        if name in tasks:
            return name
    raise UserError(
        f"{path}: neither file nor folder is named after a task; tasks are: {', '.join(tasks)}"
    )


def _task_result(file_format: PredictionFormat, task: str, path: Path) -> TaskResult:
    predictions = list(file_format.read(path))
    usable = [prediction for prediction in predictions if prediction]
    if not usable:
        raise UserError(f"{path}: holds no predictions to score")
    return TaskResult(file_format.total(task, usable), len(usable), len(predictions) - len(usable))


@dataclass(frozen=True)
class JsonLine:
    """JSON object on a line of a file.

    Attributes:
        path: the file.
        number: number of the line, from 1.
        record: the object.
    """

    path: Path
    number: int
    record: Mapping[str, Any]

    def get(self, *keys: str) -> Any:
        """Return the value of the first of the keys that exists.

        Raises:
            UserError: if none exists.
        """
        for key in keys:
            if key in self.record:
                return self.record[key]
        raise UserError(f"{self.path}:{self.number}: has no {' or '.join(map(repr, keys))}")

    def text(self, *keys: str) -> str:
        """Return the text under the first of the keys that exists.

        Raises:
            UserError: if none exists, or its value is not a text.
        """
        value = self.get(*keys)
        if not isinstance(value, str):
            raise UserError(
                f"{self.path}:{self.number}: {' or '.join(map(repr, keys))} is not a text"
            )
        return value


def read_longbench(path: Path, *, lengths: bool = False) -> Iterator[Prediction]:
    """Yield predictions of LongBench.

    Args:
        path: the file.
        lengths: whether each line must have its `length`, as LongBench-E needs.
    """
    lines = list(_json_lines(path))
    for line in lines:
        # eval.py keeps the classes of the last line it read and scores all lines with them.
        extras = {"all_classes": lines[-1].get("all_classes")}
        if lengths:
            extras["length"] = line.get("length")
        yield Prediction(line.text("pred"), line.get("answers"), extras)


def read_longbench_v2(path: Path) -> Iterator[Prediction | None]:
    """Yield predictions of LongBench v2, None for a line with an `error`.

    A line without a `response` has upstream's own judgement, `judge`.
    """
    for line in _json_lines(path):
        if "error" in line.record:
            yield None
            continue
        extras = {key: line.get(key) for key in ("difficulty", "length")}
        if "response" in line.record:
            yield Prediction(line.text("response"), [line.text("answer")], extras)
        else:
            yield Prediction("", [], {**extras, "judge": line.get("judge")})


def read_leval(path: Path) -> Iterator[Prediction]:
    """Yield predictions of L-Eval that need no judge."""
    lines = list(_json_lines(path))
    # The first key of the first line that contains `_pred` is the key of all predictions.
    first_keys = lines[0].record if lines else ()
    pred_key = next((key for key in first_keys if "_pred" in key), "<model>_pred")
    for row, line in enumerate(lines):
        if line.get("evaluation") in leval_metrics.SCORED:
            yield Prediction(line.text(pred_key), [line.text("gt")], {"row": row})


def read_ruler(path: Path) -> Iterator[Prediction]:
    """Yield predictions of RULER."""
    # STRING's files have lines of progress in between: only lines that begin with `{` are read.
    for line in _json_lines(path, start="{"):
        yield Prediction(line.text("pred"), line.get("outputs", "needle"), {})


def read_infinitebench(path: Path) -> Iterator[Prediction | None]:
    """Yield predictions of InfiniteBench, None for a broken one.

    Some published files have two predictions on a line.
    """
    for number, text in _text_lines(path):
        for record in _json_objects(text):
            if record is None:
                yield None
                continue
            line = JsonLine(path, number, record)
            prediction = line.text("prediction", "pred")
            label = line.get("ground_truth", "label")
            # Upstream's folders are named after the model, which decides how math_calc is scored.
            yield Prediction(prediction, label, {"model": path.parent.name})


def _json_objects(text: str) -> Iterator[dict[str, Any] | None]:
    """Yield the JSON objects of a line; None in place of a broken one and all that follow it."""
    decoder = json.JSONDecoder()
    rest = text.lstrip()
    while rest:
        try:
            record, end = decoder.raw_decode(rest)
        except ValueError:
            yield None
            return
        yield record if isinstance(record, dict) else None
        # Some published files of InfiniteBench have two predictions on one line.
        rest = rest[end:].lstrip()


def _json_lines(path: Path, start: str = "") -> Iterator[JsonLine]:
    for number, text in _text_lines(path):
        if not text.startswith(start):
            continue
        try:
            record = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path}:{number}: is no JSON ({error})") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: is no JSON object")
        yield JsonLine(path, number, record)


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, text in enumerate(lines, 1):
                if text.strip():
                    yield number, text
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _longbench(task: str, predictions: Sequence[Prediction]) -> dict[str, float]:
    scores = [longbench_metrics.score(task, *prediction) for prediction in predictions]
    return {"score": percent(scores)}


def _longbench_e(task: str, predictions: Sequence[Prediction]) -> dict[str, float]:
    scores = [longbench_metrics.score(task, *prediction) for prediction in predictions]
    lengths = [prediction.extras["length"] for prediction in predictions]
    return {"score": percent(scores), **longbench_metrics.by_length(scores, lengths)}


def _longbench_v2(_: str, predictions: Sequence[Prediction]) -> dict[str, float]:
    return longbench_metrics.accuracies([_judged_answer(item) for item in predictions])


def _judged_answer(prediction: Prediction) -> longbench_metrics.JudgedAnswer:
    """Judge a prediction by its response, or take upstream's judgement if the file has none."""
    extras = prediction.extras
    if prediction.references:
        (answer,) = prediction.references
        score = longbench_metrics.choice_score(prediction.prediction, answer)
    else:
        score = float(extras["judge"])
    return longbench_metrics.JudgedAnswer(score, extras["difficulty"], extras["length"])


def _leval(task: str, predictions: Sequence[Prediction]) -> dict[str, float]:
    return leval_metrics.total([leval_metrics.parts(task, *item) for item in predictions])


def _ruler(task: str, predictions: Sequence[Prediction]) -> dict[str, float]:
    return {"score": percent([ruler_metrics.score(task, *item) for item in predictions])}


def _infinitebench(
    task: str,
    predictions: Sequence[Prediction],
    scorer: infinitebench_metrics.Scorer = "official",
) -> dict[str, float]:
    scores = [infinitebench_metrics.score(task, *item, scorer=scorer) for item in predictions]
    return {"score": percent(scores)}


FORMATS: dict[str, PredictionFormat] = {
    "longbench": PredictionFormat(longbench_metrics.METRICS, read_longbench, _longbench),
    "longbench-e": PredictionFormat(
        longbench_metrics.METRICS, partial(read_longbench, lengths=True), _longbench_e
    ),
    "longbench-v2": PredictionFormat((), read_longbench_v2, _longbench_v2),
    "leval": PredictionFormat(leval_metrics.METRICS, read_leval, _leval),
    "ruler": PredictionFormat(ruler_metrics.METRICS, read_ruler, _ruler),
    "infinitebench": PredictionFormat(
        infinitebench_metrics.METRICS["official"], read_infinitebench, _infinitebench
    ),
    "infinitebench-lampe": PredictionFormat(
        infinitebench_metrics.METRICS["lampe"],
        read_infinitebench,
        partial(_infinitebench, scorer="lampe"),
    ),
}
