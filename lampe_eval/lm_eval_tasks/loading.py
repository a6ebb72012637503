"""Finding and loading tasks of lm-evaluation-harness by name, or by a user's YAML file."""

import functools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lampe.errors import first_line
from lampe_eval.errors import UserError, unknown_name
from lampe_eval.file_io import file_problem
from lampe_eval.lm_eval_tasks.package import lm_eval_module

UNREACHABLE_ERRORS = {"ConnectionError", "ConnectError", "OfflineModeIsEnabled"}
"""Errors of the hub's libraries that mean that it cannot be reached."""
PYTHON_SEED, NUMPY_SEED = 0, 1234
"""Seeds of the harness, unless its user states others."""
YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class TaskFile:
    """Task of lm-evaluation-harness whose data are not read yet.

    Attributes:
        name: name of the task.
        path: its YAML file.
        generates_data: whether it makes its data for a length and a tokenizer, as RULER does.
        is_users: whether it is a file of the user's own.
    """

    name: str
    path: Path
    generates_data: bool
    is_users: bool = False


def find_task_files(name: str) -> Iterator[TaskFile]:
    """Yield the tasks that a name means.

    Args:
        name: a task, a group or a tag of lm-evaluation-harness, or a YAML file of a task.

    Raises:
        UserError: for a name that means none, or a group that sets up its tasks itself.
    """
    if name.endswith(YAML_SUFFIXES):
        yield _user_file(name)
        return
    known = _harness_index()
    if name not in known:
        see = "lampe-eval lm-eval ls tasks; a task of your own is named by its YAML file"
        raise unknown_name("task of lm-eval", name, known, see)
    yield from _members(name, known)


# Of a large benchmark all tasks: each is loaded when its name is looked up, and drawn from later.
@functools.lru_cache(maxsize=256)
def load_task(path: Path, made_for: tuple[int, str] | None) -> Any:
    """Return a task of lm-evaluation-harness with its data.

    Args:
        path: its YAML file.
        made_for: length in tokens and tokenizer of a task that generates its data.

    Raises:
        UserError: if its data cannot be loaded.
    """
    # Here, because it takes seconds to import.
    from datasets.utils import disable_progress_bars  # type: ignore[import-untyped]

    metadata: dict[str, Any] = {}
    if made_for:
        length, tokenizer = made_for
        metadata = {"max_seq_lengths": [length], "tokenizer": tokenizer}
    # Without the index of all tasks, which takes seconds to build.
    tasks = lm_eval_module("lm_eval.tasks")
    manager = tasks.TaskManager(include_defaults=False, metadata=metadata)
    # Those of the harness's defaults, for tasks that draw or shuffle their data.
    random.seed(PYTHON_SEED)
    np.random.seed(NUMPY_SEED)
    disable_progress_bars()
    try:
        (task,) = manager.load([str(path)])["tasks"].values()
    except Exception as error:
        raise _loading_error(path, error) from error
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    return task


def files_of(file: TaskFile) -> list[Path]:
    """Return the files that a user's task is made of: its YAML file, code and data on this machine.

    Raises:
        UserError: if its data cannot be loaded.
    """
    code = [file.path, *sorted(file.path.parent.glob("*.py"))]
    if file.generates_data:
        return code
    named = (load_task(file.path, None).get_config("dataset_kwargs") or {}).get("data_files") or []
    splits = list(named.values()) if isinstance(named, dict) else [named]
    data: list[Path] = []
    for split in splits:
        data += [Path(name) for name in (split if isinstance(split, list) else [split])]
    return code + [path for path in data if path.is_file()]


def _user_file(name: str) -> TaskFile:
    """Return the task of a user's YAML file."""
    path = Path(name).expanduser().resolve()
    problem = file_problem(path)
    if problem:
        raise UserError(f"--bench: lm-eval/{name}: {problem}")
    loader = lm_eval_module("lm_eval.tasks._yaml_loader")
    try:
        config = loader.load_yaml(path, resolve_func=False, recursive=True)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--bench: lm-eval/{name}: {first_line(error)}") from None
    if not isinstance(config, dict) or not isinstance(config.get("task"), str):
        raise UserError(f"--bench: lm-eval/{name}: no task of lm-evaluation-harness (no key task)")
    return TaskFile(config["task"], path, "custom_dataset" in config, is_users=True)


def _members(name: str, known: Mapping[str, Any]) -> Iterator[TaskFile]:
    """Yield the tasks of a group or a tag, or a task itself."""
    entry = known[name]
    kind = entry.kind.name
    if kind in ("TASK", "PY_TASK"):
        yield TaskFile(name, entry.yaml_path, "custom_dataset" in (entry.cfg or {}))
        return
    members = sorted(entry.tags) if kind == "TAG" else entry.cfg["task"]
    for member in members:
        if member not in known:
            raise UserError(
                f"--bench: lm-eval/{name}: a group that sets up its tasks itself; name its tasks"
            )
        yield from _members(member, known)


@functools.cache
def _harness_index() -> Mapping[str, Any]:
    """Return the tasks, groups and tags of lm-evaluation-harness by name."""
    index: Mapping[str, Any] = lm_eval_module("lm_eval.tasks").TaskManager().task_index
    return index


def _loading_error(path: Path, error: Exception) -> UserError:
    """Return one line about a task whose data cannot be loaded."""
    kinds: set[str] = set()
    current: BaseException | None = error
    while current is not None:
        kinds.update(kind.__name__ for kind in type(current).__mro__)
        current = current.__cause__ or current.__context__
    where = f"lm-eval/{path.stem}: its data cannot be loaded"
    if kinds & UNREACHABLE_ERRORS:
        return UserError(
            f"{where}: they are not in the local cache, and the hub cannot be reached; "
            "check the network, or name a YAML file with data_files of your own"
        )
    return UserError(f"{where}: {type(error).__name__}: {first_line(error)}")
