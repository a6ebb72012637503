"""Benchmarks by name, those of all files in this folder, and their tasks: ``tasks/<bench>/tasks.yaml``."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import GenericAlias
from typing import Any

from pydantic import RootModel, create_model

from lampe_eval.benches.bench import Bench, Task
from lampe_eval.cards import read_card, shipped_folder
from lampe_eval.errors import unknown_name


def _all(kind: type[Bench]) -> Iterator[type[Bench]]:
    for child in kind.__subclasses__():
        yield child
        yield from _all(child)


for module in pkgutil.iter_modules(__path__, f"{__name__}."):
    import_module(module.name)
_classes = sorted(_all(Bench), key=lambda bench: bench.name)  # type: ignore[type-abstract]
BENCHES: dict[str, Bench] = {bench.name: bench() for bench in _classes}


def bench_tasks(bench: str) -> list[Task]:
    """All tasks of a bench.

    Raises:
        UserError: for a bench that does not exist, or a card that does not fit.
    """
    if bench not in BENCHES:
        raise unknown_name("bench", bench, BENCHES, "lampe-eval list benches")
    kind: Any = GenericAlias(dict, (str, BENCHES[bench].card))
    schema = create_model("Tasks", __base__=RootModel, root=(kind, ...))
    cards = read_card(shipped_folder("tasks") / bench / "tasks.yaml", schema).root
    return [Task(bench, name, card) for name, card in cards.items()]


def find_tasks(names: tuple[str, ...]) -> list[Task]:
    """The tasks that names such as "niah" (its default ones) and "ppl/dense" mean, each once.

    Raises:
        UserError: for a bench or task that does not exist.
    """
    found: dict[str, Task] = {}
    for name in names:
        bench, slash, task = name.partition("/")
        known = {item.name: item for item in bench_tasks(bench)}
        if slash and task not in known:
            raise unknown_name(f"task of {bench}", task, known, "lampe-eval list tasks")
        chosen = [known[task]] if slash else [item for item in known.values() if item.card.default]
        found |= {item.full_name: item for item in chosen}
    return list(found.values())
