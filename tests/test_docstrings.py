"""Docstrings begin as readers expect, and every public method has one, its own or its base's."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import lampe
import lampe_eval

ROOT = Path(__file__).parents[1]
SOURCES: list[Path] = []
for folder in ("lampe", "lampe_eval", "lampe_vllm", "tools", "benchmarks", "tests"):
    SOURCES += sorted((ROOT / folder).rglob("*.py"))
NO_VERB = set(
    "a all an as by each every for from how in its no of one so that the these this those two what "
    "when where whether which who why".split()
)
"""First words with which no sentence begins that says what a function does."""


PROPERTIES = {"property", "cached_property", "computed_field"}
"""Decorators of methods that read like attributes; they begin with a verb all the same."""


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the docstring of every function and class of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text:
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", text


def test_docstrings_begin_with_a_verb_or_a_definition() -> None:
    wrong = []
    for path in SOURCES:
        for place, text in docstrings(path):
            if text.split()[0].lower() in NO_VERB:
                wrong.append(f"{place}: {text.splitlines()[0]}")
    assert not wrong


def property_docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the docstring of every property of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            names = {name.id for name in node.decorator_list if isinstance(name, ast.Name)}
            text = ast.get_docstring(node)
            if text and names & PROPERTIES:
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", text


def test_docstrings_of_properties_begin_with_a_verb() -> None:
    wrong = []
    for path in SOURCES:
        for place, text in property_docstrings(path):
            if text.split()[0] not in ("Return", "Read"):
                wrong.append(f"{place}: {text.splitlines()[0]}")
    assert not wrong


def modules() -> Iterator[str]:
    """Yield the names of all modules that import without optional packages."""
    optional = {
        "lampe.attention.triton_kernels",
        "lampe_eval.__main__",
        "lampe_eval.engine.vllm_engine",
        "lampe_eval.integrations.inspect_model",
        "lampe_eval.integrations.inspect_provider",
        "lampe_eval.integrations.lm_eval_model",
        "lampe_eval.lm_eval_tasks.requests",
    }
    for package in (lampe, lampe_eval):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name not in optional:
                yield module.name


@pytest.mark.parametrize("name", list(modules()))
def test_public_methods_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    undocumented = []
    for class_name, kind in inspect.getmembers(module, inspect.isclass):
        if kind.__module__ != name or class_name.startswith("_"):
            continue
        for attribute, value in vars(kind).items():
            is_method = inspect.isfunction(value) or isinstance(value, property | classmethod)
            if not is_method or attribute.startswith("_"):
                continue
            if not inspect.getdoc(getattr(kind, attribute)):
                undocumented.append(f"{class_name}.{attribute}")
    assert not undocumented
