"""Prediction files of other harnesses, scored as each of them, or a benchmark's code, scores.

lm-eval        samples_<task>_<date>.jsonl   data row, answers, and the score of each row
helmet         <dataset>_*.json              data rows with answers, and their average scores
kvpress        predictions*.csv              columns of the data, `predicted_answer`
opencompass    <model>/<dataset>.json        rows by number: prediction and `gold`

lm-eval and HELMET store their scores, which are taken as they are. kvpress and OpenCompass store
none beside the rows, so their scorers are repeated here; where they differ from the benchmark's
own, a comment says so. All numbers are in percent.
"""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lampe_eval.errors import UserError
from lampe_eval.file_io import read_json
from lampe_eval.scoring import longbench_metrics, ruler_metrics
from lampe_eval.scoring.estimates import Estimate, perplexity
from lampe_eval.scoring.prediction_files import (
    FolderScores,
    TaskResult,
    no_predictions,
    task_result,
    visible_files,
)
from lampe_eval.scoring.prediction_formats import FORMATS, longbench_problem
from lampe_eval.scoring.prediction_lines import (
    Line,
    Prediction,
    PredictionFile,
    Record,
    References,
    SomeReferences,
    Text,
    csv_rows,
    message_of,
)
from lampe_eval.scoring.reported_scores import (
    ReportedScore,
    ReportedScores,
    mean_percent,
    percentages,
    reported_score,
)

Family = Literal["lm-eval", "helmet", "kvpress", "opencompass"]

RULER_NAMES = {"ruler_vt": "vt", "ruler_cwe": "cwe", "ruler_fwe": "fwe"} | {
    "ruler_qa_squad": "qa_1",
    "ruler_qa_hotpot": "qa_2",
    "ruler_qa_hotpotqa": "qa_2",
}
"""Tasks of RULER by the names of lm-eval and OpenCompass, where they differ from RULER's own."""
SHORT_NAMES = {"niah_mk": "niah_multikey", "niah_s": "niah_single"} | {
    "niah_mv": "niah_multivalue",
    "niah_mq": "niah_multiquery",
}
"""Beginnings of RULER's tasks by HELMET's short ones."""
NOT_THIS_LENGTH = -1
"""Score that lm-eval gives a row of RULER under the name of another length."""
MAX_ROUNDING = 0.01
"""Percent by which an average that HELMET stored may miss that of its rows."""


class LogLikelihood(NamedTuple):
    """Log-likelihood of a text, with the number of tokens, words or bytes that it counts as."""

    total: float
    weight: float


@dataclass(frozen=True)
class HarnessRow:
    """Prediction of another harness.

    Attributes:
        task: name of the task in the harness.
        group: part of the task that has a score of its own, such as its length; may be empty.
        prediction: the arguments of a benchmark's scorer.
        bench: our name of the benchmark, empty for one that is not scored here.
        bench_task: our name of the task.
        scores: scores that the harness stored, from 0 to 1; of a perplexity, a log-likelihood.
        record: the row as the harness wrote it.
    """

    task: str
    group: str
    prediction: Prediction
    bench: str = ""
    bench_task: str = ""
    scores: Mapping[str, "float | LogLikelihood"] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)


OwnScores = Callable[[Sequence[HarnessRow]], ReportedScores]


@dataclass(frozen=True)
class HarnessFile:
    """File of a harness.

    Attributes:
        family: name of the harness.
        path: the file.
        task: name of the task, empty where rows name it.
        parts: further files whose rows follow.
    """

    family: Family
    path: Path
    task: str
    parts: tuple[Path, ...] = ()


def find_harness_files(folder: Path) -> tuple[list[HarnessFile], list[str]]:
    """Return the files of other harnesses in a folder, and what is left out of them and why."""
    found: list[HarnessFile] = []
    left_out: list[str] = []
    for path in visible_files(folder, "samples_*.jsonl"):
        # The name ends in the time at which the run began.
        task = re.sub(r"_\d{4}-\d\d-\d\dT[\d.:-]+$", "", path.stem)
        found.append(HarnessFile("lm-eval", path, task.removeprefix("samples_")))
    for path in visible_files(folder, "predictions*.csv"):
        found.append(HarnessFile("kvpress", path, ""))
    for path in visible_files(folder, "tmp_*.jsonl"):
        left_out.append(f"{path}: is an unfinished run of OpenCompass")
    json_files = [path for path in visible_files(folder, "*.json") if _may_be_rows(path)]
    numbered: dict[tuple[Path, str], list[Path]] = {}
    for path in json_files:
        try:
            value = read_json(path)
        except UserError as error:
            left_out.append(str(error))
            continue
        family = _family_of(value)
        if family == "helmet":
            found.append(HarnessFile("helmet", path, _helmet_task(path, value)))
        elif family == "opencompass":
            match = re.fullmatch(r"(.*)_\d+", path.stem)
            numbered.setdefault((path.parent, match[1] if match else path.stem), []).append(path)
    for (parent, task), paths in numbered.items():
        found.append(_opencompass_file(parent, task, paths, left_out))
    return found, left_out


def _may_be_rows(path: Path) -> bool:
    return not path.name.startswith(("result", "metrics", "config", "summary"))


def _family_of(value: Any) -> Family | None:
    """Return the harness that wrote a JSON file, by what is in it."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("data"), list) and "averaged_metrics" in value:
        return "helmet"
    first = value.get("0")
    return "opencompass" if isinstance(first, dict) and "prediction" in first else None


def _helmet_task(path: Path, value: dict[str, Any]) -> str:
    """Return the name of the data set and the length, which the settings of the run hold."""
    settings = value.get("args")
    if not isinstance(settings, dict) or "datasets" not in settings:
        return path.stem
    return f"{settings['datasets']} {settings.get('input_max_length', '')}".rstrip()


def _opencompass_file(
    parent: Path, task: str, paths: list[Path], left_out: list[str]
) -> HarnessFile:
    """Return a file of OpenCompass with its parts, which are numbered from 0 without a gap."""
    whole = parent / f"{task}.json"
    if whole in paths:
        left_out += [f"{path}: is a part of {whole.name}" for path in paths if path != whole]
        return HarnessFile("opencompass", whole, task)
    numbers = {int(path.stem.rpartition("_")[2]): path for path in paths}
    parts: list[Path] = []
    while len(parts) in numbers:
        parts.append(numbers.pop(len(parts)))
    if not parts:
        number = min(numbers)
        return HarnessFile("opencompass", numbers.pop(number), f"{task}_{number}")
    left_out += [f"{path}: follows a missing part of {task}" for path in numbers.values()]
    return HarnessFile("opencompass", parts[0], task, tuple(parts[1:]))


def score_harness_files(
    files: Sequence[HarnessFile], bench: str = "", left_out: Collection[str] = ()
) -> FolderScores:
    """Score files of other harnesses.

    Args:
        files: the files.
        bench: name of a benchmark, whose own code then scores; empty to score as the harness does.
        left_out: files that are left out already, each with the reason.
    """
    results: dict[str, TaskResult] = {}
    not_scored = list(left_out)
    for file in files:
        try:
            new = dict(_score_file(file, bench, not_scored))
        except UserError as error:
            not_scored.append(str(error))
            continue
        for label, result in new.items():
            number = 2
            unique = label
            # Two runs of one task, or two models, are told apart by the name of the file.
            while unique in results:
                unique = f"{label} ({file.path.parent.name}, {number})"
                number += 1
            results[unique] = result
    return FolderScores(results, not_scored)


def _score_file(
    file: HarnessFile, bench: str, left_out: list[str]
) -> Iterator[tuple[str, TaskResult]]:
    """Yield label and result of each task in a file; name in `left_out` those without a scorer.

    Raises:
        UserError: if the file cannot be read, or has nothing that can be scored.
    """
    counts = PredictionFile(file.path)
    rows = list(READERS[file.family](file, counts))
    if file.family == "helmet" and not bench:
        yield file.task, _stored_averages(file, rows, counts)
        return
    if not rows:
        raise UserError((counts.broken or [no_predictions(file.path)])[0])
    groups: dict[str, list[HarnessRow]] = {}
    for row in rows:
        label = f"{row.task} {row.group}" if row.group and bench else row.task
        groups.setdefault(label, []).append(row)
    for label, members in groups.items():
        total = _total(file.family, members[0], bench)
        if total is None:
            reason = f"it is no task of {bench}" if bench else f"{file.family} stores no score"
            left_out.append(f"{file.path}: {label} cannot be scored: {reason}")
            continue
        yield label, task_result(total(members), [row.prediction for row in members], counts)
        # Counts are of the whole file, so they are said once.
        counts = PredictionFile(file.path)


def _total(family: Family, row: HarnessRow, bench: str) -> OwnScores | None:
    """Return the function that scores the rows of a task, None if there is none."""
    if bench:
        # LongBench-E has LongBench's rows, and bands of their lengths beside the score.
        if bench.removesuffix("-e") != row.bench:
            return None
        return partial(_bench_scores, bench)
    return _stored_scores if row.scores is not None else OWN_SCORERS.get((family, row.bench))


def _bench_scores(bench: str, rows: Sequence[HarnessRow]) -> ReportedScores:
    """Return the numbers of rows as a benchmark's own code scores them."""
    return FORMATS[bench].total(rows[0].bench_task, [row.prediction for row in rows])


def _stored_scores(rows: Sequence[HarnessRow]) -> ReportedScores:
    """Return the mean of each score that lm-eval stored; a row of another length has none."""
    means: ReportedScores = {}
    by_name: dict[str, list[float]] = {}
    texts_by_name: dict[str, list[LogLikelihood]] = {}
    for row in rows:
        for name, value in (row.scores or {}).items():
            if isinstance(value, LogLikelihood):
                texts_by_name.setdefault(name, []).append(value)
            elif value != NOT_THIS_LENGTH:
                by_name.setdefault(name, []).append(value)
    for name, values in by_name.items():
        means[name] = mean_percent(values, round(100 * fmean(values), 4))
    for name, texts in texts_by_name.items():
        means[name] = _perplexity(texts)
    return means


def _perplexity(texts: Sequence[LogLikelihood]) -> ReportedScore:
    loss = -math.fsum(text.total for text in texts) / math.fsum(text.weight for text in texts)
    try:
        value = round(math.exp(loss), 4)
    except OverflowError:
        return ReportedScore(math.inf)
    parts = np.array([(-text.total, text.weight) for text in texts])
    return reported_score(Estimate(parts, perplexity, scale="log"), value)


class LmEvalRecord(Record):
    """Row of lm-eval's file of samples."""

    doc_id: int | str
    doc: dict[str, Any]
    filtered_resps: list[Text]
    metrics: list[str] = Field(default_factory=list)
    filter: str = "none"


class RulerDocument(Record):
    """Row of RULER's data in lm-eval."""

    outputs: SomeReferences
    max_length: int


class LongBenchDocument(Record):
    """Row of LongBench's data in lm-eval."""

    answers: References
    all_classes: References | None = None
    length: int = 0


def _read_lm_eval(file: HarnessFile, counts: PredictionFile) -> Iterator[HarnessRow]:
    """Yield the rows of lm-eval; a filter other than the first repeats every row."""
    first_filter = ""
    bench, bench_task = _bench_of(file.task)
    for line in counts.lines():
        record = counts.validated(line, LmEvalRecord)
        if record is None:
            continue
        first_filter = first_filter or record.filter
        if record.filter != first_filter:
            counts.other_lines += 1
            counts.records -= 1
            continue
        counts.add_sample(line, "doc_id")
        if not record.filtered_resps:
            counts.add_broken(line.number, "'filtered_resps' is empty")
            continue
        document = _document(bench, bench_task, line, record.doc, counts)
        if document is None:
            continue
        references, extras, group = document
        prediction = Prediction(record.filtered_resps[0], references, extras)
        scores = _numbers(line.record, record.metrics)
        yield HarnessRow(file.task, group, prediction, bench, bench_task, scores, line.record)


def _numbers(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | LogLikelihood]:
    """Return the scores of a row that are numbers, and the log-likelihoods of perplexities."""
    scores = {name: _number(name, record.get(name)) for name in names}
    return {name: score for name, score in scores.items() if score is not None}


def _number(name: str, value: Any) -> float | LogLikelihood | None:
    match value:
        case int() | float() if math.isfinite(value):
            return float(value)
        case [int() | float() as total, int() | float() as weight] if (
            name.endswith("perplexity") and math.isfinite(total) and 0 < weight < math.inf
        ):
            return LogLikelihood(total, weight)
    return None


def _document(
    bench: str, task: str, line: Line, document: dict[str, Any], counts: PredictionFile
) -> tuple[list[str], dict[str, Any], str] | None:
    """Return references, extras and group of a row of data; None, and a broken line, if it fails.

    The gold is in the row; lm-eval's `target` is its text in Python's notation.
    """
    inner = Line(line.number, line.index, document)
    if bench == "ruler":
        ruler = counts.validated(inner, RulerDocument)
        return None if ruler is None else (ruler.outputs, {}, str(ruler.max_length))
    if bench == "longbench":
        row = counts.validated(inner, LongBenchDocument)
        if row is None:
            return None
        problem = longbench_problem(task, row.answers, row.all_classes)
        if problem:
            counts.add_broken(line.number, problem)
            return None
        return row.answers, {"all_classes": row.all_classes, "length": row.length}, ""
    return ["?"], {}, ""


def _bench_of(name: str) -> tuple[str, str]:
    """Return our benchmark and task for a task of another harness; empty names if there is none."""
    # OpenCompass puts the length behind the name, ruler_niah_single_1_4k; so do our exports.
    name = re.sub(r"_(\d+k|\d{3,})$", "", name)
    if "LongBench" in name or name.startswith("longbench"):
        task = re.sub(r"^.*?longbench_", "", name, flags=re.IGNORECASE)
        task = task if task in longbench_metrics.METRICS else task.removesuffix("_e")
        return ("longbench", task) if task in longbench_metrics.METRICS else ("", "")
    task = RULER_NAMES.get(name, name.removeprefix("ruler_"))
    for short, long in SHORT_NAMES.items():
        task = re.sub(rf"^{short}(?=_|$)", long, task)
    return ("ruler", task) if task in ruler_metrics.METRICS else ("", "")


class HelmetRow(BaseModel):
    """Row of HELMET's output."""

    model_config = ConfigDict(extra="ignore")
    output: Text
    answer: References = Field(default_factory=list)


class HelmetFile(BaseModel):
    """Output of HELMET for one data set."""

    model_config = ConfigDict(extra="ignore")
    data: list[dict[str, Any]]
    averaged_metrics: dict[str, float]


def _read_helmet(file: HarnessFile, counts: PredictionFile) -> Iterator[HarnessRow]:
    """Yield the rows of HELMET."""
    bench, bench_task = _bench_of(file.task.split(" ")[0])
    # Only RULER's rows are those of a benchmark that is scored here.
    bench = bench if bench == "ruler" else ""
    stored = _helmet(file.path)
    for number, value in enumerate(stored.data, 1):
        counts.records += 1
        row = counts.validated(Line(number, number - 1, value), HelmetRow)
        if row is None:
            continue
        if bench and not row.answer:
            counts.add_broken(number, "'answer' is empty")
            continue
        prediction = Prediction(row.output, row.answer, {})
        scores = _numbers(value, list(stored.averaged_metrics))
        yield HarnessRow(file.task, "", prediction, bench, bench_task, scores, value)


def _helmet(path: Path) -> HelmetFile:
    try:
        return HelmetFile.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: {message_of(HelmetFile, error.errors()[0])}") from None


def _stored_averages(
    file: HarnessFile, rows: Sequence[HarnessRow], counts: PredictionFile
) -> TaskResult:
    """Return the averages that HELMET stored; scores are in percent there as well."""
    averages = _helmet(file.path).averaged_metrics
    if not averages:
        raise UserError(no_predictions(file.path))
    reported = {name: _averaged(value, name, rows) for name, value in averages.items()}
    return task_result(reported, [row.prediction for row in rows], counts)


def _averaged(value: float, name: str, rows: Sequence[HarnessRow]) -> ReportedScore:
    """Return an average with the scores of its rows, where these are what it is the average of."""
    found = [(row.scores or {}).get(name) for row in rows]
    scores = [score for score in found if isinstance(score, float)]
    if not scores or len(scores) < len(rows):
        return ReportedScore(value)
    is_average = math.isclose(100 * fmean(scores), value, abs_tol=MAX_ROUNDING)
    return mean_percent(scores, value) if is_average else ReportedScore(value)


def _read_kvpress(file: HarnessFile, counts: PredictionFile) -> Iterator[HarnessRow]:
    """Yield the rows of kvpress, whose columns are in any order."""
    for number, (_, texts) in enumerate(csv_rows(file.path), 1):
        counts.records += 1
        row = {key: value or "" for key, value in texts.items()}
        try:
            yield replace(_kvpress_row(row), record=row)
        except ValueError as error:
            counts.broken.append(f"{file.path}: row {number}: {error}")


def _kvpress_row(row: Mapping[str, str]) -> HarnessRow:
    """Return a row as the benchmark's that its columns are of.

    Raises:
        ValueError: for a row that cannot be scored.
    """
    if "predicted_answer" not in row:
        raise ValueError("has no 'predicted_answer'")
    answer = row["predicted_answer"]
    task = row.get("task", "")
    if "difficulty" in row:
        extras = {"difficulty": row["difficulty"], "length": row.get("length", "")}
        prediction = Prediction(answer, [row.get("answer", "")], extras)
        return HarnessRow("longbench-v2", "", prediction, "longbench-v2", "direct")
    if "answers" in row:
        classes = split_array(row["all_classes"]) if row.get("all_classes") else None
        length = row.get("length", "")
        longbench_extras = {"all_classes": classes, "length": int(length) if length else 0}
        references = split_array(row["answers"])
        prediction = Prediction(answer, references, longbench_extras)
        bench, bench_task = _bench_of(f"longbench_{task}")
        _refuse(longbench_problem(bench_task, references, classes))
        return HarnessRow(task, "", prediction, bench, bench_task)
    references = split_array(row.get("answer", ""))
    if not references:
        raise ValueError("'answer' is empty")
    bench, bench_task = _bench_of(task)
    return HarnessRow(task, "", Prediction(answer, references, {}), bench, bench_task)


def _refuse(problem: str) -> None:
    if problem:
        raise ValueError(problem)


_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def split_array(text: str) -> list[str]:
    """Return the texts of an array in numpy's notation: `['a' "b's"]`, without commas.

    Python's own parser would join neighbouring texts to one.

    Raises:
        ValueError: for an array of more than 1000 items, which numpy writes with `...`.
    """
    inner = text.strip()
    if not inner.startswith("["):
        return [text] if text else []
    rest = _QUOTED.sub("", inner)
    if "..." in rest:
        raise ValueError("a column holds only a part of its array ('...')")
    texts = [match[1:-1] for match in _QUOTED.findall(inner)]
    return [re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), item) for item in texts]


def _read_opencompass(file: HarnessFile, counts: PredictionFile) -> Iterator[HarnessRow]:
    """Yield the rows of OpenCompass; a row without `gold` cannot be scored."""
    bench, bench_task = _bench_of(file.task)
    for path in (file.path, *file.parts):
        value = read_json(path)
        if not isinstance(value, dict):
            raise UserError(f"{path}: is no JSON object")
        for key in sorted(value, key=lambda key: (not key.isdecimal(), key.zfill(20))):
            counts.records += 1
            try:
                prediction = _opencompass_prediction(value[key], bench_task)
            except ValueError as error:
                counts.broken.append(f"{path}: row {key}: {error}")
                continue
            yield HarnessRow(file.task, "", prediction, bench, bench_task, record=value[key])


_REFERENCES: TypeAdapter[list[str]] = TypeAdapter(SomeReferences)


def _opencompass_prediction(row: Any, task: str) -> Prediction:
    """Return the prediction of a row.

    Raises:
        ValueError: if it cannot be scored.
    """
    if not isinstance(row, dict):
        raise ValueError("is no JSON object")
    answer = row.get("prediction")
    # Several sequences of one prompt are a list, of which the first counts.
    answer = answer[0] if isinstance(answer, list) and answer else answer
    if not isinstance(answer, str):
        raise ValueError("'prediction' is not a text")
    gold = row.get("gold")
    classes = None
    if isinstance(gold, dict):
        classes = gold.get("all_classes")
        gold = gold.get("answers")
    if not gold:
        raise ValueError("has no 'gold'")
    gold = gold if isinstance(gold, list) else [gold]
    try:
        references = _REFERENCES.validate_python(gold)
    except ValidationError:
        raise ValueError("'gold' is not a list of texts") from None
    classes = classes if _are_texts(classes) else None
    _refuse(longbench_problem(task, references, classes))
    return Prediction(answer, references, {"all_classes": classes, "length": 0})


def _are_texts(value: Any) -> bool:
    is_list = isinstance(value, list) and bool(value)
    return is_list and all(isinstance(item, str) for item in value)


READERS: Mapping[Family, Callable[[HarnessFile, PredictionFile], Iterator[HarnessRow]]] = {
    "lm-eval": _read_lm_eval,
    "helmet": _read_helmet,
    "kvpress": _read_kvpress,
    "opencompass": _read_opencompass,
}
FAMILIES: tuple[Family, ...] = tuple(READERS)


def _kvpress_ruler(rows: Sequence[HarnessRow]) -> ReportedScores:
    """Return kvpress' score of RULER.

    kvpress drops control characters where RULER puts newlines: an answer of "12345", newline, "67"
    then holds 1234567.
    """
    scores = []
    for row in rows:
        prediction, references, _ = row.prediction
        text = re.sub(r"[\x00-\x1f]", "", prediction.strip()).strip()
        scores.append(ruler_metrics.METRICS[row.bench_task](text, references))
    return percentages({"string_match": scores})


def _kvpress_longbench(rows: Sequence[HarnessRow]) -> ReportedScores:
    """Return kvpress' score of LongBench.

    kvpress strips white space before it takes the first line, where LongBench strips newlines.
    """
    scores = []
    for row in rows:
        prediction, references, extras = row.prediction
        text = prediction.lstrip()
        scores.append(longbench_metrics.score(row.bench_task, text, references, extras))
    return percentages({"score": scores})


def _kvpress_longbench_v2(rows: Sequence[HarnessRow]) -> ReportedScores:
    """Return kvpress' accuracies: the sentence with the right letter anywhere in the answer."""
    groups: dict[str, list[float]] = {"average": []}
    for row in rows:
        prediction, (letter,), extras = row.prediction
        sentences = (f"The correct answer is {letter}", f"The correct answer is ({letter}")
        right = float(any(sentence in prediction for sentence in sentences))
        for group in ("average", extras["difficulty"], extras["length"]):
            groups.setdefault(group, []).append(right)
    return percentages(groups)


def _opencompass_ruler(rows: Sequence[HarnessRow]) -> ReportedScores:
    """Return OpenCompass' score of RULER, which takes answers as they are."""
    scores = []
    for row in rows:
        prediction, references, _ = row.prediction
        scores.append(ruler_metrics.METRICS[row.bench_task](prediction, references))
    return percentages({"score": scores})


OWN_SCORERS: Mapping[tuple[Family, str], OwnScores] = {
    ("kvpress", "ruler"): _kvpress_ruler,
    ("kvpress", "longbench"): _kvpress_longbench,
    ("kvpress", "longbench-v2"): _kvpress_longbench_v2,
    ("opencompass", "ruler"): _opencompass_ruler,
    # OpenCompass copied LongBench's metrics.
    ("opencompass", "longbench"): partial(_bench_scores, "longbench"),
}
