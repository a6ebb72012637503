"""``lampe-eval run``."""

import shlex
import sys

from lampe_eval import terminal
from lampe_eval.commands.data import fetch_missing
from lampe_eval.commands.progress_display import progress_display
from lampe_eval.errors import Stopped
from lampe_eval.report import tables
from lampe_eval.results.cell_scores import count_empty_answers, scored_cells
from lampe_eval.results.decisions import describe_rule
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.running import runner
from lampe_eval.running.configuration import required_files, run_configuration, run_folder
from lampe_eval.running.prepared_run import PreparedRun, prepare_run
from lampe_eval.running.remaining import planned_cells
from lampe_eval.running.resolve import ResolvedSuite
from lampe_eval.store import Store
from lampe_eval.suite import exceeds_threshold


def run_suite(resolved: ResolvedSuite) -> int:
    """Run a suite and print its tables.

    Returns:
        Exit code: 1 if ``--fail-on-error`` says that so many failed samples fail the run, else 0.
        Samples that could not be drawn count as failed. Cells of other sessions do not count.

    Raises:
        Stopped: after Ctrl-C or SIGTERM; the message says how to resume.
    """
    console = terminal.console()
    prepared = prepare_with_files(resolved)
    with progress_display() as progress:
        progress.now("hashing models and texts")
        configuration = run_configuration(prepared)
        try:
            store = runner.run(
                prepared, configuration, progress, lambda store: _announce(prepared, store)
            )
        except Stopped as stop:
            folder = run_folder(configuration, resolved.suite.output)
            command = f"    lampe-eval {shlex.join(sys.argv[1:])}"
            message = f"stopped; finished samples are kept in {folder}. To resume:\n{command}"
            raise Stopped(stop.number, message) from None
    gathered = gather_runs([store.folder])
    tables.print_and_write_tables(gathered, store.folder, console)
    cells = planned_cells(prepared)
    scores = gathered.scores[[cell in cells for cell in scored_cells(gathered.scores)]]
    failed = int(scores["errors"].sum())
    missing = int(scores["missing"].sum())
    rows = [rows for (_, cell), rows in gathered.rows.items() if cell in cells]
    empty = sum(map(count_empty_answers, rows))
    if failed:
        console.print(
            f"{failed} samples failed; their errors are in samples/ and in run.log", soft_wrap=True
        )
    if missing:
        console.print(
            f"{missing} samples could not be drawn or were removed; run.log says why",
            soft_wrap=True,
        )
    if empty:
        console.print(f"{empty} answers are empty; they are scored as such", soft_wrap=True)
    stored = store.cells()
    total = sum(stored[cell] for cell in cells)
    return int(exceeds_threshold(resolved.suite.fail_on_error, failed + missing, total))


def prepare_with_files(resolved: ResolvedSuite) -> PreparedRun:
    """Prepare a run and fetch the benchmark files that it needs."""
    prepared = prepare_run(resolved)
    fetch_missing(required_files(prepared), resolved.suite.data_dir)
    return prepared


def _announce(prepared: PreparedRun, store: Store) -> None:
    """Print one line that says what starts, or resumes."""
    models = ", ".join(source.name for source in prepared.sources)
    methods = ", ".join(spec.label for spec in prepared.resolved.specs)
    tasks = ", ".join(task.full_name for task in prepared.resolved.tasks)
    what = (
        f"{models} x {methods} x {tasks}, protocol {prepared.resolved.suite.protocol_label}; "
        f"results in {store.folder}"
    )
    if "stopping" in store.config:
        what += f"; {describe_rule(store.config['stopping'])}"
    known = store.known_cells()
    cells = {cell: known.get(cell, limit) for cell, limit in planned_cells(prepared).items()}
    total = sum(cells.values())
    stored = 0
    rows_by_cell, _ = store.planned_rows(cells)
    for rows in rows_by_cell.values():
        stored += sum("error" not in row for row in rows)
    if stored == total > 0:
        text = f"nothing is left to run, {stored} of {total} samples are stored: {what}"
    elif stored:
        text = f"running {what}; {stored} of {total} samples are stored"
    else:
        at_most = f"; at most {total} samples" if "stopping" in store.config else ""
        text = f"running {what}{at_most}"
    print(text, file=sys.stderr, flush=True)
