"""Imports run one way: a module imports from modules below its own, and from its own folder."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LIBRARY = (
    "__init__ checkpoints patching caches methods attention encoding attention_factor "
    "mapping_length positions geometry rope backend_names errors"
).split()
HARNESS = (
    "__main__ cli commands integrations calibration speed running report export comparison engine "
    "results conversion "
    "models checkpoint_config checkpoint_files plugins device_memory pocket benches lm_eval_tasks "
    "ruler texts "
    "assets store folder_lock run_description method_specs suite prompts user_cache scoring cards "
    "gguf_files yaml_files terminal file_io json_arrays records errors __init__"
).split()
SERVING = (
    "worker_extension plugin cpu_backend gpu salted_scheduler engine_state layer_checks rotary "
    "gpu_selection paged_decode batch_tokens prompt_encodings rotary_tables server_command "
    "model_checks served_method __init__"
).split()
"""Modules and folders of each package, from the top down."""


def imported_names(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, also inside of functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def upward_imports(package: str, order: list[str]) -> list[str]:
    """Return the imports of a package that do not lead down."""
    wrong: list[str] = []
    for path in sorted((ROOT / package).rglob("*.py")):
        own = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        for name in imported_names(path):
            top, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if top != package or target == own or target not in order:
                continue
            if order.index(target) < order.index(own):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    return wrong


def test_every_module_has_a_place() -> None:
    for package, order in (
        ("lampe", LIBRARY),
        ("lampe_eval", HARNESS),
        ("lampe_vllm", SERVING),
    ):
        modules = {path.stem for path in (ROOT / package).glob("*.py")}
        folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert modules | folders == set(order)


def test_imports_lead_down() -> None:
    assert upward_imports("lampe", LIBRARY) == []
    assert upward_imports("lampe_eval", HARNESS) == []
    assert upward_imports("lampe_vllm", SERVING) == []


@pytest.mark.parametrize(
    ("package", "above"), [("lampe", ("lampe_eval", "lampe_vllm")), ("lampe_vllm", ("lampe_eval",))]
)
def test_packages_know_nothing_of_those_above(package: str, above: tuple[str, ...]) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert not [name for name in imported_names(path) if name.startswith(above)], path
