"""Command `lampe-eval leaderboard`: a run beside published scores, and all runs on one page.

Folders and names are checked before pandas and matplotlib are imported, which takes seconds.
"""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from lampe_eval import terminal
from lampe_eval.errors import UserError
from lampe_eval.file_io import check_writable, save_file
from lampe_eval.results.published_tables import find_table
from lampe_eval.run_description import is_calibration
from lampe_eval.store import Store

if TYPE_CHECKING:
    from lampe_eval.results.gathered_runs import GatheredRuns


def compare(run: Path, against: str) -> None:
    """Print and write a comparison of a run with a published table.

    Args:
        run: folder of the run.
        against: name of a shipped table, or a file.

    Raises:
        UserError: if the folder holds no run, if no table is named or it does not exist, or if a
            file cannot be written.
    """
    Store(run)  # a folder that is no run is reported before a missing option
    if not against:
        raise UserError("--against: name a published table; see: lampe-eval list published")
    find_table(against)  # raises for a table that does not exist
    from lampe_eval.report import comparison_table

    comparison_table.print_comparison(run, against, terminal.console())


def build(results: Path, output: Path | None) -> None:
    """Write the page of all runs below a folder, with links to their reports.

    A run that cannot be read is named, and left out.

    Args:
        results: folder that runs were written to.
        output: file of the page; index.html in that folder by default.

    Raises:
        UserError: if there is no run, or if the page cannot be written.
    """
    page = output or results / "index.html"
    check_writable(page)
    run_folders = sorted(path.parent for path in results.rglob("run.yaml"))
    calibrations: dict[Path, None] = {}
    runs: list[Path] = []
    for folder in run_folders:
        # Each run of a calibration tries other settings, so they are no rows of a leaderboard.
        if is_calibration(folder.parent):
            calibrations[folder.parent] = None
        else:
            runs.append(folder)
    if not runs:
        raise UserError(
            f"{results}: no run in this folder; give the one that runs are written to, "
            "such as results"
        )
    from lampe_eval.report.page.report_page import leaderboard_page
    from lampe_eval.results.gathered_runs import gather_runs

    gathered = gather_runs(runs, skip_damaged=True)
    reports = _report_addresses(gathered, page)
    save_file(page, leaderboard_page(gathered, reports))
    lines = [
        *gathered.left_out,
        *(f"left out: {folder}: the runs of a calibration" for folder in calibrations),
        f"written to {page}: {len(gathered.runs)} runs, {len(reports)} of them with a report"
        " (lampe-eval report RUN)",
    ]
    console = terminal.console()
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _report_addresses(gathered: "GatheredRuns", page: Path) -> dict[str, str]:
    """Return by run the address of its report, relative to the page, if it lies below the page."""
    page_folder = page.resolve().parent
    addresses: dict[str, str] = {}
    for name, store in gathered.runs.items():
        report = store.folder / "report.html"
        if report.exists() and report.resolve().is_relative_to(page_folder):
            address = report.resolve().relative_to(page_folder)
            addresses[name] = quote(address.as_posix())
    return addresses
