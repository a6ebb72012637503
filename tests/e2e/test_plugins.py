"""Methods and benches from outside of the package: plug-ins from files, and entry points."""

import csv
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import lampe
from lampe_eval import method_specs, plugins
from lampe_eval.benches import BENCHES
from lampe_eval.benches import load_entry_points as load_benches
from lampe_eval.cli import main
from lampe_eval.errors import UserError
from lampe_eval.plugins import load_plugins
from lampe_eval.running.configuration import run_configuration
from lampe_eval.running.prepared_run import prepare_run
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.suite import Suite
from tests.lampe_eval.stored_runs import configuration

EXAMPLES = Path(__file__).parents[2] / "examples"
METHOD = """
from dataclasses import dataclass
from typing import ClassVar
import lampe

@dataclass(frozen=True, kw_only=True)
class Other(lampe.Method):
    '''Rotates nothing.'''
    name: ClassVar[str] = "{name}"
    share: float = 0.5
"""
BENCH = """
from lampe_eval.benches.bench import Bench

class Quiz(Bench):
    name = "{name}"
    protocols_of = "niah"

    def samples(self, task, request):
        yield from ()
"""


class Finished(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Cli = Callable[..., Finished]


@pytest.fixture(autouse=True)
def registries() -> Iterator[Callable[[], None]]:
    """Restore every registry after a test; call the value to do it earlier, as a new process."""
    held = (lampe.METHODS, BENCHES, method_specs._outside_cards, plugins._loaded)
    before = [dict(registry) for registry in held]
    modules = set(sys.modules)

    def restore() -> None:
        for registry, entries in zip(held, before, strict=True):
            registry.clear()
            registry.update(entries)  # type: ignore[arg-type]
        for name in set(sys.modules) - modules:
            if name.startswith(("lampe_plugin_", "outside_")):
                del sys.modules[name]

    yield restore
    restore()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process."""

    def run(*arguments: str | Path) -> Finished:
        monkeypatch.setattr(sys, "argv", ["lampe-eval", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return Finished(int(stopped.value.code or 0), *capsys.readouterr())

    return run


def _scores(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["my_method.py", "my_bench.py"])
def test_examples_are_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 60


def test_the_example_of_a_method_runs(cli: Cli, tmp_path: Path) -> None:
    plugin, run = EXAMPLES / "my_method.py", tmp_path / "run"
    options = ("--bench", "niah/single", "--lengths", "512", "--limit", "1", "--output", run)
    finished = cli("run", "--plugin", plugin, "--method", "mine,lampe,mine:near=64", *options)
    assert finished.code == 0, finished.err
    assert {row["method"] for row in _scores(run)} == {"mine", "lampe", "mine:near=64"}
    stored = yaml.safe_load((run / "run.yaml").read_text())["config"]["plugins"]
    assert list(stored) == ["my_method.py"]
    assert stored["my_method.py"].startswith("sha256:")


def test_the_example_of_a_method_composes_and_is_checked() -> None:
    load_plugins([EXAMPLES / "my_method.py"])
    plan = lampe.method_of("mine+yarn").encode(lampe.Geometry(window=256), 1000).plan
    assert plan.coverage_fault() is None
    assert plan.largest(1000) == (999 - 32) / 2 + 32
    with pytest.raises(lampe.BadSetting, match="near=0"):
        lampe.method_of("mine", near=0).encode(lampe.Geometry(window=256), 1000)


def test_the_example_of_a_bench_runs_and_is_reported(
    cli: Cli, tmp_path: Path, registries: Callable[[], None]
) -> None:
    plugin, run = ("--plugin", EXAMPLES / "my_bench.py"), tmp_path / "run"
    options = ("--lengths", "256", "--limit", "2", "--output", run)
    finished = cli("run", *plugin, "--method", "original", "--bench", "first-words", *options)
    assert finished.code == 0, finished.err
    (row,) = _scores(run)
    assert (row["bench"], row["task"], row["n"]) == ("first-words", "exact", "2")
    for command in ("report", "score"):
        registries()
        refused = cli(command, run)
        assert refused.code == 2
        assert "first-words" in refused.err
        assert "--plugin" in refused.err
        assert cli(command, run, *plugin).code == 0
    registries()
    assert cli("leaderboard", "build", tmp_path, *plugin).code == 0


def test_a_changed_plugin_is_another_configuration(
    cli: Cli, tmp_path: Path, registries: Callable[[], None]
) -> None:
    shutil.copy(EXAMPLES / "my_bench.py", tmp_path)
    shutil.copytree(EXAMPLES / "first-words", tmp_path / "first-words")
    plugin, run = tmp_path / "my_bench.py", tmp_path / "run"
    options = ("--lengths", "256", "--limit", "1", "--method", "original", "--output", run)
    command = ("run", "--plugin", plugin, "--bench", "first-words", *options)
    assert cli(*command).code == 0
    registries()
    assert cli(*command).code == 0  # unchanged: the run goes on
    for changed in (plugin, tmp_path / "first-words" / "tasks.yaml"):
        content = changed.read_text()
        changed.write_text(f"{content}\n# changed\n")
        registries()
        refused = cli(*command)
        assert refused.code == 2
        assert "--plugin my_bench.py" in refused.err
        registries()
        reported = cli("report", "--plugin", plugin, run)
        assert reported.code == 0
        assert "plug-in my_bench.py" in reported.err
        changed.write_text(content)


def test_plugins_are_listed_suggested_and_shown(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A narrow terminal would wrap the texts that are compared.
    monkeypatch.setenv("COLUMNS", "200")
    plugin = ("--plugin", EXAMPLES / "my_method.py", "--plugin", EXAMPLES / "my_bench.py")
    for what, expected in (
        ("methods", "an eighth of the window"),
        ("benches", "first-words"),
        ("tasks", "first-words/exact"),
        ("protocols", "text and question"),
    ):
        listed = cli("list", what, *plugin)
        assert listed.code == 0
        assert expected in listed.out
    assert "mine:near=32" in cli("suggest", "--length", "1k", *plugin).out
    assert "x · 1/2" in cli("show", "plan", "--method", "mine", *plugin).out
    assert cli("show", "plan", "--method", "min", *plugin).code == 2
    options = ("--lengths", "64", "--pairs", "1", "--output", tmp_path / "speed")
    assert cli("speed", *plugin, "--method", "mine", *options).code == 0


def test_frequencies_of_zero_are_shown_and_do_not_hide_what_is_beyond_the_window(
    cli: Cli, tmp_path: Path
) -> None:
    plugin = tmp_path / "partial.py"
    rope = """
    def rope(self, geometry, length):
        rope = geometry.rope(length)
        half = len(rope.inv_freq) // 2
        return lampe.Rope((*rope.inv_freq[:half], *[0.0] * half))
"""
    plugin.write_text(METHOD.format(name="partial") + rope)
    shown = cli("show", "plan", "--method", "partial", "--plugin", plugin)
    assert shown.code == 0
    assert "BEYOND the window" in shown.out
    suggested = cli("suggest", "--length", "1k", "--plugin", plugin).out
    assert "BEYOND" in suggested.partition("\npartial\n")[2].partition("\n\n")[0]


def test_a_suite_names_plugins(tmp_path: Path) -> None:
    suite = Suite(plugin=str(EXAMPLES / "my_method.py"), method="mine", bench="ppl/exact")
    assert list(run_configuration(prepare_run(resolve_suite(suite)))["plugins"]) == ["my_method.py"]
    without = resolve_suite(Suite(method="original", bench="ppl/exact"))
    assert "plugins" not in run_configuration(prepare_run(without))


def test_a_plugin_is_loaded_once(tmp_path: Path) -> None:
    plugin = tmp_path / "counted.py"
    fails_twice = "from pathlib import Path\nPath('executed').touch(exist_ok=False)\n"
    plugin.write_text(fails_twice + METHOD.format(name="counted"))
    assert load_plugins([plugin]) == load_plugins([plugin, plugin.relative_to(Path.cwd())])


def test_a_card_beside_a_plugin_sets_hyper_parameters(tmp_path: Path) -> None:
    plugin, card = tmp_path / "own.py", tmp_path / "own.yaml"
    plugin.write_text(METHOD.format(name="own"))
    card.write_text("method: own\nabout: from its card\nsettings: {share: 0.25}\n")
    hashes = load_plugins([plugin])
    (spec,) = method_specs.parse_methods(["own"])
    assert spec.card.about == "from its card"
    assert spec.build({}).settings["share"] == 0.25
    assert hashes == load_plugins([plugin])
    assert "own" in method_specs.method_names()


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("missing.py", None, "no such file"),
        ("notes.txt", "", "not a Python file"),
        ("broken.py", "x = 1\nx / 0\n", "ZeroDivisionError: division by zero (broken.py:2)"),
        ("torn.py", "def f(:\n", "SyntaxError"),
        ("absent.py", "\nimport no_such_module\n", "no_such_module"),
        ("empty.py", "import lampe\nx = lampe.Method\n", "neither a method nor a bench"),
        ("taken.py", METHOD.format(name="lampe"), "'lampe'"),
        ("signs.py", METHOD.format(name="a+b"), "'a+b'"),
        ("taken_bench.py", BENCH.format(name="niah"), "'niah'"),
        ("bare.py", BENCH.format(name="quiz"), "tasks.yaml"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_one_clear_line(
    cli: Cli, tmp_path: Path, name: str, source: str | None, message: str
) -> None:
    if source is not None:
        (tmp_path / name).write_text(source)
    refused = cli("list", "methods", "--plugin", name)
    (line,) = refused.err.splitlines()
    assert refused.code == 2
    assert name in line
    assert message in line


def test_two_plugins_of_one_file_name_or_method_are_refused(tmp_path: Path) -> None:
    for folder, name in (("a", "first"), ("b", "second"), ("c", "first")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ("x.py" if folder != "c" else "y.py")).write_text(
            METHOD.format(name=name)
        )
    load_plugins([tmp_path / "a" / "x.py"])
    with pytest.raises(UserError, match=r"x\.py.*rename"):
        load_plugins([tmp_path / "b" / "x.py"])
    with pytest.raises(UserError, match="'first'"):
        load_plugins([tmp_path / "c" / "y.py"])


def test_a_card_for_another_method_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(METHOD.format(name="odd"))
    (tmp_path / "odd.yaml").write_text("method: lampe\n")
    with pytest.raises(UserError, match=r"odd\.yaml.*'lampe'"):
        load_plugins([tmp_path / "odd.py"])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a package with the entry points ``outside`` and ``quiz``."""
    folder = tmp_path / "site"
    (folder / "outside-1.0.dist-info").mkdir(parents=True)
    (folder / "outside-1.0.dist-info" / "METADATA").write_text("Name: outside\nVersion: 1.0\n")
    (folder / "outside-1.0.dist-info" / "entry_points.txt").write_text(
        "[lampe.methods]\noutside = outside_methods:Other\n"
        "[lampe_eval.benches]\nquiz = outside_benches:Quiz\n"
    )
    (folder / "outside_methods.py").write_text(METHOD.format(name="outside"))
    (folder / "outside_benches.py").write_text(BENCH.format(name="quiz"))
    (folder / "quiz").mkdir()
    (folder / "quiz" / "tasks.yaml").write_text("easy: {metric: score, samples: 1}\n")
    monkeypatch.syspath_prepend(folder)
    return folder


def test_entry_points_are_loaded_when_they_are_named(cli: Cli, package: Path) -> None:
    assert "outside" not in lampe.METHODS
    assert "outside_methods" not in sys.modules
    assert lampe.method_of("outside", share=0.1).name == "outside"
    assert "Rotates nothing" in cli("list", "methods").out
    assert "quiz/easy" in cli("list", "tasks").out
    assert cli("run", "--method", "outsid", "--bench", "quiz").code == 2
    assert resolve_suite(Suite(method="outside", bench="quiz")).tasks[0].full_name == "quiz/easy"


@pytest.mark.parametrize(
    ("method", "bench", "packages"),
    [
        ("outside", "niah/single", {"outside": "1.0"}),
        ("lampe", "quiz", {"outside": "1.0"}),
        ("lampe", "niah/single", {}),
    ],
)
def test_the_version_of_a_package_is_part_of_the_configuration(
    package: Path, method: str, bench: str, packages: dict[str, str]
) -> None:
    resolved = resolve_suite(Suite(method=method, bench=bench))
    assert resolved.plugins == packages


def test_a_run_of_another_version_of_a_package_is_reported(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for recorded, warns in (("1.0", False), ("0.9", True)):
        config = configuration(plugins={"outside": recorded, "absent": "1.0"})
        plugins.warn_of_changed_plugins(config, Path("run"))
        assert ("plug-in outside" in capsys.readouterr().err) == warns


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("outside_methods.py", "import no_such_module\n", "no_such_module"),
        ("outside_methods.py", "Other = 3\n", "no subclass"),
        ("outside_methods.py", METHOD.format(name="inside"), "'inside'"),
        ("outside_benches.py", "raise ValueError('broken')\n", "ValueError: broken"),
        ("outside_benches.py", "Quiz = 3\n", "no subclass"),
        ("outside_benches.py", BENCH.format(name="riddle"), "'riddle'"),
    ],
)
def test_an_entry_point_that_fails_is_one_clear_line(
    cli: Cli, package: Path, file: str, source: str, message: str
) -> None:
    (package / file).write_text(source)
    refused = cli("run", "--method", "outside", "--bench", "quiz")
    (line,) = refused.err.splitlines()
    assert refused.code == 2
    assert message in line
    assert cli("show", "plan", "--method", "original").code == 0  # others are not harmed


def test_entry_points_with_a_name_that_exists_are_refused(package: Path) -> None:
    points = package / "outside-1.0.dist-info" / "entry_points.txt"
    points.write_text(
        "[lampe.methods]\nlampe = outside_methods:Other\n"
        "[lampe_eval.benches]\nniah = outside_benches:Quiz\n"
    )
    (package / "outside_methods.py").write_text(METHOD.format(name="lampe"))
    (package / "outside_benches.py").write_text(BENCH.format(name="niah"))
    with pytest.raises(lampe.BadSetting, match="'lampe'"):
        lampe.methods.load_entry_points()
    with pytest.raises(UserError, match="'niah'"):
        load_benches()
    assert lampe.METHODS["lampe"].__module__ == "lampe.methods.lampe"
