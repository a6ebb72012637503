"""``lampe-eval list``."""

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from lampe_eval.cards import MethodCard, ModelCard, shipped_card, shipped_names
from lampe_eval.report import tables


def models() -> None:
    """Models with a card."""
    cards = [(name, shipped_card("models", name, ModelCard)) for name in shipped_names("models")]
    _print(
        ("model", "path", "window", "about"),
        [(name, c.path, str(c.window or "-"), c.about) for name, c in cards],
    )


def methods() -> None:
    """Methods with their settings, as a method of the library has them."""
    from lampe import METHODS

    rows = []
    for name in shipped_names("methods"):
        card = shipped_card("methods", name, MethodCard)
        defaults = {**METHODS[card.method].from_settings({}).settings, **card.settings}
        settings = "\n".join(
            f"{key}={'auto' if value is None else value}" for key, value in defaults.items()
        )
        rows.append((name, settings, card.about, card.paper))
    _print(("method", "settings", "about", "source"), rows)


def benches() -> None:
    """Benches with what they measure."""
    from lampe_eval.benches import BENCHES, bench_tasks

    rows = [
        (name, ", ".join(task.name for task in bench_tasks(name)), _about(bench))
        for name, bench in BENCHES.items()
    ]
    _print(("bench", "tasks", "about"), rows)


def all_tasks() -> None:
    """Tasks of every bench."""
    from lampe_eval.benches import BENCHES, bench_tasks

    found = [task for name in BENCHES for task in bench_tasks(name)]
    rows = [
        (
            t.full_name,
            "yes" if t.card.default else "",
            str(t.card.samples),
            t.card.metric,
            t.card.about,
        )
        for t in found
    ]
    _print(("task", "default", "samples", "metric", "about"), rows)


def all_protocols() -> None:
    """Protocols of every bench."""
    from lampe_eval.benches import BENCHES
    from lampe_eval.prompts.protocol import bench_protocols

    found = [
        (name, *item)
        for name, bench in BENCHES.items()
        for item in bench_protocols(bench.protocols_of or name).items()
    ]
    _print(
        ("bench", "protocol", "about"),
        [(bench, name, protocol.about) for bench, name, protocol in found],
    )


def all_published() -> None:
    """Published tables, a paragraph each; a terminal breaks its lines, so that names and commits can be copied."""
    from lampe_eval.report.comparison_table import table_source
    from lampe_eval.results import published_tables

    console = tables.console()
    for name in published_tables.names():
        table = published_tables.find_table(name)
        console.print(f"[bold]{escape(name)}[/]", highlight=False)
        numbers = f"{table.about}: {sum(1 for _ in table.figures())} numbers"
        suites = [f"suites: {', '.join(table.suites)}"] if table.suites else []
        for line in (numbers, f"source: {table_source(table)}", *suites):
            console.print(f"  {line}", soft_wrap=True, markup=False, highlight=False)


def _about(bench: object) -> str:
    return (bench.__doc__ or "").strip().splitlines()[0]


def _print(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, title in enumerate(head):
        table.add_column(title, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    tables.console().print(table)
