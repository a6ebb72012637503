"""Command `lampe-eval report`: tables, pictures and a page of runs.

Folders are checked before pandas and matplotlib are imported, which takes seconds.
"""

from collections.abc import Sequence
from pathlib import Path

from lampe_eval import terminal
from lampe_eval.file_io import save_files
from lampe_eval.store import Store

SEVERAL_RUNS_FOLDER = Path("results/report")
"""Folder of the report of several runs."""


def report(runs: Sequence[Path], output: Path | None, reference: str | None = None) -> None:
    """Print the tables of runs, and write them with pictures and a page.

    Args:
        runs: folders of runs.
        output: folder to write to; the run's own by default, or `SEVERAL_RUNS_FOLDER` for several.
        reference: method that others are compared with; by default that of the runs.

    Raises:
        UserError: if a folder is no run, if the reference is no method of theirs, or if a file
            cannot be written.
    """
    for run in runs:
        Store(run)  # raises for a folder that is no run
    from lampe_eval.report import pictures, tables
    from lampe_eval.report.page.report_page import report_page
    from lampe_eval.report.report_tables import report_tables
    from lampe_eval.results.gathered_runs import gather_runs

    folder = output or (runs[0] if len(runs) == 1 else SEVERAL_RUNS_FOLDER)
    gathered = gather_runs(runs, reference=reference)
    console = terminal.console()
    all_tables = report_tables(gathered)
    tables.print_tables(gathered, all_tables, console)
    table_files = tables.table_files(gathered, all_tables)
    figures = pictures.pictures(gathered)
    picture_files = pictures.picture_files(figures)
    page = report_page(gathered, pictures.svg_elements(figures, picture_files))
    files: dict[str, str | bytes] = {**table_files, "report.html": page}
    for name, content in picture_files.items():
        files[f"pictures/{name}"] = content
    save_files(folder, files)
    tables.print_written(folder, table_files, console)
    line = f"written to {folder / 'report.html'}"
    if figures:
        line += f", {len(figures)} pictures in {folder / 'pictures'}"
    console.print(line, soft_wrap=True, markup=False)
