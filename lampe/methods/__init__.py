"""Methods by name. A new one is a new file here: every module is imported, every named class registered."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from lampe.errors import BadSetting, UnknownName
from lampe.methods.compose import Composed
from lampe.methods.method import IndexMethod, Method

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def _named(base: type[Method]) -> Iterator[type[Method]]:
    for child in base.__subclasses__():
        if child.name:
            yield child
        yield from _named(child)


METHODS: dict[str, type[Method]] = {
    child.name: child for child in sorted(_named(Method), key=lambda child: child.name)
}


def method_of(name: str, **settings: Any) -> Method:
    """A method by name; ``"a+b"`` is a's plan and attention_factor with b's rope (settings then go to a).

    Raises:
        UnknownName: for a method or setting that does not exist.
        BadSetting: for a value that the method cannot take.
    """
    if ":" in name:
        raise BadSetting(
            f"method {name!r}: settings are arguments of their own, as method_of('lampe', head=64)"
        )
    name, plus, rope = name.partition("+")
    if name not in METHODS:
        raise UnknownName("method", name, METHODS)
    method = METHODS[name].from_settings(settings)
    return Composed(positions=method, frequencies=method_of(rope)) if plus else method


__all__ = ["METHODS", "Composed", "IndexMethod", "Method", "method_of"]
