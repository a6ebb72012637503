"""Tasks of a suite whose files are on this machine, for ``--available``."""

import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

from lampe_eval import assets
from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import Task
from lampe_eval.errors import UserError
from lampe_eval.running.resolve import ResolvedSuite
from lampe_eval.texts import documents


def leave_out_missing(resolved: ResolvedSuite) -> ResolvedSuite:
    """Return a suite without the tasks whose files are missing; say in a line which these are.

    Raises:
        UserError: if no task is left, or a file is corrupt.
    """
    missing = {task.full_name: _missing_files(task, resolved) for task in resolved.tasks}
    tasks = [task for task in resolved.tasks if not missing[task.full_name]]
    left_out = ", ".join(name for name, files in missing.items() if files)
    files = ", ".join(dict.fromkeys(chain.from_iterable(missing.values())))
    if not tasks:
        raise UserError(
            f"--available: no task has its files on this machine: {left_out}; missing: {files}"
        )
    if left_out:
        print(f"left out: {left_out}; missing: {files}", file=sys.stderr, flush=True)
    benches = {task.bench for task in tasks}
    protocols = {name: value for name, value in resolved.protocols.items() if name in benches}
    return replace(resolved, tasks=tasks, protocols=protocols)


def _missing_files(task: Task, resolved: ResolvedSuite) -> list[str]:
    """Return the names of the files that a task needs and that are not on this machine.

    Raises:
        UserError: if one is corrupt.
    """
    suite = resolved.suite
    bench = BENCHES[task.bench]
    protocol = resolved.protocols[task.bench]
    option = bench.source_option
    source: Path | None = getattr(suite, option) if option else None
    names = [*bench.required_files(task, protocol, source), *documents.required_files(source)]
    missing: list[str] = []
    for name in names:
        local = assets.locate(assets.find(name), suite.data_dir)
        if local.state == "missing":
            missing.append(f"{name}{assets.describe_unused(local.unused)}")
        else:
            local.open_path()  # raises for a corrupt file
    if protocol.prompts == "ready" and not bench.user_files(task, protocol, suite.data_dir):
        missing.append(f"ready samples of {task.name}")
    return missing
