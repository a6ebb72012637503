"""Command ``lampe-eval calibrate``."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lampe_eval import terminal
from lampe_eval.calibration.calibration_config import CalibrationConfig
from lampe_eval.calibration.calibration_files import write_calibration
from lampe_eval.calibration.calibration_run import FittedSettings, calibrate
from lampe_eval.calibration.resolved_calibration import ResolvedCalibration, resolve_calibration
from lampe_eval.commands.data import fetch_missing
from lampe_eval.commands.progress_display import duration, progress_display
from lampe_eval.errors import Stopped
from lampe_eval.method_specs import MethodSpec
from lampe_eval.report import tables
from lampe_eval.report.table_model import INTERVAL_NOTE, interval_text
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.running.configuration import required_files
from lampe_eval.running.preview import least_seconds
from lampe_eval.running.resolve import ResolvedSuite


def calibrate_model(config: CalibrationConfig, resolved: ResolvedSuite, dry_run: bool) -> None:
    """Print what a calibration costs, run what is left of it, and print and write its result.

    Args:
        config: options of the command.
        resolved: what their names mean.
        dry_run: whether to return after printing the cost.

    Raises:
        UserError: if something cannot be calibrated.
        Stopped: if a signal stops it; the message says how to continue.
    """
    console = terminal.console()
    calibration = resolve_calibration(config, resolved)
    fetch_missing(required_files(calibration.prepared), calibration.config.data_dir)
    _print_line(console, _estimate(calibration))
    if dry_run:
        return
    try:
        fitted = calibrate(calibration, progress_display)
    except Stopped as stop:
        message = (
            f"stopped; finished samples are stored in {calibration.folder}, "
            "run the same command to continue"
        )
        raise Stopped(stop.number, message) from None
    _print_result(console, calibration, fitted)


def _print_result(
    console: Console, calibration: ResolvedCalibration, fitted: FittedSettings
) -> None:
    """Write the files of a calibration and print its tables."""
    paths = write_calibration(calibration, fitted)
    console.print(_best_values_table(fitted))
    for line in _grid_warnings(fitted):
        _print_line(console, line)
    console.print("[bold]on held-out lengths[/]")
    held_out = calibration.folder / "held-out"
    tables.print_and_write_tables(gather_runs([held_out]), held_out, console)
    for stages in fitted.stages:
        _print_line(console, _choice(fitted, stages))
    names = ", ".join(path.name for path in paths)
    _print_line(console, f"written to {calibration.folder}: {names}")
    _print_line(console, f"use it: lampe-eval run --model {paths[0]}")


def _print_line(console: Console, line: str) -> None:
    """Print a line whose names may contain brackets, and which may be copied, so it never wraps."""
    console.print(line, soft_wrap=True, markup=False)


def _grid_warnings(fitted: FittedSettings) -> Iterator[str]:
    """Yield a warning for each sweep whose grid may not contain the best value."""
    for result in fitted.sweeps:
        lengths = [str(best.length) for best in result.best if best.edge]
        if lengths:
            label, setting = result.sweep.spec.label, result.sweep.name
            yield (
                f"{label}: at {', '.join(lengths)} tokens the best {setting} is the first or last "
                "of those tried"
            )


def _choice(fitted: FittedSettings, stages: Sequence[MethodSpec]) -> str:
    """Return which settings of a method are on the card, and why."""
    given, best = stages[0], fitted.best_stage(stages)
    if best is given:
        return (
            f"chosen: {given.label} as given; fitted settings are no better on the held-out lengths"
        )
    means = [
        _with_interval(fitted.mean(stage), fitted.mean_interval(stage)) for stage in (best, given)
    ]
    return (
        f"chosen: {best.label}; mean over the held-out lengths {means[0]}, as given {means[1]}; "
        f"{INTERVAL_NOTE}"
    )


def _with_interval(score: float, interval: tuple[float, float]) -> str:
    return f"{score:.4g} {interval_text(*interval)}".rstrip()


def _estimate(calibration: ResolvedCalibration) -> str:
    """Return what is going to be run, and how long it takes at least."""
    config, prepared = calibration.config, calibration.prepared
    first = prepared.resolved.specs[0]
    cells, seconds, is_known = 0, 0.0, True
    for lengths, rows in calibration.row_counts:
        cells += rows * len(lengths)
        # Rows of one length cost the same, so one method stands for all.
        seconds_per_row = least_seconds(calibration.run([first], lengths))
        if seconds_per_row is None:
            is_known = False
        else:
            seconds += seconds_per_row * rows
    time = f"at least {duration(seconds)}" if is_known else "time unknown: the device is not here"
    methods = ", ".join(spec.label for spec in prepared.resolved.specs)
    task = prepared.resolved.tasks[0]
    return (
        f"calibrating {' and '.join(calibration.settings)} of {methods} on {config.model[0]} "
        f"by {task.full_name} at {', '.join(map(str, config.lengths))} tokens, "
        f"held out {', '.join(map(str, config.held_out))}: "
        f"{cells} cells of {prepared.limit(task)} samples, {time}; results in {calibration.folder}"
    )


def _best_values_table(fitted: FittedSettings) -> Table:
    """Return a table of each length's best value, and the scores of the values tried."""
    tried_title = "value: score of those tried [95 % interval]"
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("method", "setting", "tokens", "best", tried_title):
        table.add_column(escape(title), overflow="fold")
    for result in fitted.sweeps:
        label = escape(result.sweep.spec.label)
        for best in result.best:
            rows = result.table[result.table["length"] == best.length]
            tried = [
                f"{row['value']:g}: {_with_interval(row['score'], (row['ci_low'], row['ci_high']))}"
                for row in rows.to_dict("records")
            ]
            cells = (str(best.length), f"{best.value:.4g}", escape("  ".join(tried)))
            table.add_row(label, result.sweep.name, *cells)
    return table
