"""Registry of benchmarks by name, and their tasks.

A bench inside the package is a new file here with a folder of its name in ``tasks/``: every module
is imported and every class registered. A bench from another package is found by its entry point in
the group ``lampe_eval.benches``, whose name is the bench's; it is imported when the name is first
looked up. Its YAML files lie in a folder of its name beside its file, as those of plug-ins do.
"""

import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import GenericAlias
from typing import Any

from pydantic import RootModel, create_model

from lampe_eval.benches.bench import Bench, Task
from lampe_eval.cards import read_card
from lampe_eval.errors import UserError, unknown_name

ENTRY_POINTS = "lampe_eval.benches"
"""Group of the entry points by which other packages add benches."""


class BenchRegistry(dict[str, Bench]):
    """Benches by name; those of entry points are in it once they were looked up."""

    def __missing__(self, name: str) -> Bench:
        """Return a bench from another package.

        Raises:
            UserError: for a bench that does not exist, or that cannot be loaded.
        """
        points = entry_points(group=ENTRY_POINTS)
        if name not in points.names:
            see = "lampe-eval list benches; a bench of a plug-in needs --plugin FILE.py"
            raise unknown_name("bench", name, {*self, *points.names}, see)
        register_bench(_load(points[name]))
        return self[name]


def _subclasses(kind: type[Bench]) -> Iterator[type[Bench]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)
_classes = sorted(_subclasses(Bench), key=lambda bench: bench.name)  # type: ignore[type-abstract]
BENCHES = BenchRegistry({bench.name: bench() for bench in _classes})
"""Registered benches by name."""


def register_bench(bench: type[Bench]) -> None:
    """Add a bench from outside of the package.

    Raises:
        UserError: for a name that another bench has, or a bench without tasks.
    """
    # Unlike [], ``get`` does not call __missing__, which would load an entry point of that name.
    existing = BENCHES.get(bench.name)
    if existing is not None:
        if type(existing) is bench:
            return
        raise UserError(
            f"cannot register the bench {bench.__qualname__}: the name {bench.name!r} is that of "
            f"{type(existing).__module__}.{type(existing).__qualname__}; give it another name"
        )
    if "outside_folder" not in vars(bench):  # a base class may be a bench with a folder
        bench.outside_folder = Path(inspect.getfile(bench)).parent / bench.name
    instance = bench()
    tasks = instance.folder / "tasks.yaml"
    if not tasks.is_file():
        raise UserError(
            f"cannot register the bench {bench.name!r}: no file {tasks}; "
            "write one that lists its tasks"
        )
    BENCHES[bench.name] = instance


def load_entry_points() -> None:
    """Register the benches of all entry points.

    Raises:
        UserError: for an entry point that cannot be loaded, or with a name that exists.
    """
    for point in entry_points(group=ENTRY_POINTS):
        register_bench(_load(point))


def _load(point: EntryPoint) -> type[Bench]:
    """Import the class of an entry point; whatever goes wrong in its package is one clear error."""
    where = f"cannot load the bench {point.name!r} of the entry point {point.value}"
    try:
        bench = point.load()
    except Exception as error:
        raise UserError(f"{where}: {type(error).__name__}: {error}") from error
    if not (inspect.isclass(bench) and issubclass(bench, Bench)):
        raise UserError(f"{where}: it is no subclass of lampe_eval.benches.bench.Bench")
    if bench.name != point.name:
        raise UserError(f"{where}: the class is named {bench.name!r}; give both the same name")
    return bench


def bench_tasks(bench: str) -> list[Task]:
    """Return all tasks that a bench lists.

    Raises:
        UserError: for a bench that does not exist, or a card that does not fit.
    """
    instance = BENCHES[bench]
    if not instance.lists_tasks:
        return []
    kind: Any = GenericAlias(dict, (str, instance.card))
    schema = create_model("Tasks", __base__=RootModel, root=(kind, ...))
    cards = read_card(instance.folder / "tasks.yaml", schema).root
    return [Task(bench, name, card) for name, card in cards.items()]


def find_tasks(names: Sequence[str]) -> list[Task]:
    """Return the tasks that names mean, each once.

    Args:
        names: benches such as "niah", for their default tasks, or tasks such as "ppl/dense". After
            a task of a bench that does not list its tasks, such as "lm-eval/piqa", a name that is
            no bench is one more of its tasks.

    Raises:
        UserError: for a bench or task that does not exist.
    """
    found: dict[str, Task] = {}
    open_bench = ""
    for name in names:
        bench, slash, task = name.partition("/")
        if open_bench and bench not in BENCHES:
            bench, task = open_bench, name
        open_bench = "" if BENCHES[bench].lists_tasks else bench
        if open_bench:
            chosen = BENCHES[bench].find_tasks(task)
        else:
            chosen = _listed(bench, task if slash else None)
        found |= {item.full_name: item for item in chosen}
    return list(found.values())


def _listed(bench: str, task: str | None) -> list[Task]:
    """Return a task that a bench lists; for None its default tasks."""
    known = {item.name: item for item in bench_tasks(bench)}
    if task is None:
        return [item for item in known.values() if item.card.default]
    if task not in known:
        raise unknown_name(f"task of {bench}", task, known, "lampe-eval list tasks")
    return [known[task]]
