"""Command `lampe-eval score`: scores stored predictions, or a benchmark's own files, again."""

from pathlib import Path

from rich.table import Table

from lampe_eval.errors import UserError
from lampe_eval.report import tables
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.scoring.prediction_files import TaskResult, score_folder


def score(run: Path | None, preds: Path | None, bench: str | None) -> None:
    """Score a run, or a folder of prediction files, and print the scores.

    Args:
        run: folder of a run, whose tables are written again.
        preds: folder of prediction files in a benchmark's own format.
        bench: name of that format.

    Raises:
        UserError: if neither a run nor a folder with its format is given, or if it cannot be read.
    """
    if run is not None and preds is None:
        tables.print_and_write_tables(gather_runs([run]), run, tables.console())
    elif preds is not None and bench is not None and run is None:
        tables.console().print(_table(bench, score_folder(bench, preds)))
    else:
        raise UserError("score: give the folder of a run, or --preds FOLDER with --bench NAME")


def _table(bench: str, results: dict[str, TaskResult]) -> Table:
    table = Table(
        title=f"{bench}, scored as by its own code", title_justify="left", title_style="bold"
    )
    table.add_column("task", justify="left")
    for title in ("score", "n", "broken"):
        table.add_column(title, justify="right")
    for task, result in results.items():
        numbers = ", ".join(f"{name} {value:g}" for name, value in result.scores.items())
        table.add_row(task, numbers, str(result.n), str(result.skipped or ""))
    return table
