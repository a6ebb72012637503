"""Plug-ins: methods and benchmarks in a Python file of the user's own, ``--plugin FILE.py``.

Every subclass of ``lampe.Method`` and of ``lampe_eval.benches.bench.Bench`` that the file defines
and that has a ``name`` is registered under that name. YAML files lie beside the file and are named
after what they describe::

    my_plugin.py
    <method>.yaml             card of a method (may be missing): method, about, paper, settings
    <bench>/tasks.yaml        tasks of a bench
    <bench>/protocols.yaml    protocols of a bench, unless it has ``protocols_of`` a shipped one

Packages that add methods or benches by entry points (``lampe.methods``, ``lampe_eval.benches``) lay
out their files in the same way.

Scores depend on this code, so a run's configuration stores the sha256 of these files together: a
changed plug-in is another configuration. A plug-in is one Python file; what else a bench reads it
names in ``Bench.user_files``, which the configuration covers too. For a package with entry points
the configuration stores its name and version.
"""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from types import ModuleType

from lampe_eval.errors import UserError, report_warning
from lampe_eval.file_io import file_problem, sha256_of_files
from lampe_eval.records import RunConfiguration


@dataclass(frozen=True)
class Plugin:
    """Plug-in that is loaded.

    Attributes:
        path: of the Python file, resolved.
        module: what the file defines.
        sha256: of the file and its YAML files, in hexadecimal.
    """

    path: Path
    module: ModuleType
    sha256: str


_loaded: dict[str, Plugin] = {}
"""Plug-ins of this process by file name."""


def load_plugins(paths: Iterable[Path]) -> dict[str, str]:
    """Load plug-ins, each once in a process, and register what they define.

    Args:
        paths: Python files.

    Returns:
        What a run's configuration stores: ``sha256:...`` by file name.

    Raises:
        UserError: for a file that is missing, fails, defines nothing, or uses a name that exists.
    """
    plugins = [_load(path) for path in paths]
    return {plugin.path.name: f"sha256:{plugin.sha256}" for plugin in plugins}


def loaded_modules() -> list[ModuleType]:
    """Return the modules of all plug-ins, which other processes cannot import by name."""
    return [plugin.module for plugin in _loaded.values()]


def package_versions(group: str, names: Collection[str]) -> dict[str, str]:
    """Return the version of each package whose entry points define any of these names.

    Args:
        group: group of the entry points.
        names: methods or benches from outside of this package.

    Returns:
        What a run's configuration stores: version by the package's name.
    """
    versions: dict[str, str] = {}
    for point in entry_points(group=group):
        if point.name in names and point.dist:
            versions[point.dist.name] = point.dist.version
    return versions


def warn_of_changed_plugins(config: RunConfiguration, run: Path) -> None:
    """Warn where a run was made with another version of a plug-in or package than there is now.

    Args:
        config: configuration of the run.
        run: folder of the run.
    """
    for name, recorded in config.get("plugins", {}).items():
        if _current_version(name, recorded) != recorded:
            report_warning(
                f"{run}: made with another version of the plug-in {name}; its scores may differ"
            )


def _current_version(name: str, recorded: str) -> str:
    """Return the version of a plug-in or package now; the recorded one where it is not here."""
    if name in _loaded:
        return f"sha256:{_loaded[name].sha256}"
    if recorded.startswith("sha256:"):
        return recorded
    try:
        return version(name)
    except PackageNotFoundError:
        return recorded


def _load(given: Path) -> Plugin:
    path = given.resolve()
    # Configurations know plug-ins by the names of their files, so no two may share one.
    if path.name in _loaded:
        plugin = _loaded[path.name]
        if plugin.path != path:
            raise UserError(
                f"--plugin {given}: a plug-in of this file name is loaded from {plugin.path}; "
                "rename one of them"
            )
        return plugin
    problem = file_problem(path)
    if problem or path.suffix != ".py":
        problem = problem or "not a Python file (.py)"
        raise UserError(f"--plugin {given}: {problem}")
    module = _execute(given, path)
    yaml_files = _register(given, module)
    _loaded[path.name] = Plugin(path, module, sha256_of_files([path, *yaml_files]))
    return _loaded[path.name]


def _execute(given: Path, path: Path) -> ModuleType:
    """Run a plug-in's file as a module; whatever it raises becomes one line with its place."""
    # With a prefix, so that a plug-in called json.py does not replace the module json.
    spec = importlib.util.spec_from_file_location(f"lampe_plugin_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pydantic find the annotations of a class by the name of its module.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        place = f"{given}:{_line_of(error, path)}"
        raise UserError(
            f"--plugin {given}: cannot be loaded: {type(error).__name__}: {error} ({place})"
        ) from error
    return module


def _line_of(error: Exception, path: Path) -> int:
    """Return the last line of the plug-in's file that an error passed through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 1
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return (lines or [1])[-1] or 1


def _register(given: Path, module: ModuleType) -> list[Path]:
    """Register what a plug-in defines and return its YAML files.

    Raises:
        UserError: where it defines nothing, or a name that exists already.
    """
    import lampe
    from lampe_eval.benches import register_bench
    from lampe_eval.benches.bench import Bench
    from lampe_eval.method_specs import register_method_card

    classes = [kind for kind in vars(module).values() if inspect.isclass(kind)]
    # Without the classes that the file only imports, such as the one it derives from.
    defined = [kind for kind in classes if kind.__module__ == module.__name__]
    named = [kind for kind in defined if getattr(kind, "name", "") and not inspect.isabstract(kind)]
    methods = [kind for kind in named if issubclass(kind, lampe.Method)]
    benches = [kind for kind in named if issubclass(kind, Bench)]
    if not methods and not benches:
        raise UserError(
            f"--plugin {given}: defines neither a method nor a bench; "
            "write a subclass of lampe.Method or of lampe_eval.benches.bench.Bench with a name"
        )
    folder = given.resolve().parent
    files = [folder / f"{method.name}.yaml" for method in methods]
    try:
        for method in methods:
            lampe.register_method(method)
            register_method_card(method)
        for bench in benches:
            register_bench(bench)
            files += sorted((folder / bench.name).glob("*.yaml"))
    except (UserError, lampe.LampeError) as error:
        raise UserError(f"--plugin {given}: {error}") from None
    return [file for file in files if file.is_file()]
