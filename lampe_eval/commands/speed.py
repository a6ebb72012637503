"""``lampe-eval speed``."""

from typing import Any

from lampe_eval.commands.progress import progress
from lampe_eval.report import tables
from lampe_eval.speed import show
from lampe_eval.speed.compare import compare
from lampe_eval.speed.order import Order


def measure_speed(options: dict[str, Any]) -> None:
    """Measures, prints a table for each length, and writes them with the numbers and a picture."""
    order, console = Order.of(options), tables.console()
    with progress() as told:
        frame = compare(order, told)
    for block in show.blocks(frame):
        tables.print_block(block, console)
    for line in show.about(frame):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    written = f"written to {order.folder}: {', '.join(show.write(frame, order.folder))}"
    console.print(written, soft_wrap=True, markup=False)
