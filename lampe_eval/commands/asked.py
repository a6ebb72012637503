"""What a user asks for, its names looked up before torch is brought along, which takes seconds."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.cards import card_of, names, read, shipped, shipped_card
from lampe_eval.errors import UserError, unknown
from lampe_eval.methods import parse
from lampe_eval.speed.order import Order
from lampe_eval.suite import Suite


def suite_of(config: str | None, options: Mapping[str, Any]) -> Suite:
    """The options, over those of a suite file where one is given.

    Raises:
        UserError: for a file, an option or a name that cannot be.
    """
    given = {key: value for key, value in options.items() if value is not None}
    suite = Suite.of({**(_configured(config) if config else {}), **given})
    look_up(suite.model, suite.method, suite.bench, suite.protocol_label)
    return suite


def order_of(options: Mapping[str, Any]) -> Order:
    """What is to be measured by ``lampe-eval speed``.

    Raises:
        UserError: as ``suite_of``.
    """
    order = Order.of(options)
    look_up([] if order.shape else [order.checkpoint], order.method)
    return order


def look_up(
    models: Iterable[str] = (),
    methods: Iterable[str] = (),
    benches: Iterable[str] = (),
    protocol: str = "fair",
) -> None:
    """Looks up cards, tasks and protocols.

    Raises:
        UserError: for the first name that does not exist.
    """
    for spec in parse(methods):
        _ = spec.card
    for task in find_tasks(tuple(benches)):
        BENCHES[task.bench].protocol(protocol)
    for model in models:
        card_of(model)


def _configured(config: str) -> dict[str, Any]:
    """What a suite's file says."""
    if Path(config).is_file():
        suite = read(Path(config), Suite)
    elif config in names("suites"):
        suite = shipped_card("suites", config, Suite)
    elif Path(config).suffix in (".yaml", ".yml") or "/" in config:
        problem = "a folder; give the suite's file" if Path(config).is_dir() else "no such file"
        raise UserError(f"--config: {config}: {problem}")
    else:
        raise unknown(
            "suite", config, names("suites"), f"the files in {shipped('configs') / 'suites'}"
        )
    return suite.model_dump(exclude_unset=True)
