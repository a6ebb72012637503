"""Validation of options and names before torch is imported, which takes seconds."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lampe_eval.calibration.calibration_config import CalibrationConfig
from lampe_eval.cards import (
    ModelCard,
    find_model_card,
    read_card,
    shipped_card,
    shipped_folder,
    shipped_names,
)
from lampe_eval.errors import UserError, unknown_name
from lampe_eval.file_io import file_problem
from lampe_eval.method_specs import MethodSpec
from lampe_eval.plugins import load_plugins
from lampe_eval.running.extension import refuse_changes
from lampe_eval.running.resolve import ResolvedSuite, resolve_methods, resolve_suite
from lampe_eval.speed.speed_config import ResolvedSpeed, SpeedConfig
from lampe_eval.suite import Suite


def validate_suite(config: str | None, options: Mapping[str, Any]) -> ResolvedSuite:
    """Look up the names of a suite.

    Args:
        config: a suite's file or the name of a shipped suite, whose values the options override.
        options: options of the command line by name; those that are None keep their defaults.

    Raises:
        UserError: for a file, an option or a name that is wrong, and for what would change the run
            that is stored in ``--output``.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if config:
        given = {**_read_suite(config), **given}
    resolved = resolve_suite(Suite.from_options(given))
    refuse_changes(resolved)
    return resolved


def validate_calibration(options: Mapping[str, Any]) -> tuple[CalibrationConfig, ResolvedSuite]:
    """Check the options of ``lampe-eval calibrate`` and look up their names.

    Raises:
        UserError: for an option or a name that is wrong.
    """
    config = CalibrationConfig.from_options(options)
    return config, resolve_suite(config)


def validate_speed(options: Mapping[str, Any]) -> ResolvedSpeed:
    """Check the options of ``lampe-eval speed`` and look up their names.

    Raises:
        UserError: for an option or a name that is wrong.
    """
    config = SpeedConfig.from_options(options)
    load_plugins(config.plugin)
    specs = resolve_methods(config.method)
    if not specs:
        raise UserError("--method: no method given; see: lampe-eval list methods")
    return ResolvedSpeed(
        config, specs, None if config.shape else find_model_card(config.checkpoint)
    )


def validate_method(method: str, plugins: Iterable[Path]) -> MethodSpec:
    """Look up the one method of ``lampe-eval show plan``.

    Raises:
        UserError: for a plug-in that cannot be loaded, and for none or several methods.
    """
    load_plugins(plugins)
    specs = resolve_methods([method])
    if len(specs) != 1:
        raise UserError(f"--method: show plan takes one method, got {method!r}")
    return specs[0]


def validate_model(model: str, plugins: Iterable[Path]) -> tuple[ModelCard, str]:
    """Look up the model of ``lampe-eval suggest``; return its card and its name in tables.

    Raises:
        UserError: for a plug-in that cannot be loaded, or a model that does not exist.
    """
    load_plugins(plugins)
    return find_model_card(model)


def _read_suite(config: str) -> dict[str, Any]:
    """Return the keys that a suite's file sets."""
    problem = file_problem(Path(config))
    if not problem:
        suite = read_card(Path(config), Suite)
    elif config in shipped_names("suites"):
        suite = shipped_card("suites", config, Suite)
    elif Path(config).suffix in (".yaml", ".yml") or "/" in config:
        raise UserError(f"--config: {config}: {problem}; give the suite's file")
    else:
        raise unknown_name(
            "suite",
            config,
            shipped_names("suites"),
            f"the files in {shipped_folder('configs') / 'suites'}",
        )
    # Without defaults, which would look like options that the file sets.
    return suite.model_dump(exclude_unset=True)
