"""Tasks of a suite whose files are on this machine, for ``--available``."""

from dataclasses import replace
from pathlib import Path

from lampe_eval import assets
from lampe_eval.benches import BENCHES
from lampe_eval.benches.bench import Task
from lampe_eval.errors import UserError, report_warning
from lampe_eval.running.resolve import ResolvedSuite
from lampe_eval.texts import documents


def leave_out_missing(resolved: ResolvedSuite) -> ResolvedSuite:
    """Return a suite without the tasks that lack a sound file; say in a line which these are.

    Raises:
        UserError: if no task is left.
    """
    tasks: list[Task] = []
    left_out: list[str] = []
    missing: dict[str, assets.LocalAsset] = {}
    for task in resolved.tasks:
        of_task = _missing_files(task, resolved)
        missing.update(of_task)
        if of_task or _lacks_ready_samples(task, resolved):
            left_out.append(task.full_name)
        else:
            tasks.append(task)
    line = f"left out, their files are not on this machine: {', '.join(left_out)}"
    if missing:
        line += f"; missing: {', '.join(missing)}{assets.describe_unused(missing.values())}"
    if not tasks:
        raise UserError(f"--available: no task is left to run; {line}")
    if left_out:
        report_warning(line)
    benches = {task.bench for task in tasks}
    protocols = {name: value for name, value in resolved.protocols.items() if name in benches}
    return replace(resolved, tasks=tasks, protocols=protocols)


def _missing_files(task: Task, resolved: ResolvedSuite) -> dict[str, assets.LocalAsset]:
    """Return the files that a task needs and that are missing or corrupt, by name."""
    suite = resolved.suite
    bench = BENCHES[task.bench]
    source: Path | None = getattr(suite, bench.source_option) if bench.source_option else None
    protocol = resolved.protocols[task.bench]
    files = bench.required_files(task, protocol, source)
    # Default lengths depend on the model, which is not known yet.
    for length in suite.lengths:
        files += bench.files_of_length(task, protocol, length)
    missing: dict[str, assets.LocalAsset] = {}
    for name in (*files, *documents.required_files(source)):
        local = assets.locate(assets.find(name), suite.data_dir)
        if local.path is None:
            missing[name] = local
    return missing


def _lacks_ready_samples(task: Task, resolved: ResolvedSuite) -> bool:
    """Return whether a task reads ready-made samples of the user, and there are none."""
    protocol = resolved.protocols[task.bench]
    if protocol.prompts != "ready":
        return False
    return not BENCHES[task.bench].user_files(task, protocol, resolved.suite.data_dir)
