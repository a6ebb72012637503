"""Validation of options and names before torch is imported, which takes seconds."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lampe_eval.calibration.calibration_config import CalibrationConfig, check_calibration
from lampe_eval.cards import (
    ModelCard,
    read_card,
    shipped_card,
    shipped_folder,
    shipped_names,
)
from lampe_eval.checkpoint_files import find_model
from lampe_eval.errors import UserError, unknown_name
from lampe_eval.file_io import check_writable, file_problem
from lampe_eval.folder_lock import refuse_unwritable
from lampe_eval.method_specs import MethodSpec, find_reference, method_names
from lampe_eval.plugins import load_plugins
from lampe_eval.running.available import leave_out_missing
from lampe_eval.running.extension import refuse_changes
from lampe_eval.running.resolve import ResolvedSuite, resolve_methods, resolve_suite
from lampe_eval.speed.speed_config import ResolvedSpeed, SpeedConfig
from lampe_eval.store import Store
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
    if resolved.suite.available:
        resolved = leave_out_missing(resolved)
    output = resolved.suite.output
    if output and os.path.exists(output) and not output.is_dir():
        raise UserError(f"--output: {output} is {file_problem(output) or 'a file'}; name a folder")
    refuse_changes(resolved)
    _refuse_reference(resolved)
    if output:
        refuse_unwritable(output)
    return resolved


def _refuse_reference(resolved: ResolvedSuite) -> None:
    """Refuse a reference that is neither a method of the suite nor of the run that it extends."""
    suite = resolved.suite
    if suite.reference is None:
        return
    store = Store.with_samples(suite.output) if suite.output else None
    stored = store.config["methods"] if store else {}
    find_reference(suite.reference, {**stored, **{spec.label: None for spec in resolved.specs}})


def validate_calibration(options: Mapping[str, Any]) -> tuple[CalibrationConfig, ResolvedSuite]:
    """Check the options of ``lampe-eval calibrate`` and look up their names.

    Raises:
        UserError: for an option or a name that is wrong, and for what cannot be calibrated.
    """
    config = CalibrationConfig.from_options(options)
    resolved = resolve_suite(config)
    check_calibration(config, resolved)
    if config.output:
        refuse_unwritable(config.output)
    return config, resolved


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
    return ResolvedSpeed(config, specs, None if config.shape else find_model(config.checkpoint))


def validate_plans(
    methods: Sequence[str], model: str | None, png: Path | None, plugins: Iterable[Path]
) -> tuple[list[MethodSpec], tuple[ModelCard, str] | None]:
    """Look up the methods of ``lampe-eval show plan``, and the model's card and name, if any.

    Raises:
        UserError: for a plug-in that cannot be loaded, a name that does not exist, no method, or a
            picture of several methods or that cannot be written.
    """
    load_plugins(plugins)
    specs = resolve_methods(methods)
    if not specs:
        raise UserError("--method: no method given; see: lampe-eval list methods")
    if png and len(specs) > 1:
        raise UserError(f"--png: {png} holds the picture of one method; give one --method")
    if png:
        if not os.path.isdir(png.parent):
            raise UserError(f"--png: cannot write {png}: there is no folder {png.parent}")
        check_writable(png)
    return specs, None if model is None else find_model(model)


def validate_suggestion(
    model: str, methods: Sequence[str], plugins: Iterable[Path]
) -> tuple[ModelCard, str, list[MethodSpec]]:
    """Look up the names of ``lampe-eval suggest``.

    Returns:
        The model's card and its name in tables, and the methods; all where none is given.

    Raises:
        UserError: for a plug-in that cannot be loaded, or a name that does not exist.
    """
    load_plugins(plugins)
    specs = resolve_methods(methods or method_names())
    return *find_model(model), specs


def validate_export(
    name: str,
    to: str | None,
    method: str | None,
    output: Path | None,
    of_checkpoint: Mapping[str, Any],
    plugins: Iterable[Path],
) -> tuple[tuple[ModelCard, str], MethodSpec] | None:
    """Look up the names of ``lampe-eval export``, and tell results from a checkpoint.

    Args:
        name: folder of a run, or a model.
        to: format of results.
        method: method of a checkpoint.
        output: folder to write to.
        of_checkpoint: values by option that only checkpoints have.
        plugins: files that define more methods.

    Returns:
        Card and name of the model, and the method; None for results.

    Raises:
        UserError: for options of both or of neither, a name that does not exist, and several
            methods.
    """
    load_plugins(plugins)
    if (to is None) == (method is None):
        given = "both are" if to else "neither is"
        raise UserError(
            f"export: give --to FORMAT for the results of a run, or --method METHOD for a "
            f"checkpoint of a model; {given} given"
        )
    if method is None:
        wrong = [option for option, value in of_checkpoint.items() if value is not None]
        if wrong:
            raise UserError(f"{wrong[0]}: goes with --method, for a checkpoint, not with --to")
        return None
    specs = resolve_methods([method])
    if len(specs) != 1:
        raise UserError(f"--method: {method!r} is not one method; a checkpoint has one")
    if output is None:
        raise UserError("--output: is missing; name the folder of the checkpoint")
    return find_model(name), specs[0]


def validate_served(model: str, method: str) -> tuple[ModelCard, str, MethodSpec]:
    """Look up the names of ``lampe-eval serve``.

    Returns:
        The model's card and its name, and the method.

    Raises:
        UserError: for a name that does not exist, or several methods.
    """
    specs = resolve_methods([method])
    if len(specs) != 1:
        raise UserError(f"--method: {method!r} names {len(specs)} methods; a server has one")
    return *find_model(model), specs[0]


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
