"""Registry of benches by name, with their tasks from `tasks/<bench>/tasks.yaml`.

Every module in this folder is imported, so that a new file with a subclass of `Bench` is enough.
"""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import GenericAlias
from typing import Any

from pydantic import RootModel, create_model

from lampe_eval.benches.bench import Bench, Task
from lampe_eval.cards import read_card, shipped_folder
from lampe_eval.errors import unknown_name


def _subclasses(bench_class: type[Bench]) -> Iterator[type[Bench]]:
    for child in bench_class.__subclasses__():
        yield child
        yield from _subclasses(child)


for module in pkgutil.iter_modules(__path__, f"{__name__}."):
    import_module(module.name)
_classes = sorted(_subclasses(Bench), key=lambda bench: bench.name)  # type: ignore[type-abstract]
BENCHES: dict[str, Bench] = {bench.name: bench() for bench in _classes}


def bench_tasks(bench: str) -> list[Task]:
    """Return all tasks of a bench, in the order of its `tasks.yaml`.

    Raises:
        UserError: for a bench that does not exist, or a card that does not fit its schema.
    """
    if bench not in BENCHES:
        raise unknown_name("bench", bench, BENCHES, "lampe-eval list benches")
    kind: Any = GenericAlias(dict, (str, BENCHES[bench].card))
    schema = create_model("Tasks", __base__=RootModel, root=(kind, ...))
    cards = read_card(shipped_folder("tasks") / bench / "tasks.yaml", schema).root
    return [Task(bench, name, card) for name, card in cards.items()]


def find_tasks(names: tuple[str, ...]) -> list[Task]:
    """Return the tasks that names stand for, each task once.

    Args:
        names: names of benches, such as "niah" for its default tasks, and of tasks, such as
            "ppl/dense".

    Raises:
        UserError: for a bench or task that does not exist.
    """
    tasks: dict[str, Task] = {}
    for name in names:
        bench, slash, task_name = name.partition("/")
        of_bench = {task.name: task for task in bench_tasks(bench)}
        if slash and task_name not in of_bench:
            raise unknown_name(f"task of {bench}", task_name, of_bench, "lampe-eval list tasks")
        if slash:
            selected = [of_bench[task_name]]
        else:
            selected = [task for task in of_bench.values() if task.card.default]
        tasks |= {task.full_name: task for task in selected}
    return list(tasks.values())
