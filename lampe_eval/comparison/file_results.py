"""Files of other programs as results to compare: prediction folders, and outputs of harnesses."""

import hashlib
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.comparison.compared_results import ComparedResult, ComparedSample, StatedSettings
from lampe_eval.comparison.harness_settings import HARNESS_SETTINGS, lm_eval_arguments
from lampe_eval.comparison.narrowing import Narrowing
from lampe_eval.comparison.prompt_texts import PromptText
from lampe_eval.comparison.scorers import BenchScorer, HarnessScorer, Scorer, StoredScorer
from lampe_eval.errors import UserError
from lampe_eval.records import SampleRecord
from lampe_eval.scoring.harness_files import (
    NOT_THIS_LENGTH,
    OWN_SCORERS,
    READERS,
    HarnessFile,
    HarnessRow,
    find_harness_files,
)
from lampe_eval.scoring.prediction_files import (
    TaskFiles,
    find_task_files,
    has_files,
    no_predictions,
)
from lampe_eval.scoring.prediction_formats import FORMATS
from lampe_eval.scoring.prediction_lines import Prediction, PredictionFile
from lampe_eval.suite import parse_length

JUDGED = StoredScorer("longbench-v2", "judge")
QUESTION_KEYS = ("question", "query")
ROW_ID_KEYS = ("_id", "id", "doc_id", "index")


def read_files(path: Path, narrowing: Narrowing) -> ComparedResult:
    """Read files of another program.

    Args:
        path: a folder, or one file of it; lm-eval's results stand for all samples beside them.
        narrowing: what of it is compared.

    Raises:
        UserError: if they are of no known format, or hold nothing to compare.
    """
    folder = path if path.is_dir() else path.parent
    harness_files, left_out = find_harness_files(folder)
    only = None if path.is_dir() or path.match("results*.json") else path
    files = [file for file in harness_files if only in (None, file.path, *file.parts)]
    if files:
        return _harness_result(path, folder, files, narrowing)
    if any(folder.glob("results*.json")) and not has_files(folder, ()):
        raise UserError(
            f"{path}: has scores of lm-eval and no samples; run it again with --log_samples"
        )
    try:
        return _prediction_result(path, folder, only, narrowing)
    except UserError as error:
        about = [line for line in left_out if only is None or str(only) in line]
        raise UserError(about[0] if about else str(error)) from None


def _harness_result(
    path: Path, folder: Path, files: Sequence[HarnessFile], narrowing: Narrowing
) -> ComparedResult:
    families = list(dict.fromkeys(file.family for file in files))
    if len(families) > 1:
        raise UserError(
            f"{path}: holds files of {' and '.join(families)}; name the folder of one of them"
        )
    samples: list[ComparedSample] = []
    scorers: dict[str, Scorer] = {}
    broken: list[str] = []
    places: dict[Hashable, Path] = {}
    for file in files:
        counts = PredictionFile(file.path)
        for row in READERS[file.family](file, counts):
            scorer = _harness_scorer(file, row)
            sample = _harness_sample(file, row, scorer)
            if narrowing.has_task(sample.task) and narrowing.has_length(sample.length):
                _refuse_repeated(places, sample, file.path)
                samples.append(sample)
                scorers.setdefault(sample.task, scorer)
        broken += counts.broken
    if not samples:
        raise UserError((broken or [f"{path}: holds no samples of what is compared"])[0])
    stated = HARNESS_SETTINGS[families[0]]

    def settings_of(samples: Sequence[ComparedSample]) -> StatedSettings:
        return stated(folder, [sample.record for sample in samples])

    return ComparedResult(str(path), families[0], samples, scorers, settings_of)


def _refuse_repeated(places: dict[Hashable, Path], sample: ComparedSample, path: Path) -> None:
    """Note the file of a sample; refuse one that another file has too.

    Raises:
        UserError: if there are two results in the folder, such as those of two models.
    """
    key = (
        sample.task,
        sample.length,
        sample.question,
        sample.row_id,
        repr(sample.row["references"]),
        sample.row["extras"].get("length"),
    )
    if places.setdefault(key, path) != path:
        raise UserError(
            f"{path}: has samples of {sample.task} that {places[key]} has too; "
            "name one of these files, or the folder of one result"
        )


def _harness_scorer(file: HarnessFile, row: HarnessRow) -> Scorer:
    """Return the scorer of a harness: its own if it is known, else the scores that it stored."""
    if (file.family, row.bench) in OWN_SCORERS:
        return HarnessScorer(file.family, row.bench, row.bench_task)
    # RULER's scores of lm-eval are named by the length.
    metric = next(iter(row.scores or {"score": 0}))
    return StoredScorer(file.family, "score" if metric.isdigit() else metric)


def _harness_sample(file: HarnessFile, row: HarnessRow, scorer: Scorer) -> ComparedSample:
    scores = [value for value in (row.scores or {}).values() if isinstance(value, float)]
    stored = [value for value in scores if value != NOT_THIS_LENGTH]
    question, row_id = _document_fields(row.record)
    return ComparedSample(
        task=f"{row.bench}/{row.bench_task}" if row.bench else row.task.split(" ")[0],
        length=_length(file, row),
        row=_row(row.prediction),
        **_prompt_fields(_prompt(row.record)),
        question=question,
        row_id=row_id,
        stored={scorer.name: stored[0]} if stored else {},
        record=row.record,
    )


def _row(prediction: Prediction) -> SampleRecord:
    """Return a prediction as a run stores it."""
    row: SampleRecord = {
        "id": "",
        "length": 0,
        "prompt_sha256": "",
        "prompt_tokens": 0,
        "prediction": prediction.prediction,
        "references": prediction.references,
        "extras": prediction.extras,
    }
    return row


def _length(file: HarnessFile, row: HarnessRow) -> int | None:
    """Return the length that a harness states: of RULER's rows, or behind a task's name."""
    if row.group.isdigit():
        return int(row.group)
    is_named = file.family == "helmet" or (file.family, row.bench) == ("opencompass", "ruler")
    match = re.search(r"[_ ](\d+k?)$", row.task)
    return parse_length(match[1]) if match and is_named else None


def _document_fields(record: Mapping[str, Any]) -> tuple[str, tuple[str, str] | None]:
    """Return the question of a row, empty if it has none, and what identifies it."""
    document = record.get("doc", record)
    question = next((document[key] for key in QUESTION_KEYS if document.get(key)), "")
    key = next((key for key in ROW_ID_KEYS if document.get(key) not in (None, "")), None)
    row_id = (key, str(document[key])) if key else None
    return (question if isinstance(question, str) else ""), row_id


def _prompt(record: Mapping[str, Any]) -> str:
    """Return the prompt of a row, empty if it is not stored."""
    text, _ = lm_eval_arguments(record)
    if text is None:
        # OpenCompass, HELMET, L-Eval and RULER
        keys = ("origin_prompt", "input_text", "prompt", "input")
        text = next((record[key] for key in keys if record.get(key)), None)
    if isinstance(text, list):
        turns = [turn.get("prompt", "") for turn in text if isinstance(turn, dict)]
        return "\n".join(map(str, turns))
    return text if isinstance(text, str) else ""


def _prompt_fields(text: str) -> dict[str, Any]:
    if not text:
        return {}
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return {"prompt": PromptText.of_text(text), "prompt_hash": ("text", digest)}


def _prediction_result(
    path: Path, folder: Path, only: Path | None, narrowing: Narrowing
) -> ComparedResult:
    """Return predictions of a benchmark's own code, of the format that fits most of them."""
    best: list[ComparedSample] = []
    scorers: dict[str, Scorer] = {}
    unusable: list[str] = []
    bench = ""
    for name in PREDICTION_BENCHES if has_files(folder, ()) else ():
        files, _ = find_task_files(name, folder)
        chosen = [item for item in files if only is None or only in item.paths]
        samples = list(_prediction_samples(name, folder, chosen, narrowing, unusable))
        if len(samples) > len(best):
            best, bench = samples, name
    if not best and unusable:
        raise UserError(unusable[0])
    if not best:
        raise UserError(
            f"{path}: holds neither a run nor files of lm-eval, HELMET, kvpress, OpenCompass or "
            f"of the code of {', '.join(PREDICTION_BENCHES)}"
        )
    for sample in best:
        if sample.task not in scorers:
            scorers[sample.task] = _prediction_scorer(sample)
    stated = StatedSettings({"model": path.resolve().name})
    return ComparedResult(str(path), f"predictions of {bench}", best, scorers, lambda _: stated)


PREDICTION_BENCHES = ("longbench", "leval", "ruler", "infinitebench", "longbench-v2")
"""Formats of prediction files; the last takes files of any name."""


def _prediction_samples(
    bench: str,
    folder: Path,
    found: Sequence[TaskFiles],
    narrowing: Narrowing,
    unusable: list[str],
) -> Iterator[ComparedSample]:
    """Yield the samples of files; name in `unusable` what is wrong with files of a task's name."""
    file_format = FORMATS[bench]
    places: dict[Hashable, Path] = {}
    for files in found:
        name = files.task if file_format.tasks else "direct"
        task = f"{bench}/{name}"
        if not narrowing.has_task(task):
            continue
        for path in files.paths:
            names = path.relative_to(folder).parts
            length = next((int(part) for part in names if re.fullmatch(r"\d{3,}", part)), None)
            if not narrowing.has_length(length):
                continue
            file = PredictionFile(path)
            try:
                predictions = list(file_format.read(file, files.task))
            except UserError as error:
                unusable.append(str(error))
                continue
            if not predictions and file_format.tasks:
                unusable += file.broken or [no_predictions(path)]
            lines = PredictionFile(path).lines(only_objects=bench == "ruler")
            records = {line.index: line.record for line in lines}
            for prediction in predictions:
                record = records.get(prediction.extras["row"], {})
                sample = _prediction_sample(task, length, prediction, record)
                _refuse_repeated(places, sample, files.paths[0])
                yield sample


def _prediction_sample(
    task: str, length: int | None, prediction: Prediction, record: Mapping[str, Any]
) -> ComparedSample:
    question, row_id = _document_fields(record)
    extras = dict(prediction.extras)
    if "length" in record:
        extras.setdefault("length", record["length"])
    judged = extras.get("judge")
    return ComparedSample(
        task=task,
        length=length,
        row=_row(prediction._replace(extras=extras)),
        **_prompt_fields(_prompt(record)),
        question=question,
        row_id=row_id,
        stored={} if judged is None else {JUDGED.name: float(judged)},
    )


def _prediction_scorer(sample: ComparedSample) -> Scorer:
    """Return the scorer of a benchmark's own code, or upstream's judgement where it is stored."""
    if sample.stored:
        return JUDGED
    bench = sample.task.partition("/")[0]
    return BenchScorer(find_tasks((sample.task,))[0], BENCHES[bench].protocol("official"))
