"""Command `lampe-eval score`: scores stored predictions, or files of other programs, again.

Options and folders are checked before pandas is imported, which takes a second.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.markup import escape
from rich.table import Table

from lampe_eval import terminal
from lampe_eval.errors import UserError
from lampe_eval.file_io import check_writable, save_files, to_json, with_suffixes
from lampe_eval.scoring.harness_files import (
    FAMILIES,
    HarnessFile,
    find_harness_files,
    score_harness_files,
)
from lampe_eval.scoring.intervals import Interval
from lampe_eval.scoring.prediction_files import (
    FolderScores,
    TaskResult,
    has_files,
    score_folder,
)
from lampe_eval.scoring.prediction_formats import FORMATS
from lampe_eval.scoring.reported_scores import NO_SCORE, ReportedScore, mean_score
from lampe_eval.store import Store

COUNTS = ("n", "nulls", "broken", "duplicates", "missing")
INTERVAL_ENDS = ("ci_low", "ci_high")
AVERAGE = "average"
SUFFIXES = (".csv", ".json")
SHOWN_FILES = 5
"""Number of left-out files that are named in the terminal."""


def score(run: Path | None, preds: Path | None, bench: str | None, output: Path | None) -> None:
    """Score a run, or a folder of prediction files, and print the scores.

    Args:
        run: folder of a run, whose tables are written again.
        preds: folder of prediction files.
        bench: name of a benchmark, whose own code then scores, or of a harness, whose files alone
            are then scored; None to score the files of other harnesses as each of them does.
        output: file for the scores of prediction files, written as CSV and as JSON.

    Raises:
        UserError: if neither a run nor a folder of prediction files is given, or if it cannot be
            read.
    """
    if run is not None and preds is None and output is None:
        _score_run(run)
    elif preds is not None and run is None:
        for path in with_suffixes(output, *SUFFIXES) if output is not None else ():
            check_writable(path)
        scores = score_predictions(preds, bench)
        scorer = "its own code" if bench else "the harness that wrote them"
        _print(scores, f"{bench or 'predictions'}, scored as by {scorer}")
        if output is not None:
            _write(scores, output)
    else:
        raise UserError(
            "score: give the folder of a run, or --preds FOLDER with --bench NAME; "
            "--output goes with --preds"
        )


def _score_run(run: Path) -> None:
    Store(run)  # raises for a folder that is no run
    from lampe_eval.report import tables
    from lampe_eval.results.gathered_runs import gather_runs

    tables.print_and_write_tables(gather_runs([run]), run, terminal.console())


def score_predictions(folder: Path, bench: str | None) -> FolderScores:
    """Score the prediction files of a folder.

    Args:
        folder: the folder.
        bench: name of a benchmark or a harness; None for the files of all harnesses.

    Raises:
        UserError: if nothing in the folder can be scored.
    """
    if bench is not None and bench not in FORMATS and bench not in FAMILIES:
        raise UserError(
            f"no prediction files of {bench!r} are known; known are those of: "
            f"{', '.join([*FORMATS, *FAMILIES])}"
        )
    files, left_out = find_harness_files(folder)
    if bench in FORMATS:
        return _benchmark_scores(folder, bench, files, left_out)
    if bench is not None:
        files = [file for file in files if file.family == bench]
    if not files:
        raise UserError(
            f"{folder}: holds no prediction files of {bench or ', '.join(FAMILIES)}; for those of "
            f"a benchmark's own code give --bench NAME, one of: {', '.join(FORMATS)}"
        )
    return _some(score_harness_files(files, left_out=left_out))


def _benchmark_scores(
    folder: Path, bench: str, files: list[HarnessFile], left_out: list[str]
) -> FolderScores:
    """Score files of a benchmark's own code, and other harnesses' files of that benchmark."""
    if not files:
        return score_folder(bench, folder)
    scores = score_harness_files(files, bench, left_out)
    harness_files: set[Path] = set()
    for file in files:
        harness_files.update((file.path, *file.parts))
    if not has_files(folder, harness_files, FORMATS[bench].suffix):
        return _some(scores)
    try:
        own = score_folder(bench, folder, harness_files)
    except UserError as error:
        return _some(FolderScores(scores, [*scores.left_out, str(error)]))
    # A task that both have keeps the label of the benchmark's own file.
    labels = {task: f"{task} (harness)" if task in own else task for task in scores}
    renamed = {labels[task]: result for task, result in scores.items()}
    return FolderScores({**own, **renamed}, [*own.left_out, *scores.left_out])


def _some(scores: FolderScores) -> FolderScores:
    """Return scores that are not empty.

    Raises:
        UserError: if there are none, with the first reason.
    """
    if not scores:
        raise UserError(scores.left_out[0])
    return scores


def average(scores: Mapping[str, TaskResult]) -> float:
    """Return the plain mean over tasks of their first number, NaN where one is NaN.

    Perplexities and scores have no mean.
    """
    names = [next(iter(result.scores), "") for result in scores.values()]
    if len({name.endswith("perplexity") for name in names}) > 1:
        return math.nan
    return round(fmean(_headline(result) for result in scores.values()), 4)


def average_interval(scores: Mapping[str, TaskResult]) -> Interval:
    """Return the interval of that mean, which takes tasks as independent."""
    return mean_score([_reported_headline(result) for result in scores.values()]).interval


def _headline(result: TaskResult) -> float:
    return next(iter(result.scores.values()), math.nan)


def _reported_headline(result: TaskResult) -> ReportedScore:
    return next(iter(result.reported.values()), NO_SCORE)


def _row(task: str, result: TaskResult) -> dict[str, Any]:
    interval = _reported_headline(result).interval
    counts = (result.n, result.nulls, result.skipped, result.repeated, result.missing)
    return {
        "task": task,
        "score": _headline(result),
        **dict(zip(INTERVAL_ENDS, interval, strict=True)),
        **dict(zip(COUNTS, counts, strict=True)),
    }


def _print(scores: FolderScores, title: str) -> None:
    """Print the table of scores, and a line on everything that they do not say."""
    from lampe_eval.report.table_model import INTERVAL_NOTE, interval_text

    console = terminal.console()
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("task", justify="left")
    for name in ("score", *COUNTS):
        table.add_column(name, justify="right")
    for task, result in scores.items():
        numbers = [
            f"{name} {score.value:g} {interval_text(*score.interval)}".rstrip()
            for name, score in result.reported.items()
        ]
        row = _row(task, result)
        counts = [str(row[name] or "") for name in COUNTS]
        table.add_row(escape(task), escape(", ".join(numbers)), *counts)
    if len(scores) > 1:
        mean = average(scores)
        text = f"{mean:g} {interval_text(*average_interval(scores))}".rstrip()
        table.add_row(AVERAGE, "-" if math.isnan(mean) else escape(text), *("" for _ in COUNTS))
    console.print(table)
    console.print(
        f"{INTERVAL_NOTE}; predictions count as independent, since their files do not say which "
        "share a document",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    for result in scores.values():
        for note in result.notes:
            console.print(note, soft_wrap=True, markup=False, highlight=False)
    if scores.left_out:
        shown = "; ".join(scores.left_out[:SHOWN_FILES])
        more = len(scores.left_out) - SHOWN_FILES
        rest = f"; and {more} more" if more > 0 else ""
        line = f"left out: {shown}{rest}"
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _write(scores: FolderScores, path: Path) -> None:
    """Write the scores as CSV and as JSON, under the same name with either suffix.

    Raises:
        UserError: if a file cannot be written.
    """
    import pandas as pd

    from lampe_eval.report import tables

    rows = [_row(task, result) for task, result in scores.items()]
    total: dict[str, Any] = {"task": AVERAGE, "score": average(scores)}
    total |= zip(INTERVAL_ENDS, average_interval(scores), strict=True)
    for name in COUNTS:
        total[name] = sum(row[name] for row in rows)
    rows.append(total)
    tasks = []
    for row, result in zip(rows, scores.values(), strict=False):
        intervals = {name: list(score.interval) for name, score in result.reported.items()}
        notes = list(result.notes)
        tasks.append({**row, "scores": dict(result.scores), "intervals": intervals, "notes": notes})
    content = {"tasks": tasks, AVERAGE: rows[-1], "left_out": list(scores.left_out)}
    csv_path, json_path = with_suffixes(path, *SUFFIXES)
    texts = (tables.to_csv(pd.DataFrame(rows)), to_json(content))
    files = dict(zip((csv_path.name, json_path.name), texts, strict=True))
    save_files(path.parent, files)
    line = f"written to {csv_path} and {json_path}"
    terminal.console().print(line, soft_wrap=True, markup=False)
