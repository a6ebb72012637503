"""Command `lampe-eval list`: models, methods, benches, tasks, protocols and published tables."""

from collections.abc import Iterable
from typing import Any

from rich.markup import escape
from rich.table import Table

import lampe.methods
from lampe_eval import terminal
from lampe_eval.cards import ModelCard, shipped_card, shipped_names
from lampe_eval.errors import UserError
from lampe_eval.method_specs import method_card, method_names


def models() -> None:
    """Print the models that have a card."""
    rows: list[tuple[str, ...]] = []
    for name in shipped_names("models"):
        card = shipped_card("models", name, ModelCard)
        rows.append((name, card.path, str(card.window or "-"), card.about))
    _print_table(("model", "path", "window", "about"), rows)


def methods() -> None:
    """Print every method with its settings by kind; those left open with their default's rule."""
    try:
        lampe.methods.load_entry_points()
    except lampe.LampeError as error:
        raise UserError(str(error)) from None
    rows: dict[str, list[tuple[str, ...]]] = {kind: [] for kind in lampe.methods.KINDS}
    for name in method_names():
        card = method_card(name)
        method = lampe.methods.method_class(card.method)
        defaults = {**method.from_settings({}).settings, **card.settings}
        settings = [_described_setting(method, key, value) for key, value in defaults.items()]
        rows[method.kind()].append((name, "\n".join(settings), card.about, card.paper))
    grouped: list[tuple[str, ...]] = []
    for kind, of_kind in rows.items():
        if of_kind:
            grouped += [(f"[bold]{kind}[/]",), *of_kind]
    _print_table(("method", "settings", "about", "source"), grouped)


def benches() -> None:
    """Print the benches with their tasks."""
    from lampe_eval.benches import BENCHES, bench_tasks, load_entry_points

    load_entry_points()
    rows: list[tuple[str, ...]] = []
    for name, bench in BENCHES.items():
        task_names = ", ".join(task.name for task in bench_tasks(name))
        rows.append((name, task_names or f"by name, as {name}/TASK", _first_line(bench)))
    _print_table(("bench", "tasks", "about"), rows)


def all_tasks() -> None:
    """Print the tasks of every bench."""
    from lampe_eval.benches import BENCHES, bench_tasks, load_entry_points

    load_entry_points()
    rows: list[tuple[str, ...]] = []
    for bench in BENCHES:
        for task in bench_tasks(bench):
            card = task.card
            default = "yes" if card.default else ""
            rows.append((task.full_name, default, str(card.samples), card.metric, card.about))
    _print_table(("task", "default", "samples", "metric", "about"), rows)


def all_protocols() -> None:
    """Print the protocols of every bench."""
    from lampe_eval.benches import BENCHES, load_entry_points
    from lampe_eval.prompts.protocol import bench_protocols

    load_entry_points()
    rows: list[tuple[str, ...]] = []
    for bench_name, bench in BENCHES.items():
        for name, protocol in bench_protocols(bench.protocols_folder).items():
            rows.append((bench_name, name, protocol.about))
    _print_table(("bench", "protocol", "about"), rows)


def all_published() -> None:
    """Print the published tables, each as a few lines, so that names and commits can be copied."""
    from lampe_eval.results import published_tables

    console = terminal.console()
    for name in published_tables.table_names():
        table = published_tables.find_table(name)
        console.print(f"[bold]{escape(name)}[/]", highlight=False)
        count = sum(1 for _ in table.numbers())
        lines = [f"{table.about}: {count} numbers", f"source: {table.source_line}"]
        if table.suites:
            lines.append(f"suites: {', '.join(table.suites)}")
        for line in lines:
            console.print(f"  {line}", soft_wrap=True, markup=False, highlight=False)


def _described_setting(method: type[lampe.Method], key: str, value: Any) -> str:
    """Return ``key=value``, or for a derived default ``key=auto`` with its rule."""
    if value is not None:
        return f"{key}={value}"
    rule = method.default_rule(key) if key in method.default_rules() else ""
    return f"{key}=auto ({rule})" if rule else f"{key} not set"


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


def _print_table(titles: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    terminal.console().print(table)
