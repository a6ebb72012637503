"""Validation of options and names before torch is imported, which takes seconds."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lampe_eval.benches import BENCHES, find_tasks
from lampe_eval.cards import find_model_card, read_card, shipped_card, shipped_folder, shipped_names
from lampe_eval.errors import UserError, unknown_name
from lampe_eval.plugins import load_plugins
from lampe_eval.running.resolve import ResolvedSuite, resolve_methods, resolve_suite
from lampe_eval.speed.speed_config import SpeedConfig
from lampe_eval.suite import Suite


def validate_suite(config: str | None, options: Mapping[str, Any]) -> ResolvedSuite:
    """Look up the names of a suite.

    Args:
        config: a suite's file or the name of a shipped suite, whose values the options override.
        options: options of the command line by name; those that are None keep their defaults.

    Raises:
        UserError: for a file, an option or a name that is wrong.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if config:
        given = {**_read_suite(config), **given}
    return resolve_suite(Suite.from_options(given))


def validate_speed(options: Mapping[str, Any]) -> SpeedConfig:
    """Check the options of ``lampe-eval speed`` and look up their names.

    Raises:
        UserError: for an option or a name that is wrong.
    """
    config = SpeedConfig.from_options(options)
    models = [] if config.shape else [config.checkpoint]
    look_up_names(models, config.method, plugins=config.plugin)
    return config


def look_up_names(
    models: Iterable[str] = (),
    methods: Iterable[str] = (),
    benches: Iterable[str] = (),
    protocol: str = "fair",
    plugins: Iterable[Path] = (),
) -> None:
    """Load plug-ins, then check that models, methods, benchmarks and protocols exist.

    For commands that have no suite.

    Raises:
        UserError: for the first name that does not exist.
    """
    load_plugins(plugins)
    resolve_methods(methods)
    for task in find_tasks(tuple(benches)):
        BENCHES[task.bench].protocol(protocol)
    for model in models:
        find_model_card(model)


def _read_suite(config: str) -> dict[str, Any]:
    """Return the keys that a suite's file sets."""
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
    # Without defaults, which would look like options that the file sets.
    return suite.model_dump(exclude_unset=True)
