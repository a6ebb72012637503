"""``lampe-eval calibrate``."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from lampe_eval.calibration.calibration_config import (
    CalibrationConfig,
    ResolvedCalibration,
    resolve_calibration,
)
from lampe_eval.calibration.calibration_files import write_calibration
from lampe_eval.calibration.calibration_run import FittedSettings, calibrate
from lampe_eval.commands.data import provide
from lampe_eval.commands.progress_display import duration, progress_display
from lampe_eval.errors import Stopped
from lampe_eval.method_specs import MethodSpec
from lampe_eval.report import tables
from lampe_eval.results.gathered_runs import gather_runs
from lampe_eval.running.configuration import required_files
from lampe_eval.running.preview import least_seconds


def calibrate_model(options: dict[str, Any], dry_run: bool) -> None:
    """Says what a calibration takes, runs what is left of it, and shows what it found."""
    console = tables.console()
    wanted = resolve_calibration(CalibrationConfig.from_options(options))
    provide(required_files(wanted.plan), wanted.order.data_dir)
    console.print(_estimate(wanted), soft_wrap=True, markup=False)
    if dry_run:
        return
    try:
        fitted = calibrate(wanted, progress_display)
    except Stopped as stop:
        kept = f"stopped; what is finished is kept in {wanted.folder}, the same command goes on"
        raise Stopped(stop.number, kept) from None
    written = write_calibration(wanted, fitted)
    console.print(_table(fitted))
    for line in _edges(fitted):
        console.print(line, soft_wrap=True, markup=False)
    console.print("[bold]on lengths held out[/]")
    held_out = wanted.folder / "held-out"
    tables.print_and_write_tables(gather_runs([held_out]), held_out, console)
    names = ", ".join(path.name for path in written)
    for line in (
        *(_kept(fitted, stages) for stages in fitted.stages),
        f"written to {wanted.folder}: {names}",
    ):
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"use it: lampe-eval run --model {written[0]}", soft_wrap=True, markup=False)


def _edges(fitted: FittedSettings) -> Iterator[str]:
    """Which sweeps may not have reached the best value."""
    for swept in fitted.swept:
        if lengths := [str(best.length) for best in swept.found if best.edge]:
            label, setting = swept.sweep.spec.label, swept.sweep.setting
            yield f"{label}: at {', '.join(lengths)} tokens the best {setting} is the first or last of those tried"


def _kept(fitted: FittedSettings, stages: Sequence[MethodSpec]) -> str:
    """Which of a method's rows the card has, and by what."""
    given, kept = stages[0], fitted.kept(stages)
    if kept is given:
        return f"kept: {given.label} as given; what was fitted is no better on the lengths held out"
    mean, before = (abs(fitted.loss(spec)) for spec in (kept, given))
    return (
        f"kept: {kept.label}; on the lengths held out {mean:.4g} on average, as given {before:.4g}"
    )


def _estimate(wanted: ResolvedCalibration) -> str:
    """What is going to be run, and its time."""
    order, (first, *_) = wanted.order, wanted.plan.specs
    cells = sum(rows * len(lengths) for lengths, rows in wanted.rows)
    costs = [
        (least_seconds(wanted.run([first.label], lengths)), rows) for lengths, rows in wanted.rows
    ]
    known = [seconds * rows for seconds, rows in costs if seconds is not None]
    time = (
        f"at least {duration(sum(known))}"
        if len(known) == len(costs)
        else "time unknown: the device is not here"
    )
    methods, settings = (
        ", ".join(spec.label for spec in wanted.plan.specs),
        " and ".join(wanted.settings),
    )
    samples = wanted.plan.limit(wanted.plan.tasks[0])
    return (
        f"calibrating {settings} of {methods} on {order.model[0]} by {wanted.plan.tasks[0].full_name} at "
        f"{', '.join(map(str, order.lengths))} tokens, held out {', '.join(map(str, order.held_out))}: "
        f"{cells} cells of {samples} samples, {time}; results in {wanted.folder}"
    )


def _table(fitted: FittedSettings) -> Table:
    """Each length's best value of each setting, and the scores of the values tried."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("method", "setting", "tokens", "best", "value: score of those tried"):
        table.add_column(title, overflow="fold")
    for swept in fitted.swept:
        for best in swept.found:
            rows = swept.table[swept.table["length"] == best.length]
            tried = "  ".join(f"{row.value:g}: {row.score:.4g}" for row in rows.itertuples())
            label = escape(swept.sweep.spec.label)
            table.add_row(label, swept.sweep.setting, str(best.length), f"{best.value:.4g}", tried)
    return table
