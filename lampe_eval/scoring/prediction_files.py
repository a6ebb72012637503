"""Folders of prediction files, scored as the benchmark's own code scores them.

People's folders hold more than one file for each task: parts, variants, the data beside the
predictions, editors' copies. What can be scored is scored, and everything else is named.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lampe_eval.cards import shipped_folder
from lampe_eval.errors import UserError
from lampe_eval.scoring.prediction_formats import FORMATS, PredictionFormat
from lampe_eval.scoring.prediction_lines import Prediction, PredictionFile
from lampe_eval.scoring.reported_scores import ReportedScore, ReportedScores
from lampe_eval.yaml_files import read_yaml

OWN_REPEATS = {"qasper": 2}
"""Samples that a task's own data hold twice, by task: two of qasper in LongBench."""


@dataclass(frozen=True)
class TaskResult:
    """Result that a benchmark's own code reports for a task.

    Results are equal if their scores are and cover as many predictions.

    Attributes:
        scores: its numbers by name, in percent and rounded as upstream rounds, the headline first.
        n: number of scored predictions.
        skipped: number of broken predictions; published files of InfiniteBench and LongBench v2
            have some.
        nulls: scored predictions that are empty.
        repeated: scored predictions of samples that the file has already; upstream counts them.
        missing: samples of the task's data that the file lacks; upstream does not count them.
        notes: lines on what a reader of the number has to know.
        reported: the same numbers with what they are rounded from.
    """

    scores: Mapping[str, float]
    n: int
    skipped: int = 0
    nulls: int = field(default=0, compare=False)
    repeated: int = field(default=0, compare=False)
    missing: int = field(default=0, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    reported: Mapping[str, ReportedScore] = field(default_factory=dict, compare=False)


class FolderScores(dict[str, TaskResult]):
    """Results of a folder by task.

    Attributes:
        left_out: files that are not scored, each with the reason.
    """

    def __init__(self, results: Mapping[str, TaskResult], left_out: Iterable[str] = ()) -> None:
        super().__init__(results)
        self.left_out = tuple(left_out)


class TaskFiles(NamedTuple):
    """Files with the predictions of a task.

    Attributes:
        task: name of the task.
        variant: rest of the file's name or of its path below the folder of the task; empty for a
            file that is named after the task alone.
        paths: the file, or the parts that RULER writes, in their order.
    """

    task: str
    variant: str
    paths: tuple[Path, ...]


def score_folder(bench: str, folder: Path, ignored: Collection[Path] = ()) -> FolderScores:
    """Score every prediction file of one model, by task.

    Args:
        bench: a name in `FORMATS`.
        folder: folder that is searched with all its subfolders.
        ignored: files of other programs, which are not looked at.

    Raises:
        UserError: for an unknown benchmark, a folder without a file that can be scored, or one
            with the predictions of two models.
    """
    if bench not in FORMATS:
        raise UserError(
            f"no prediction files of {bench!r} are known; known are those of: {', '.join(FORMATS)}"
        )
    file_format = FORMATS[bench]
    found, left_out = find_task_files(bench, folder, ignored)
    scored: list[tuple[TaskFiles, TaskResult]] = []
    for files in found:
        try:
            scored.append((files, _task_result(file_format, files)))
        except UserError as error:
            left_out.append(str(error))
    if not scored:
        raise UserError(left_out[0])
    return FolderScores(_by_label(scored, folder), left_out)


def find_task_files(
    bench: str, folder: Path, ignored: Collection[Path] = ()
) -> tuple[list[TaskFiles], list[str]]:
    """Return the prediction files of each task, and what is left out of them and why.

    Args:
        bench: a name in `FORMATS`.
        folder: folder that is searched with all its subfolders.
        ignored: files of other programs, which are not looked at.

    Raises:
        UserError: for a folder without a file that may hold predictions.
    """
    suffix = FORMATS[bench].suffix
    paths = _candidates(folder, ignored, suffix)
    if not paths:
        raise UserError(
            f"{folder}: holds no {suffix} files; name a folder with predictions of {bench}"
        )
    left_out: list[str] = []
    return list(_task_files(paths, folder, FORMATS[bench], left_out)), left_out


def has_files(folder: Path, ignored: Collection[Path], suffix: str = ".jsonl") -> bool:
    """Return whether a folder has files that may hold predictions, beside the ignored ones."""
    return bool(_candidates(folder, ignored, suffix))


def _candidates(folder: Path, ignored: Collection[Path], suffix: str) -> list[Path]:
    # OpenCompass writes tmp_ files while it runs.
    paths = visible_files(folder, f"*{suffix}")
    return [path for path in paths if path not in ignored and not path.name.startswith("tmp_")]


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder and its subfolders by name, without those of hidden folders.

    Args:
        folder: the folder.
        pattern: pattern of the names, such as "*.jsonl".
    """
    found = []
    for path in sorted(folder.rglob(pattern)):
        # Editors and archives leave copies in .ipynb_checkpoints and __MACOSX.
        names = path.relative_to(folder).parts
        is_hidden = any(name.startswith((".", "__MACOSX")) for name in names)
        if path.is_file() and not is_hidden:
            found.append(path)
    return found


def _task_files(
    paths: Iterable[Path], folder: Path, file_format: PredictionFormat, left_out: list[str]
) -> Iterator[TaskFiles]:
    """Yield the files of each task and variant; name in `left_out` those of no task."""
    parts: dict[tuple[str, Path], dict[int, Path]] = {}
    whole: set[tuple[str, Path]] = set()
    for path in paths:
        named = _name_of(path, folder, file_format)
        if named is None:
            left_out.append(
                f"{path}: neither file nor folder is named after a task; "
                f"tasks are: {', '.join(file_format.tasks)}"
            )
            continue
        task, variant = named
        if variant.isdigit() and file_format is FORMATS["ruler"]:
            parts.setdefault((task, path.parent), {})[int(variant)] = path
            continue
        if not variant:
            whole.add((task, path.parent))
        yield TaskFiles(task, variant, (path,))
    for (task, parent), numbered in parts.items():
        if (task, parent) in whole:
            left_out += [f"{path}: is a part of {task}.jsonl" for path in numbered.values()]
        elif sorted(numbered) == list(range(len(numbered))):
            yield TaskFiles(task, "", tuple(numbered[number] for number in sorted(numbered)))
        else:
            for number in sorted(numbered):
                yield TaskFiles(task, str(number), (numbered[number],))


def _name_of(path: Path, folder: Path, file_format: PredictionFormat) -> tuple[str, str] | None:
    """Return the task and the variant that a file, or else its nearest folder, is named after.

    If no tasks are known, return the name of the file. None if the name is that of no task.
    """
    tasks, suffix, separator = file_format.tasks, file_format.suffix, file_format.separator
    if not tasks:
        return path.stem, ""
    name = path.name.split(".")[0].removeprefix("preds_")
    if name in tasks:
        return name, ""
    if name.removesuffix("_e") in tasks:
        return name.removesuffix("_e"), ""
    for task in sorted(tasks, key=len, reverse=True):
        if name.startswith(f"{task}{separator}"):
            stem = path.name.removesuffix(suffix).removesuffix(".pred").removeprefix("preds_")
            return task, stem.removeprefix(f"{task}{separator}")
    # From the parent, since the searched folder itself may be named after the task.
    parts = path.relative_to(folder.parent).parts
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] in tasks:
            return parts[index], "/".join(parts[index + 1 :]).removesuffix(suffix)
    return None


def _by_label(scored: list[tuple[TaskFiles, TaskResult]], folder: Path) -> dict[str, TaskResult]:
    """Return results by the name of their task, and of their length or variant if there are more.

    Raises:
        UserError: if two files of one task differ in nothing but their folder.
    """
    counts: dict[str, int] = {}
    for files, _ in scored:
        counts[files.task] = counts.get(files.task, 0) + 1
    results: dict[str, TaskResult] = {}
    paths: dict[str, Path] = {}
    for files, result in scored:
        path = files.paths[0]
        label = files.task
        if counts[files.task] > 1:
            label = _long_label(files, folder)
        if label in results:
            raise UserError(
                f"{path}: {label} has predictions in {paths[label]} too; "
                "name the folder of one model"
            )
        results[label] = result
        paths[label] = path
    return results


def _long_label(files: TaskFiles, folder: Path) -> str:
    """Return a label with the length, which RULER's folders name, and the variant."""
    folders = files.paths[0].relative_to(folder).parts[:-1]
    lengths = [name for name in folders if re.fullmatch(r"\d{3,}", name)]
    label = "/".join([*lengths, files.task])
    return f"{label} ({files.variant})" if files.variant else label


def _task_result(file_format: PredictionFormat, files: TaskFiles) -> TaskResult:
    """Score the predictions of a task.

    Raises:
        UserError: if a file cannot be read, or none of its lines can be used.
    """
    predictions: list[Prediction] = []
    whole = PredictionFile(files.paths[0])
    for path in files.paths:
        file = PredictionFile(path)
        predictions += file_format.read(file, files.task)
        _add_counts(whole, file)
    if not predictions:
        raise UserError(whole.broken[0] if whole.broken else no_predictions(files.paths[0]))
    return task_result(
        file_format.total(files.task, predictions),
        predictions,
        whole,
        _data_size(file_format, files.task),
        OWN_REPEATS.get(files.task, 0),
    )


def no_predictions(path: Path) -> str:
    """Return the message for a file without a prediction."""
    return f"{path}: holds no predictions to score"


def _add_counts(whole: PredictionFile, part: PredictionFile) -> None:
    """Add the counts of a part to those of all parts."""
    whole.broken += part.broken
    whole.other_lines += part.other_lines
    whole.text_references += part.text_references
    whole.records += part.records
    whole.samples += part.samples
    whole.expected = max(whole.expected, part.expected)


def task_result(
    reported: ReportedScores,
    predictions: Collection[Prediction],
    file: PredictionFile,
    size: int = 0,
    own_repeats: int = 0,
) -> TaskResult:
    """Return the result of a task with the counts of what its scores do not say.

    Args:
        reported: numbers of the task.
        predictions: the scored predictions.
        file: the file they are from, or the sum of its parts.
        size: number of samples of the task's data, 0 if any number is complete.
        own_repeats: samples that the task's data hold twice.
    """
    repeated = len(file.samples) - len(set(file.samples))
    if size:
        repeated = max(0, repeated - own_repeats)
    size = size or file.expected
    if size:
        repeated = max(repeated, file.records - size)
    missing = max(0, size - (file.records - repeated))
    empty = [item for item in predictions if item.references != [] and not item.prediction.strip()]
    return TaskResult(
        scores={name: score.value for name, score in reported.items()},
        n=len(predictions),
        skipped=len(file.broken),
        nulls=len(empty),
        repeated=repeated,
        missing=missing,
        notes=tuple(_notes(file, repeated, missing)),
        reported=reported,
    )


def _notes(file: PredictionFile, repeated: int, missing: int) -> Iterator[str]:
    """Yield a line on everything that makes the number of a file another than it seems."""
    if file.broken:
        yield f"{_count(file.broken, 'broken line')} left out, the first: {file.broken[0]}"
    if repeated:
        yield (
            f"{file.path}: {repeated} of {file.records} predictions are of samples that stand "
            "there already; upstream scores them too, and so does this number"
        )
    if missing:
        yield (
            f"{file.path}: {missing} samples of the task's data are missing; upstream averages "
            "over those that are there, and so does this number"
        )
    if file.text_references:
        yield (
            f"{file.path}: the references of {file.text_references} predictions are a text, not a "
            "list; upstream takes each character for a reference, and so does this number"
        )
    if file.other_lines:
        yield f"{file.path}: {file.other_lines} lines that are no predictions left out"


def _count(items: Collection[object], name: str) -> str:
    return f"{len(items)} {name}{'' if len(items) == 1 else 's'}"


def _data_size(file_format: PredictionFormat, task: str) -> int:
    """Return the number of samples that the data of a task have, 0 if that is not fixed."""
    if not file_format.cards:
        return 0
    path = shipped_folder("tasks") / file_format.cards / "tasks.yaml"
    cards = read_yaml(path).value
    # Files that are named after a model hold all questions of the benchmark.
    card = cards.get(task) if file_format.tasks else next(iter(cards.values()))
    return int(card["samples"]) if card else 0
