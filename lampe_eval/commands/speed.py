"""``lampe-eval speed``."""

from lampe_eval.commands.progress_display import progress_display
from lampe_eval.errors import UserError
from lampe_eval.report import tables
from lampe_eval.speed import speed_table
from lampe_eval.speed.speed_comparison import SpeedComparison
from lampe_eval.speed.speed_config import SpeedConfig


def measure_speed(order: SpeedConfig) -> None:
    """Measures, prints a table for each length, and writes them with the numbers and a picture.

    Where it is stopped, what was measured until then is printed and written.

    Raises:
        UserError: where nothing could be measured, or the folder cannot be written.
    """
    _make_folder(order)
    comparison = SpeedComparison(order)
    try:
        with progress_display() as progress:
            comparison.run(progress)
    finally:
        if any(entry.times for entry in comparison.entries):
            _publish(comparison, order)
    if not any(entry.times for entry in comparison.entries):
        raise UserError(f"nothing could be measured: {comparison.entries[0].note}")


def _make_folder(order: SpeedConfig) -> None:
    try:
        order.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{order.folder}: cannot be written ({error.strerror}); choose another --output"
        ) from None


def _publish(comparison: SpeedComparison, order: SpeedConfig) -> None:
    frame, console = comparison.frame, tables.console()
    for block in speed_table.speed_tables(frame):
        tables.print_block(block, console)
    for line in speed_table.speed_notes(frame):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    written = (
        f"written to {order.folder}: {', '.join(speed_table.write_speed(frame, order.folder))}"
    )
    console.print(written, soft_wrap=True, markup=False)
