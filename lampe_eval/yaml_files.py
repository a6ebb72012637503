"""YAML files: the core schema of YAML 1.2, with bounds on size, depth and numbers.

Words such as yes and no, dates and 4:16 are texts. Tags, duplicate keys and recursive aliases are
refused. The parser is PyYAML's; its resolver and constructors, which follow YAML 1.1 and build
objects of Python, are not used.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, cast

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from lampe_eval.errors import UserError
from lampe_eval.file_io import file_problem

MAX_BYTES = 4 << 20
MAX_NODES = 100_000
"""Values and keys of a file, those of an alias counted anew; reading so many takes seconds."""
MAX_DEPTH = 50
MAX_INTEGER = 2**63 - 1
MAX_SHOWN = 60
"""Characters of a value that a message shows."""

TAG = "tag:yaml.org,2002:"
MERGE = f"{TAG}merge"
CORE_SCHEMA = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    # Not of the core schema, but the only way to share keys between the tasks of a file.
    "merge": r"<<",
}
"""Patterns of unquoted values by type (YAML 1.2.2, section 10.3.2); any other value is a text."""


@dataclass(frozen=True)
class YamlDocument:
    """Content of a YAML file.

    Attributes:
        node: the parser's nodes, which know their lines.
        value: the same as plain Python values.
    """

    node: yaml.Node
    value: Any


class RefusedYaml(yaml.MarkedYAMLError):
    """Error for YAML that this package does not read, though it may be valid."""


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """Parser of one document into nodes, with bounds on their number and depth."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.depth = 0
        self.nodes = 0
        self.nodes_of_anchor: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """Compose a node, and count those that it stands for."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        before = self.nodes
        if isinstance(event, yaml.AliasEvent):
            # An anchor whose node is not complete yet stands around its own alias.
            if event.anchor in self.anchors and event.anchor not in self.nodes_of_anchor:
                raise _fault(event, f"alias {event.anchor!r} stands inside of its own value")
            self.nodes += self.nodes_of_anchor.get(event.anchor or "", 0)
        elif event.tag is not None:
            tag = event.tag.replace(TAG, "!!")
            raise _fault(event, f"tag {tag!r} is not supported; write a plain value")
        self.nodes += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _fault(event, f"more than {MAX_DEPTH} levels of nesting")
        if self.nodes > MAX_NODES:
            raise _fault(event, f"more than {MAX_NODES} values")
        node = super().compose_node(parent, index)
        assert node is not None
        self.depth -= 1
        if not isinstance(event, yaml.AliasEvent) and event.anchor is not None:
            self.nodes_of_anchor[event.anchor] = self.nodes - before
        return node


class _Dumper(yaml.SafeDumper):
    """Writer that quotes texts which either version of YAML would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value that stands twice a second time."""
        return True


for _type, _pattern in CORE_SCHEMA.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(TAG + _type, re.compile(f"(?:{_pattern})$"), None)


def read_yaml(path: Path) -> YamlDocument:
    """Return the content of a YAML file.

    Raises:
        UserError: if it cannot be read, or is no YAML that this package reads; the message names
            file and line.
    """
    problem = file_problem(path)
    if not problem and path.stat().st_size > MAX_BYTES:
        problem = f"more than {MAX_BYTES >> 20} MiB"
    if problem:
        raise UserError(f"{path}: cannot be read ({problem})")
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: cannot be read (not UTF-8)") from None
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # Only the error for a character that YAML does not allow has a position instead.
        before = getattr(error, "position", 0)
        line = mark.line + 1 if mark else text.count("\n", 0, before) + 1
        raise UserError(f"{path}:{line}: {yaml_problem(error)}") from None


def parse_yaml(text: str) -> YamlDocument:
    """Return the content of a text in YAML.

    Raises:
        yaml.YAMLError: for any other text.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
    except (
        ValueError,
        OverflowError,
    ) as error:  # PyYAML lets those of chr and int pass, as for "\\UFFFFFFFF"
        problem = str(error).partition(":")[0]
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=loader.get_mark()) from None
    if node is None:  # an empty file
        mark = loader.get_mark()
        node = yaml.ScalarNode(f"{TAG}null", "", mark, mark)
    return YamlDocument(node, _value(node))


def yaml_problem(error: yaml.YAMLError) -> str:
    """Return in one line what is wrong with a text that is not YAML."""
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return problem if isinstance(error, RefusedYaml) else f"not valid YAML: {problem}"


def write_yaml(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return plain values as YAML that `read_yaml` reads back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _fault(place: yaml.Node | yaml.Event, problem: str) -> RefusedYaml:
    return RefusedYaml(problem=problem, problem_mark=cast("yaml.Mark", place.start_mark))


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node)
    try:
        return SCALARS[node.tag](node.value)
    except ValueError as error:
        raise _fault(node, str(error)) from None


def _mapping(node: yaml.MappingNode) -> dict[Any, Any]:
    """Return the keys and values of a mapping; its own keys override merged ones."""
    merged: dict[Any, Any] = {}
    own: dict[Any, Any] = {}
    written: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _fault(key, "not valid YAML: a key must be a single value")
        name = _value(key)
        if key.value in written or name in own:
            raise _fault(key, f"key {key.value!r} stands here a second time")
        written.add(key.value)
        if key.tag == MERGE:
            merged = _merged(value)
        else:
            own[name] = _value(value)
    return {**merged, **own}


def _merged(node: yaml.Node) -> dict[Any, Any]:
    """Return the keys that ``<<`` adds, of one mapping or of several, of which the first wins."""
    merged: dict[Any, Any] = {}
    for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if not isinstance(item, yaml.MappingNode):
            raise _fault(item, "<< merges mappings of keys to values only")
        merged = {**_mapping(item), **merged}
    return merged


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    # Checked first, because Python refuses to convert thousands of digits.
    number = int(text, base) if len(text) <= 30 else None
    if number is None or abs(number) > MAX_INTEGER:
        raise ValueError(f"{shortened(text)} is a number of more than 64 bits")
    return number


def _float(text: str) -> float:
    if text[-3:].lower() in ("inf", "nan"):
        return float(text.replace(".", ""))
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{shortened(text)} is too large a number")
    return number


def _text(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("half of a surrogate pair is no character")
    return text


def shortened(text: str) -> str:
    """Return a text, or its beginning where it is too long for a message."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


SCALARS: Mapping[str, Callable[[str], Any]] = {
    f"{TAG}null": lambda text: None,
    f"{TAG}bool": lambda text: text.lower() == "true",
    f"{TAG}int": _integer,
    f"{TAG}float": _float,
    f"{TAG}str": _text,
    MERGE: _text,
}
"""Functions that return the values of scalars, by the tag that the resolver gave."""
