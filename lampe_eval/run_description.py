"""Description of a run, run.yaml: read, checked against its declared types, or refused."""

import json
import os
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lampe_eval import records
from lampe_eval.cards import plain_message
from lampe_eval.errors import UserError, first_names
from lampe_eval.records import RunRecord
from lampe_eval.yaml_files import read_yaml


def read_description(folder: Path) -> RunRecord:
    """Read run.yaml.

    Raises:
        UserError: if there is none, or it is damaged, of another schema or of other types.
    """
    path = folder / "run.yaml"
    if not os.path.lexists(path):
        raise _no_run(folder)
    try:
        description = read_yaml(path).value
    except UserError as error:
        raise UserError(f"{error}; restore it, or run again with another --output") from None
    if not isinstance(description, dict) or "config" not in description:
        raise _no_run(folder)
    _refuse_other_schema(path, description)
    try:
        # As JSON, in which a text is a date; YAML's core schema has no dates either.
        checked: RunRecord = records.RUN.validate_json(json.dumps(description, allow_nan=False))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            raise UserError(
                f"{path}: key {key!r} is unknown to this version of lampe-eval; take the version "
                "that wrote it, or run again with another --output"
            ) from None
        raise UserError(
            f"{path}: damaged (key {key!r} {plain_message(fault)}); "
            "restore it, or run again with another --output"
        ) from None
    except ValueError:  # of json
        raise UserError(
            f"{path}: damaged (a number that is not finite); "
            "restore it, or run again with another --output"
        ) from None
    return checked


def _refuse_other_schema(path: Path, description: Mapping[str, Any]) -> None:
    """Refuse a run of another schema: the meaning of its keys may differ without a trace."""
    schema = description.get("schema")
    if schema == records.SCHEMA:
        return
    raise UserError(
        f"{path}: written in {'no schema' if schema is None else f'schema {schema}'} by lampe-eval "
        f"{_version_that_wrote(description)}; this version reads schema {records.SCHEMA}; "
        "run again with another --output, or take the version that wrote it"
    )


def _version_that_wrote(description: Mapping[str, Any]) -> str:
    """Return the version of the first session; schemas below 3 could hold a single environment."""
    environments = description.get("environments")
    first = environments[0] if isinstance(environments, list) and environments else None
    environment = first or description.get("environment")
    if isinstance(environment, dict):
        return str(environment.get("lampe-eval", "of unknown version"))
    return "of unknown version"


def is_calibration(folder: Path) -> bool:
    """Return whether the runs in a folder are the steps of a calibration."""
    return any(folder.glob("*-calibrated.yaml"))


def _no_run(folder: Path) -> UserError:
    """Return why a folder is not a run's; it lists the runs in one such as a calibration's."""
    if not os.path.isdir(folder):
        # Unlike those of Path, these functions take names that are too long for a file.
        problem = "a file" if os.path.exists(folder) else "no such folder"
        return UserError(f"{folder}: {problem}; give a run's folder")
    runs = sorted(path.parent.name for path in folder.glob("*/run.yaml"))
    if runs and not (folder / "run.yaml").exists():
        kind = "a calibration" if is_calibration(folder) else "a folder of runs"
        return UserError(
            f"{folder}: {kind}, not a run; give one of those in it: {first_names(runs)}"
        )
    problem = "not the description of a run" if (folder / "run.yaml").exists() else "no such file"
    return UserError(f"{folder / 'run.yaml'}: {problem}; give a run's folder")


def run_date(folder: Path, default: date | None = None) -> date:
    """Return the date that chat templates write into the prompts of a folder's run.

    It is that of the run's first session: a prompt that changed at midnight would be another one.

    Args:
        folder: the run's folder, which need not exist yet.
        default: date of a run that has begun nothing; today where it is None.

    Raises:
        UserError: if run.yaml is damaged.
    """
    today = default or datetime.now().astimezone().date()
    if not (folder / "run.yaml").exists():
        return today
    return read_description(folder).get("date", today)


def calibration_date(folder: Path) -> date:
    """Return the date of a calibration: that of the first of its runs, or today before it.

    Raises:
        UserError: if the description of one of them is damaged.
    """
    runs = [path.parent for path in folder.glob("*/run.yaml")]
    return min((run_date(run) for run in runs), default=run_date(folder))
