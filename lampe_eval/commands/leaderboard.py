"""``lampe-eval leaderboard``: a run beside what others published, and all runs on one page."""

import sys
from pathlib import Path
from urllib.parse import quote

from lampe_eval.errors import UserError
from lampe_eval.report import comparison_table, tables
from lampe_eval.report.page.report_page import site
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.store import Store


def compare(run: Path, against: str) -> None:
    """Prints and writes a run's scores beside those of a published table.

    Raises:
        UserError: where no table is named, too.
    """
    Store(run)  # what is no run is said first
    if not against:
        raise UserError("--against: name a published table; see: lampe-eval list published")
    comparison_table.print_comparison(run, against, tables.console())


def build(results: Path, output: Path | None) -> None:
    """Writes the page of all runs below a folder, with links to the reports that stand beside it.

    A run that cannot be read is said, and left out.

    Raises:
        UserError: where there is no run.
    """
    found = sorted(path.parent for path in results.rglob("run.yaml"))
    folders = [
        folder for folder in found if not _is_calibration(folder.parent) and _is_whole(folder)
    ]
    if not folders:
        raise UserError(
            f"{results}: no run in this folder; give the one that runs are written to, such as results"
        )
    page, gathered = output or results / "index.html", gather_runs(folders)
    reports = {
        name: quote(address.as_posix())
        for name, store in gathered.runs.items()
        if (address := _beside(page, store.folder / "report.html"))
    }
    tables.save_file(page, site(gathered, reports).encode())
    calibrations = dict.fromkeys(
        folder.parent for folder in found if _is_calibration(folder.parent)
    )
    left_out = [
        *gathered.left_out,
        *(f"left out: {folder}: the runs of a calibration" for folder in calibrations),
    ]
    told = (
        f"{len(gathered.runs)} runs, {len(reports)} of them with a report (lampe-eval report RUN)"
    )
    for line in (*left_out, f"written to {page}: {told}"):
        tables.console().print(line, soft_wrap=True, markup=False)


def _is_calibration(folder: Path) -> bool:
    """Whether runs in a folder are the steps of a calibration."""
    return any(folder.glob("*-calibrated.yaml"))


def _is_whole(folder: Path) -> bool:
    """Whether a run can be read; else says why not."""
    try:
        Store(folder).cells()
    except UserError as error:
        print(f"lampe-eval: left out: {error}", file=sys.stderr)
        return False
    return True


def _beside(page: Path, report: Path) -> Path | None:
    """A report's address relative to a page; None where there is none in reach."""
    here = page.resolve().parent
    return (
        report.resolve().relative_to(here)
        if report.exists() and report.resolve().is_relative_to(here)
        else None
    )
