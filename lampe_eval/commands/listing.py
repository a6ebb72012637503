"""Command `lampe-eval list`: models, methods, benches, tasks, protocols and published tables."""

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from lampe_eval.cards import MethodCard, ModelCard, shipped_card, shipped_names
from lampe_eval.report import tables


def models() -> None:
    """Print the models that have a card."""
    rows: list[tuple[str, ...]] = []
    for name in shipped_names("models"):
        card = shipped_card("models", name, ModelCard)
        rows.append((name, card.path, str(card.window or "-"), card.about))
    _print_table(("model", "path", "window", "about"), rows)


def methods() -> None:
    """Print the methods with their default settings."""
    from lampe import METHODS

    rows: list[tuple[str, ...]] = []
    for name in shipped_names("methods"):
        card = shipped_card("methods", name, MethodCard)
        defaults = {**METHODS[card.method].from_settings({}).settings, **card.settings}
        lines = [f"{key}={'auto' if value is None else value}" for key, value in defaults.items()]
        rows.append((name, "\n".join(lines), card.about, card.paper))
    _print_table(("method", "settings", "about", "source"), rows)


def benches() -> None:
    """Print the benches with their tasks."""
    from lampe_eval.benches import BENCHES, bench_tasks

    rows: list[tuple[str, ...]] = []
    for name, bench in BENCHES.items():
        task_names = ", ".join(task.name for task in bench_tasks(name))
        rows.append((name, task_names, _first_line(bench)))
    _print_table(("bench", "tasks", "about"), rows)


def all_tasks() -> None:
    """Print the tasks of every bench."""
    from lampe_eval.benches import BENCHES, bench_tasks

    rows: list[tuple[str, ...]] = []
    for bench in BENCHES:
        for task in bench_tasks(bench):
            card = task.card
            default = "yes" if card.default else ""
            rows.append((task.full_name, default, str(card.samples), card.metric, card.about))
    _print_table(("task", "default", "samples", "metric", "about"), rows)


def all_protocols() -> None:
    """Print the protocols of every bench."""
    from lampe_eval.benches import BENCHES
    from lampe_eval.prompts.protocol import bench_protocols

    rows: list[tuple[str, ...]] = []
    for bench_name, bench in BENCHES.items():
        for name, protocol in bench_protocols(bench.family or bench_name).items():
            rows.append((bench_name, name, protocol.about))
    _print_table(("bench", "protocol", "about"), rows)


def all_published() -> None:
    """Print the published tables, each as a few lines, so that names and commits can be copied."""
    from lampe_eval.report.comparison_table import table_source
    from lampe_eval.results import published_tables

    console = tables.console()
    for name in published_tables.table_names():
        table = published_tables.find_table(name)
        console.print(f"[bold]{escape(name)}[/]", highlight=False)
        count = sum(1 for _ in table.numbers())
        lines = [f"{table.about}: {count} numbers", f"source: {table_source(table)}"]
        if table.suites:
            lines.append(f"suites: {', '.join(table.suites)}")
        for line in lines:
            console.print(f"  {line}", soft_wrap=True, markup=False, highlight=False)


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


def _print_table(titles: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    tables.console().print(table)
