"""``lampe-eval score``: stored predictions, or prediction files of the benchmarks' own code, scored again."""

from pathlib import Path

from rich.table import Table

from lampe_eval.errors import UserError
from lampe_eval.report import tables
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.scoring.prediction_files import TaskResult, score_folder


def score(run: Path | None, preds: Path | None, bench: str | None) -> None:
    """Scores a run's folder, or a folder of prediction files of a bench."""
    if run is not None and preds is None:
        tables.print_and_write_tables(gather_runs([run]), run, tables.console())
    elif preds is not None and bench is not None and run is None:
        tables.console().print(_table(bench, score_folder(bench, preds)))
    else:
        raise UserError("score: give a run's folder, or --preds FOLDER with --bench NAME")


def _table(bench: str, results: dict[str, TaskResult]) -> Table:
    table = Table(
        title=f"{bench}, as its own code scores", title_justify="left", title_style="bold"
    )
    for title in ("task", "score", "n", "broken"):
        table.add_column(title, justify="left" if title == "task" else "right")
    for task, result in results.items():
        numbers = ", ".join(f"{name} {value:g}" for name, value in result.scores.items())
        table.add_row(task, numbers, str(result.n), str(result.skipped or ""))
    return table
