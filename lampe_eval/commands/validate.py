"""What a user asks for, its names looked up before torch is brought along, which takes seconds."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.cards import find_model_card, read_card, shipped_card, shipped_folder, shipped_names
from lampe_eval.errors import UserError, unknown_name
from lampe_eval.method_specs import parse_methods
from lampe_eval.plugins import load_plugins
from lampe_eval.speed.speed_config import SpeedConfig
from lampe_eval.suite import Suite


def validate_suite(config: str | None, options: Mapping[str, Any]) -> Suite:
    """The options, over those of a suite file where one is given.

    Raises:
        UserError: for a file, an option or a name that cannot be.
    """
    given = {key: value for key, value in options.items() if value is not None}
    suite = Suite.from_options({**(_configured(config) if config else {}), **given})
    look_up_names(suite.model, suite.method, suite.bench, suite.protocol_label, suite.plugin)
    return suite


def validate_speed(options: Mapping[str, Any]) -> SpeedConfig:
    """What is to be measured by ``lampe-eval speed``.

    Raises:
        UserError: as ``suite_of``.
    """
    order = SpeedConfig.from_options(options)
    models = [] if order.shape else [order.checkpoint]
    look_up_names(models, order.method, plugins=order.plugin)
    return order


def look_up_names(
    models: Iterable[str] = (),
    methods: Iterable[str] = (),
    benches: Iterable[str] = (),
    protocol: str = "fair",
    plugins: Iterable[Path] = (),
) -> None:
    """Load plug-ins, then look up cards, tasks and protocols.

    Raises:
        UserError: for the first name that does not exist.
    """
    load_plugins(plugins)
    for spec in parse_methods(methods):
        _ = spec.card
    for task in find_tasks(tuple(benches)):
        BENCHES[task.bench].protocol(protocol)
    for model in models:
        find_model_card(model)


def _configured(config: str) -> dict[str, Any]:
    """What a suite's file says."""
    if Path(config).is_file():
        suite = read_card(Path(config), Suite)
    elif config in shipped_names("suites"):
        suite = shipped_card("suites", config, Suite)
    elif Path(config).suffix in (".yaml", ".yml") or "/" in config:
        problem = "a folder; give the suite's file" if Path(config).is_dir() else "no such file"
        raise UserError(f"--config: {config}: {problem}")
    else:
        raise unknown_name(
            "suite",
            config,
            shipped_names("suites"),
            f"the files in {shipped_folder('configs') / 'suites'}",
        )
    return suite.model_dump(exclude_unset=True)
