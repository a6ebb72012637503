"""Cards: YAML files that describe a model, a method, a suite or a task; errors name file, line and key."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from lampe_eval.errors import UserError, suggestion, unknown_name

PACKAGE = Path(__file__).parent
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")

PLAIN = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "literal_error": "must be {expected}",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    "string_type": "must be a text",
    "mapping_type": "must be a mapping of keys to values",
}
"""What pydantic finds wrong with a value, by its names, in plain words."""


class Card(BaseModel):
    """Base of all cards: a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = ""


class ModelCard(Card):
    """A model by name.

    Attributes:
        path: hub id or folder; "pocket" is the built-in one.
        revision: of the hub repository.
        window: tokens of pretraining.
        dtype: as torch names it.
        settings: hyper-parameters by method name, such as the LaMPE curve fitted for this model.
    """

    path: str
    revision: str = "main"
    window: int | None = None
    dtype: str = "auto"
    settings: Mapping[str, Mapping[str, Any]] = {}


class MethodCard(Card):
    """A method by name: a method of the library with hyper-parameters of its own.

    Attributes:
        method: its name in the library.
        paper: source, as an arXiv number or a repository.
        settings: hyper-parameters that this card sets.
    """

    method: str
    paper: str = ""
    settings: Mapping[str, Any] = {}


class TaskCard(Card):
    """What every task says.

    Attributes:
        version: raised when a change of the task changes its scores.
        metric: name of the number in tables.
        default: whether naming the bench alone runs this task.
        samples: how many a cell has, unless limited.
    """

    version: int = 1
    metric: str
    default: bool = True
    samples: int


C = TypeVar("C", bound=BaseModel)


def shipped_folder(kind: str) -> Path:
    """The folder "tasks" or "configs": inside an installed package, beside it in a checkout."""
    inside = PACKAGE / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def shipped_names(kind: str) -> list[str]:
    """Names of the shipped cards of a kind: "models", "methods" or "suites"."""
    return sorted(path.stem for path in (shipped_folder("configs") / kind).glob("*.yaml"))


def shipped_card(kind: str, name: str, schema: type[C]) -> C:
    """A shipped card by name.

    Raises:
        UserError: for a name that has no card; it offers the nearest.
    """
    if name not in shipped_names(kind):
        raise unknown_name(kind.rstrip("s"), name, shipped_names(kind), f"lampe-eval list {kind}")
    return read_card(shipped_folder("configs") / kind / f"{name}.yaml", schema)


def find_model_card(name: str) -> tuple[ModelCard, str]:
    """The card of a model, made up for a folder or hub id, and the model's label.

    Raises:
        UserError: for a name that is none of these.
    """
    if name in shipped_names("models"):
        return shipped_card("models", name, ModelCard), name
    folder = Path(name)
    if folder.suffix in (".yaml", ".yml"):
        return read_card(folder, ModelCard), folder.stem
    if folder.is_dir():
        return ModelCard(path=name), folder.resolve().name
    if HUB_ID.fullmatch(name) and not folder.exists():
        return ModelCard(path=name), name
    if "/" in name:
        raise UserError(
            f"--model: {name}: {'a file, not a folder' if folder.exists() else 'no such folder'}"
        )
    raise unknown_name(
        "model",
        name,
        shipped_names("models"),
        "lampe-eval list models; a folder, a card's file or a hub id like org/name will do too",
    )


def read_card(path: Path, schema: type[C]) -> C:
    """A card from a file.

    Raises:
        UserError: for a file that cannot be read, is not YAML, or does not fit; it names file, line and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror if isinstance(error, OSError) else error})"
        ) from None
    except yaml.YAMLError as error:
        mark, problem = (
            getattr(error, "problem_mark", None),
            getattr(error, "problem", None) or str(error).splitlines()[0],
        )
        raise UserError(
            f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {problem}"
        ) from None
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path}:1: must be a mapping of keys to values")
    _refuse_twice(path, node)
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"])) or "(whole file)"
        problem = f": {plain_message(fault)}"
        if fault["type"] == "extra_forbidden":
            known = list(schema.model_fields) if len(fault["loc"]) == 1 else []
            allowed = f"; allowed keys: {', '.join(known)}" if known else ""
            problem = f" is unknown{suggestion(key, known)}{allowed}"
        raise UserError(f"{path}:{_line(node, fault['loc'])}: key {key!r}{problem}") from None


def plain_message(fault: ErrorDetails) -> str:
    """What pydantic found wrong, and with which value."""
    if fault["type"] == "value_error":  # of our own validators
        return fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return "is missing"
    words = PLAIN.get(fault["type"], fault["msg"]).format_map(fault.get("ctx", {}))
    return f"{words}, got {fault['input']!r}"


def _refuse_twice(path: Path, node: yaml.Node) -> None:
    """Refuses a key that a mapping has twice, of which YAML would take the last."""
    seen: set[str] = set()
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value in seen:
            raise UserError(
                f"{path}:{key.start_mark.line + 1}: key {key.value!r} stands here a second time"
            )
        seen.add(key.value)
        _refuse_twice(path, value)


def _line(node: yaml.Node, where: tuple[int | str, ...]) -> int:
    """Line of the innermost key of a path that the file has."""
    line = node.start_mark.line + 1
    for step in where:
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            entry = next(
                (
                    pair
                    for pair in node.value
                    if step in (pair[0].value, pair[0].value.replace("-", "_"))
                ),
                None,
            )
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
    return line
