"""Registry of methods by name.

A method inside the package is a new file here: every module is imported and every class with a name
registered. A method from another package is found by its entry point in the group
``lampe.methods``, whose name is the method's; it is imported when the name is first looked up.
"""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lampe.errors import BadSetting, LampeError, UnknownName
from lampe.methods.compose import Composed
from lampe.methods.method import KINDS, IndexMethod, Method, setting

ENTRY_POINTS = "lampe.methods"
"""Group of the entry points by which other packages add methods."""

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def _named_subclasses(base: type[Method]) -> Iterator[type[Method]]:
    for child in base.__subclasses__():
        if child.name:
            yield child
        yield from _named_subclasses(child)


METHODS: dict[str, type[Method]] = {
    child.name: child for child in sorted(_named_subclasses(Method), key=lambda child: child.name)
}
"""Registered methods by name; those of entry points are in it once they were looked up."""


def register_method(method: type[Method]) -> None:
    """Add a method from outside of the package.

    Raises:
        BadSetting: for a class without a name, or a name that another method has.
    """
    # These signs separate methods and settings in what users write.
    if not method.name or any(sign in method.name for sign in ":+,"):
        raise BadSetting(
            f"cannot register the method {method.__qualname__}: its name is {method.name!r}; "
            "give it a name without ':', '+' and ','"
        )
    if METHODS.get(method.name, method) is not method:
        raise BadSetting(
            f"cannot register the method {method.__qualname__}: the name {method.name!r} is that "
            f"of {METHODS[method.name].__module__}.{METHODS[method.name].__qualname__}; "
            "give it another name"
        )
    METHODS[method.name] = method


def method_class(name: str) -> type[Method]:
    """Return the class of a method, loading its entry point where another package has it.

    Raises:
        UnknownName: for a method that does not exist.
        LampeError: for an entry point that cannot be loaded.
    """
    if name not in METHODS:
        points = entry_points(group=ENTRY_POINTS)
        if name not in points.names:
            raise UnknownName("method", name, {*METHODS, *points.names})
        register_method(_load(points[name]))
    return METHODS[name]


def load_entry_points() -> None:
    """Register the methods of all entry points.

    Raises:
        BadSetting: for an entry point with the name of a method that exists.
        LampeError: for an entry point that cannot be loaded.
    """
    for point in entry_points(group=ENTRY_POINTS):
        register_method(_load(point))


def _load(point: EntryPoint) -> type[Method]:
    """Import the class of an entry point; whatever goes wrong in its package is one clear error."""
    where = f"cannot load the method {point.name!r} of the entry point {point.value}"
    try:
        method = point.load()
    except Exception as error:
        raise LampeError(f"{where}: {type(error).__name__}: {error}") from error
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise LampeError(f"{where}: it is no subclass of lampe.Method")
    if method.name != point.name:
        raise LampeError(f"{where}: the class is named {method.name!r}; give both the same name")
    return method


def method_of(name: str, **settings: Any) -> Method:
    """Return a method by name.

    Args:
        name: a method; ``"a+b"`` is the plan and attention factor of a with the rope of b.
        settings: hyper-parameters; those of b in ``"a+b"`` have its name in front, as
            ``**{"yarn.factor": 2}``.

    Raises:
        UnknownName: for a method or setting that does not exist.
        BadSetting: for a value that the method cannot take.
    """
    if ":" in name:
        raise BadSetting(
            f"method {name!r}: settings are arguments of their own, "
            "as method_of('lampe', head_tokens=64)"
        )
    name, plus, frequencies = name.partition("+")
    if plus:
        return Composed.from_parts(method_class(name), method_class(frequencies), settings)
    return method_class(name).from_settings(settings)


def require_loadable(method: Method) -> None:
    """Refuse a method that another process could not make from its name and settings.

    Raises:
        BadSetting: for such a method.
    """
    parts = [method.positions, method.frequencies] if isinstance(method, Composed) else [method]
    outside = entry_points(group=ENTRY_POINTS).names
    for part in parts:
        if not type(part).__module__.startswith(f"{__name__}.") and part.name not in outside:
            raise BadSetting(
                f"{part.label}: another process does not know this method; make it known by an "
                f"entry point in the group {ENTRY_POINTS}"
            )
    again: Method | None
    try:
        again = method_of(method.label, **json.loads(json.dumps(method.settings)))
    except (TypeError, LampeError):
        again = None
    if again != method:
        raise BadSetting(f"{method.label}: its settings cannot be written to a configuration")


__all__ = [
    "KINDS",
    "METHODS",
    "Composed",
    "IndexMethod",
    "Method",
    "load_entry_points",
    "method_class",
    "method_of",
    "register_method",
    "require_loadable",
    "setting",
]
