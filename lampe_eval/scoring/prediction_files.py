"""Prediction files as the benchmarks' own code writes them, scored to the numbers that their own code prints.

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


class Answer(NamedTuple):
    """What a benchmark's ``score`` takes: a prediction, its references (of InfiniteBench the label), and extras."""

    prediction: str
    references: Any
    extras: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What a benchmark's own code reports of a task.

    Attributes:
        scores: its numbers by name, in percent and rounded as upstream does, the headline first.
        n: predictions scored.
        skipped: broken predictions, which published files of InfiniteBench and LongBench v2 have.
    """

    scores: Mapping[str, float]
    n: int
    skipped: int = 0


@dataclass(frozen=True)
class Family:
    """Prediction files of a benchmark.

    Attributes:
        tasks: names to look for; none where a file has a model's name, which is then used as the task's.
        read: yields the predictions of a file, None for broken ones.
        total: the numbers of a task.
    """

    tasks: Collection[str]
    read: Callable[[Path], Iterator[Answer | None]]
    total: Callable[[str, Sequence[Answer]], dict[str, float]]


def score_folder(bench: str, folder: Path) -> dict[str, Result]:
    """Scores every prediction file of one model by task.

    Args:
        bench: a name in ``FAMILIES``.
        folder: searched with all folders in it.

    Raises:
        UserError: for an unknown benchmark, a folder without predictions, a file of no known task, a second file of a
            task, a line that cannot be used.
    """
    if bench not in FAMILIES:
        raise UserError(
            f"no prediction files of {bench!r} are known; known are those of: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[bench]
    paths: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.jsonl")):
        task = _task(path, folder, family.tasks)
        if task in paths:
            raise UserError(
                f"{path}: {task} has predictions in {paths[task]} too; name the folder of one model"
            )
        paths[task] = path
    if not paths:
        raise UserError(
            f"{folder}: holds no .jsonl files; name a folder with predictions of {bench}"
        )
    return {task: _result(family, task, path) for task, path in paths.items()}


def _task(path: Path, folder: Path, tasks: Collection[str]) -> str:
    """The task in a file's name, or else in the name of the nearest folder that has one; the name if none is known."""
    if not tasks:
        return path.stem
    inside = path.relative_to(folder.parent)
    names = [path.name.split(".")[0].removeprefix("preds_"), *reversed(inside.parts[:-1])]
    for name in names:
        if name in tasks:
            return name
    raise UserError(
        f"{path}: neither file nor folder is named after a task; tasks are: {', '.join(tasks)}"
    )


def _result(family: Family, task: str, path: Path) -> Result:
    read = list(family.read(path))
    answers = [answer for answer in read if answer]
    if not answers:
        raise UserError(f"{path}: holds no predictions to score")
    return Result(family.total(task, answers), len(answers), len(read) - len(answers))


@dataclass(frozen=True)
class Line:
    """A JSON object and where it stands."""

    path: Path
    number: int
    record: Mapping[str, Any]

    def get(self, *keys: str) -> Any:
        """The value of the first of the keys that is there.

        Raises:
            UserError: where none is.
        """
        for key in keys:
            if key in self.record:
                return self.record[key]
        raise UserError(f"{self.path}:{self.number}: has no {' or '.join(map(repr, keys))}")

    def text(self, *keys: str) -> str:
        """The same for a text.

        Raises:
            UserError: where there is none.
        """
        value = self.get(*keys)
        if not isinstance(value, str):
            raise UserError(
                f"{self.path}:{self.number}: {' or '.join(map(repr, keys))} is not a text"
            )
        return value


def read_longbench(path: Path, *, lengths: bool = False) -> Iterator[Answer]:
    """Predictions of LongBench, all with the ``all_classes`` of the last, as upstream scores them.

    Args:
        lengths: whether each has to have its ``length``, as LongBench-E needs.
    """
    lines = list(_lines(path))
    for line in lines:
        extras = {"all_classes": lines[-1].get("all_classes")}
        if lengths:
            extras["length"] = line.get("length")
        yield Answer(line.text("pred"), line.get("answers"), extras)


def read_longbench_v2(path: Path) -> Iterator[Answer | None]:
    """Predictions of LongBench v2, with upstream's ``judge`` where there is no ``response``; None for an ``error``."""
    for line in _lines(path):
        if "error" in line.record:
            yield None
            continue
        extras = {key: line.get(key) for key in ("difficulty", "length")}
        if "response" in line.record:
            yield Answer(line.text("response"), [line.text("answer")], extras)
        else:
            yield Answer("", [], {**extras, "judge": line.get("judge")})


def read_leval(path: Path) -> Iterator[Answer]:
    """Predictions of L-Eval that need no judge; the first key of the first line with ``_pred`` in it names them."""
    lines = list(_lines(path))
    key = next((key for line in lines[:1] for key in line.record if "_pred" in key), "<model>_pred")
    for row, line in enumerate(lines):
        if line.get("evaluation") in leval_metrics.SCORED:
            yield Answer(line.text(key), [line.text("gt")], {"row": row})


def read_ruler(path: Path) -> Iterator[Answer]:
    """Predictions of RULER, its own or among STRING's progress: only lines that begin with ``{`` are read."""
    for line in _lines(path, start="{"):
        yield Answer(line.text("pred"), line.get("outputs", "needle"), {})


def read_infinitebench(path: Path) -> Iterator[Answer | None]:
    """Predictions of InfiniteBench, some of whose published files hold two on a line; None for a broken one."""
    for number, text in _texts(path):
        for record in _objects(text):
            if record is None:
                yield None
                continue
            line = Line(path, number, record)
            extras = {"model": path.parent.name}
            yield Answer(line.text("prediction", "pred"), line.get("ground_truth", "label"), extras)


def _objects(text: str) -> Iterator[dict[str, Any] | None]:
    """JSON objects that stand one after another; None in place of the first that is broken and all after it."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        try:
            record, end = decoder.raw_decode(text)
        except ValueError:
            record, end = None, len(text)
        yield record if isinstance(record, dict) else None
        text = text[end:]


def _lines(path: Path, start: str = "") -> Iterator[Line]:
    for number, text in _texts(path):
        if text.startswith(start):
            try:
                record = json.loads(text)
            except ValueError as error:
                raise UserError(f"{path}:{number}: is no JSON ({error})") from None
            if not isinstance(record, dict):
                raise UserError(f"{path}:{number}: is no JSON object")
            yield Line(path, number, record)


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers."""
    try:
        with path.open(encoding="utf-8") as lines:
            yield from ((number, text) for number, text in enumerate(lines, 1) if text.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _longbench(task: str, answers: Sequence[Answer]) -> dict[str, float]:
    return {"score": percent([longbench_metrics.score(task, *answer) for answer in answers])}


def _longbench_e(task: str, answers: Sequence[Answer]) -> dict[str, float]:
    scores = [longbench_metrics.score(task, *answer) for answer in answers]
    lengths = [answer.extras["length"] for answer in answers]
    return {"score": percent(scores), **longbench_metrics.by_length(scores, lengths)}


def _longbench_v2(_: str, answers: Sequence[Answer]) -> dict[str, float]:
    return longbench_metrics.report([_verdict(answer) for answer in answers])


def _verdict(answer: Answer) -> longbench_metrics.Verdict:
    """A prediction as its response is judged, or was judged by upstream where the file has none."""
    extras = answer.extras
    credit = (
        longbench_metrics.credit(answer.prediction, *answer.references)
        if answer.references
        else float(extras["judge"])
    )
    return longbench_metrics.Verdict(credit, extras["difficulty"], extras["length"])


def _leval(task: str, answers: Sequence[Answer]) -> dict[str, float]:
    return leval_metrics.total([leval_metrics.parts(task, *answer) for answer in answers])


def _ruler(task: str, answers: Sequence[Answer]) -> dict[str, float]:
    return {"score": percent([ruler_metrics.score(task, *answer) for answer in answers])}


def _infinitebench(
    task: str, answers: Sequence[Answer], scorer: infinitebench_metrics.Scorer = "official"
) -> dict[str, float]:
    return {
        "score": percent(
            [infinitebench_metrics.score(task, *answer, scorer=scorer) for answer in answers]
        )
    }


FAMILIES: dict[str, Family] = {
    "longbench": Family(longbench_metrics.METRICS, read_longbench, _longbench),
    "longbench-e": Family(
        longbench_metrics.METRICS, partial(read_longbench, lengths=True), _longbench_e
    ),
    "longbench-v2": Family((), read_longbench_v2, _longbench_v2),
    "leval": Family(leval_metrics.METRICS, read_leval, _leval),
    "ruler": Family(ruler_metrics.METRICS, read_ruler, _ruler),
    "infinitebench": Family(
        infinitebench_metrics.METRICS["official"], read_infinitebench, _infinitebench
    ),
    "infinitebench-lampe": Family(
        infinitebench_metrics.METRICS["lampe"],
        read_infinitebench,
        partial(_infinitebench, scorer="lampe"),
    ),
}
