"""``lampe-eval run``."""

import shlex
import sys

from lampe_eval.commands.data import fetch_missing
from lampe_eval.commands.progress_display import progress
from lampe_eval.errors import Stopped
from lampe_eval.plan import Plan, prepare
from lampe_eval.report import tables
from lampe_eval.results.cell_scores import count_empty_answers
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.running import runner
from lampe_eval.store import Store
from lampe_eval.suite import Suite, exceeds_threshold


def run_suite(suite: Suite) -> int:
    """Runs a suite and prints its tables.

    Returns:
        0, or 1 where as many samples failed as ``--fail-on-error`` says; those that could not be had count.

    Raises:
        Stopped: by Ctrl-C or SIGTERM; it says how to go on.
    """
    console = tables.console()
    plan = plan_of(suite)
    try:
        with progress() as told:
            store = runner.run(plan, told, lambda store: _announce(plan, store))
    except Stopped as stop:
        again = f"    lampe-eval {shlex.join(sys.argv[1:])}"
        kept = f"stopped; what is finished is kept in {plan.folder}. To go on:\n{again}"
        raise Stopped(stop.number, kept) from None
    gathered = gather_runs([store.folder])
    tables.print_and_write_tables(gathered, store.folder, console)
    failed, missing = (int(gathered.scores[column].sum()) for column in ("errors", "missing"))
    if failed:
        console.print(
            f"{failed} samples failed; their errors are in samples/ and in run.log", soft_wrap=True
        )
    if missing:
        console.print(f"{missing} samples could not be had; run.log says why", soft_wrap=True)
    empty = count_empty_answers(store)
    if empty:
        console.print(f"{empty} answers are empty; they are scored as such", soft_wrap=True)
    return (
        1
        if exceeds_threshold(
            plan.suite.fail_on_error, failed + missing, sum(store.cells().values())
        )
        else 0
    )


def _announce(plan: Plan, store: Store) -> None:
    """One line about what begins, or goes on."""
    models, methods = (
        ", ".join(source.name for source in plan.sources),
        ", ".join(spec.label for spec in plan.specs),
    )
    tasks = ", ".join(task.full_name for task in plan.tasks)
    what = f"{models} x {methods} x {tasks}, protocol {plan.suite.protocol_label}; results in {plan.folder}"
    cells = store.cells()
    total = sum(cells.values())
    stored = sum("error" not in row for cell in cells for row in store.rows(cell))
    text = f"running {what}" + (f"; {stored} of {total} samples are stored" if stored else "")
    if stored == total > 0:
        text = f"nothing is left to run, {stored} of {total} samples are stored: {what}"
    print(text, file=sys.stderr, flush=True)


def plan_of(suite: Suite) -> Plan:
    """The plan of a suite, with the benchmark files that it needs."""
    plan = prepare(suite)
    fetch_missing(plan.files, suite.data_dir)
    return plan
