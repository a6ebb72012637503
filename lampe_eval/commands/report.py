"""``lampe-eval report``: tables, pictures and a page of runs."""

from collections.abc import Sequence
from pathlib import Path

from lampe_eval.report import pictures, tables
from lampe_eval.report.page.report_page import page
from lampe_eval.results.gathered_runs import gather_runs

TOGETHER = Path("results/report")
"""Where the report of several runs goes."""


def report(runs: Sequence[Path], output: Path | None) -> None:
    """Prints the tables of runs, and writes them with pictures and a page to ``output``, or where one run is."""
    folder = output or (runs[0] if len(runs) == 1 else TOGETHER)
    gathered, console = gather_runs(runs), tables.console()
    tables.print_and_write_tables(gathered, folder, console)
    drawn = pictures.pictures(gathered)
    pictures.write(drawn, folder / "pictures")
    tables.save_file(
        folder / "report.html",
        page(gathered, {name: pictures.svg(it) for name, it in drawn.items()}).encode(),
    )
    beside = f", {len(drawn)} pictures in {folder / 'pictures'}" if drawn else ""
    console.print(f"written to {folder / 'report.html'}{beside}", soft_wrap=True, markup=False)
