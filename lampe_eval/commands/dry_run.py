"""``lampe-eval run --dry-run``."""

from rich.console import Console
from rich.filesize import decimal

from lampe_eval.commands.progress_display import duration, print_line, progress_display
from lampe_eval.commands.run import prepare_with_files
from lampe_eval.folder_lock import refuse_unwritable
from lampe_eval.models import ModelSource
from lampe_eval.report.settings_table import settings_text
from lampe_eval.results.decisions import describe_rule
from lampe_eval.run_description import run_date
from lampe_eval.running.configuration import run_configuration, run_folder
from lampe_eval.running.extension import extended
from lampe_eval.running.prepared_run import PreparedRun
from lampe_eval.running.preview import Preview, operations_per_second, previews
from lampe_eval.running.resolve import ResolvedSuite
from lampe_eval.running.resolved_settings import positions_beyond_window, settings_of_cells
from lampe_eval.terminal import TerminalConsole


def dry_run_suite(resolved: ResolvedSuite) -> None:
    """Print what a suite would run and what it would cost, without loading weights."""
    prepared = prepare_with_files(resolved)
    with progress_display() as progress:
        progress.now("hashing models and texts")
        configuration = run_configuration(prepared)
    folder = run_folder(configuration, resolved.suite.output)
    extended(folder, configuration)
    refuse_unwritable(folder)
    console = TerminalConsole(soft_wrap=True, highlight=False, markup=False)
    seconds = 0.0
    shown: set[tuple[str, tuple[str, ...]]] = set()
    rule = configuration.get("stopping")
    for preview in previews(prepared, run_date(folder), print_line):
        _print_preview(console, preview, "at most " if rule else "")
        key = (preview.task.full_name, preview.methods)
        if key not in shown:
            console.print(f"prompt of the first sample:\n{preview.text}")
            shown.add(key)
        if preview.seconds is not None:
            seconds += preview.seconds * len(preview.methods)
    for source in prepared.sources:
        _print_settings(console, prepared, source)
    speed = operations_per_second(prepared.device)
    methods = ", ".join(spec.label for spec in resolved.specs)
    console.rule(align="left")
    console.print(f"methods   {methods}; protocol {resolved.suite.protocol_label}")
    if speed is None:
        total = f"time unknown on {prepared.device}, which this machine does not have"
    else:
        measured = f"{speed / 1e12:.2g} TFLOP/s measured here on {prepared.device}"
        if_all = " if every sample runs" if rule else ""
        total = f"at least {duration(seconds)}{if_all}, at {measured}"
    if rule:
        console.print(f"stops     {describe_rule(rule)}")
    console.print(f"in all    {total}; results in {folder}")


def _print_settings(console: Console, prepared: PreparedRun, source: ModelSource) -> None:
    """Print the settings of each method at each length of a model."""
    console.rule(f"settings at each length, answer included · {source.name}", align="left")
    cells = settings_of_cells(prepared, source)
    # Tasks share them.
    by_length = {(cell.method, cell.length): settings for cell, settings in cells.items()}
    for (method, length), resolved in sorted(by_length.items(), key=lambda item: item[0][1]):
        settings = settings_text(resolved)
        console.print(
            f"{length:<9} {method}: {settings + '; ' if settings else ''}"
            f"attention factor {resolved['attention_factor']}, "
            f"largest position {resolved['largest_position']:g}"
            f"{f', sees {visible}' if (visible := resolved.get('visible_tokens')) else ''}"
        )
    if line := positions_beyond_window(prepared, source):
        console.print(line)


def _print_preview(console: Console, preview: Preview, limit: str) -> None:
    """Print the samples and the cost of one task at one length.

    Args:
        console: where to print.
        preview: the task and the length.
        limit: "at most " where a stopping rule may leave samples out.
    """
    bins = ", ".join(f"{count} of up to {end}k" for end, count in preview.histogram.items())
    note = ""
    if preview.longest > preview.length:
        note = ": longer than the cell, which this protocol allows"
    cost = f"{decimal(preview.memory_bytes)} of memory"
    if preview.seconds is not None:
        cost = f"at least {duration(preview.seconds)} a method, {cost}"
    console.rule(
        f"{preview.task.full_name} · {preview.length} tokens · {preview.model}", align="left"
    )
    console.print(f"methods   {', '.join(preview.methods)}")
    console.print(
        f"samples   {limit}{preview.samples} a method; tokens: {bins}; "
        f"{preview.cut} prompts cut, {preview.skipped} left out as too long"
    )
    if preview.documents:
        console.print(
            f"documents {preview.documents} with several questions, each under one plan and read "
            "once"
        )
    console.print(f"longest   {preview.longest} tokens with its answer, of {preview.length}{note}")
    console.print(f"cost      {cost}")
