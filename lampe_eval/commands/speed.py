"""Command ``lampe-eval speed``."""

from lampe_eval import terminal
from lampe_eval.commands.progress_display import progress_display
from lampe_eval.errors import UserError
from lampe_eval.file_io import clean_if_refused, existing_paths, unwritable
from lampe_eval.report import tables
from lampe_eval.speed.speed_comparison import SpeedComparison
from lampe_eval.speed.speed_config import ResolvedSpeed, SpeedConfig
from lampe_eval.speed.speed_table import speed_notes, speed_tables, write_speed


def measure_speed(resolved: ResolvedSpeed) -> None:
    """Measure, then print a table for each length and write tables, numbers and a plot.

    If it is interrupted, it prints and writes what was measured until then.

    Raises:
        UserError: if nothing could be measured, or the folder cannot be written.
    """
    folder = resolved.config.folder
    with clean_if_refused(folder, existing_paths(folder), "*"):
        _create_folder(resolved.config)
        with progress_display() as display:
            display.now(f"loading {resolved.config.name}")
            comparison = SpeedComparison(resolved)
        try:
            with progress_display() as display:
                comparison.run(display)
        finally:
            if _has_times(comparison):
                _publish(comparison, resolved.config)
        if not _has_times(comparison):
            raise UserError(f"nothing could be measured: {comparison.compared[0].note}")


def _has_times(comparison: SpeedComparison) -> bool:
    return any(compared.times for compared in comparison.compared)


def _create_folder(config: SpeedConfig) -> None:
    """Create the folder first, so that nothing is measured that cannot be written."""
    try:
        config.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(config.folder, error, "choose another --output") from None


def _publish(comparison: SpeedComparison, config: SpeedConfig) -> None:
    """Print and write the tables."""
    table, console = comparison.table, terminal.console()
    for block in speed_tables(table):
        tables.print_table(block, console)
    for line in speed_notes(table):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    names = ", ".join(write_speed(table, config.folder))
    console.print(f"written to {config.folder}: {names}", soft_wrap=True, markup=False)
