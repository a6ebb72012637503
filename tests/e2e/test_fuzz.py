"""Hostile files of every kind end in a result or in one line.

Thousands of damaged configurations, suites, run folders and prediction files go through the command
line. None may end in a traceback, print a control character, or write outside the folder that the
command was given. `FUZZ_CASES` gives another number of cases, of another seed each time.
"""

import contextlib
import copy
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from lampe_eval import cli
from lampe_eval.pocket import WEIGHTS
from tests.lampe_eval import stored_runs

CASES = int(os.environ.get("FUZZ_CASES", 4_000))
SECONDS_PER_CASE = 60

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 0.5, -0.0, 10**18, 10**400, float("nan"), float("inf")),
    *("", " ", "x", "0", "yes", "7", "llama", "lampe", "pocket", "niah/single", "fair", "4k"),
    *("\x1b[31mred\x1b[0m", "\x07", "\x9b2J", "\u202eabc", "\ud800", "\0", "\ufeff", "a\nb"),
    *("../../outside/secret", "/dev/zero", "/dev/null", "~", ".", "..", "n" * 300, "é" * 200),
    *([], {}, [None], [[]], {"": ""}, {"x": {"y": [1]}}, ["pocket", "pocket"], [1, "x"]),
]
"""Values that take the place of another."""

RAW_JSON = ("[" * 3000, "9" * 6000, "NaN", "1e999", '"', "{", "\x1b[2J", '{"a": 1, "a": 2}', "01")
RAW_YAML = (
    *("&a [*a]", "!!int x", "!!python/object/apply:os.getcwd []", "!!binary x", "2020-13-45"),
    *("[" * 3000, "9" * 6000, "4:16", "yes", "0o17", "1_000", "*unknown", "\tx", "{", "\x1b[2J"),
    *("!!set {a}", "!!timestamp x", "? x", "- - - x", "<<: *a", "|", "2020-01-01", "~", ".inf"),
)
"""Texts that no value is written as."""

PLACE = "@@here@@"
"""Stands in a document where a raw text belongs."""

JUNK = (
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\0",
    b"\x1b[2J",
    b"\r",
    b"}",
    b"\n",
    b"\n\n{}\n",
    b"'",
    b"[",
)
"""Bytes that are put anywhere into a file."""


class Place(NamedTuple):
    """Container in a document and the key or index of one value in it."""

    container: Any
    key: Any


def _places(value: Any) -> Iterator[Place]:
    """Yield every place in a document, containers before what they contain."""
    if isinstance(value, dict):
        keys: Any = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    else:
        return
    for key in keys:
        yield Place(value, key)
        yield from _places(value[key])


def _written(document: Any, is_yaml: bool) -> str:
    if not is_yaml:
        return json.dumps(document)
    return yaml.dump(document, allow_unicode=True, sort_keys=False)


@st.composite
def damaged_text(draw: st.DrawFn, text: str, is_yaml: bool) -> bytes:
    """Draw a document in which one or two values are exchanged, removed or no values at all."""
    document = [yaml.safe_load(text) if is_yaml else json.loads(text)]
    raw = ""
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from(list(_places(document))))
        action = draw(st.sampled_from(["exchange", "exchange", "remove", "repeat", "raw"]))
        if action == "exchange":
            place.container[place.key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        elif action == "raw":
            place.container[place.key] = PLACE
            raw = draw(st.sampled_from(RAW_YAML if is_yaml else RAW_JSON))
        elif action == "repeat" and isinstance(place.container, dict):
            place.container[draw(st.sampled_from(["x", "", "\x1b[1m"]))] = place.container[
                place.key
            ]
        elif place.container is not document:
            del place.container[place.key]
    written = _written(document[0] if document else None, is_yaml)
    written = written.replace(f'"{PLACE}"', raw).replace(PLACE, raw)
    return written.encode("utf-8", "surrogatepass")


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw a file that is cut, or has junk somewhere, or is nothing but junk."""
    where = draw(st.integers(0, len(content)))
    action = draw(st.sampled_from(["cut", "insert", "insert", "only"]))
    junk = draw(st.sampled_from(JUNK))
    if action == "cut":
        return content[:where]
    return content[:where] + junk + content[where:] if action == "insert" else junk


@st.composite
def damaged_lines(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw a JSONL file with one line damaged."""
    lines = content.splitlines(keepends=True)
    index = draw(st.integers(0, len(lines) - 1))
    lines[index] = draw(damaged_text(lines[index].decode(), is_yaml=False)) + b"\n"
    return b"".join(lines)


@st.composite
def damage(draw: st.DrawFn, path: Path) -> None:
    """Damage one file: its values, its bytes, or what kind of file it is."""
    content = path.read_bytes()
    kind = draw(
        st.sampled_from(["values"] * 8 + ["bytes"] * 3 + ["link", "folder", "loop", "gone"])
    )
    if kind == "values" and path.suffix == ".jsonl":
        path.write_bytes(draw(damaged_lines(content)))
    elif kind == "values" and path.suffix in (".json", ".yaml"):
        path.write_bytes(draw(damaged_text(content.decode(), path.suffix == ".yaml")))
    elif kind in ("values", "bytes"):
        path.write_bytes(draw(damaged_bytes(content)))
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(path.name)
        elif kind == "link":
            path.symlink_to(path.parents[-2] / "outside" / "secret")


class Area:
    """Folder of one case with files to damage, beside a folder that no command may write to.

    Args:
        pristine: undamaged files.
    """

    def __init__(self, pristine: Path) -> None:
        self.base = Path(tempfile.mkdtemp())
        self.folder = self.base / "given"
        self.outside = self.base / "outside"
        shutil.copytree(pristine, self.folder)
        self.outside.mkdir()
        (self.outside / "secret").write_text("unchanged")

    def files(self) -> list[Path]:
        """Return the files of the folder in a fixed order."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def check(self, arguments: list[str]) -> None:
        """Run a command, and check what it printed and wrote."""
        code, printed, errors = _run(arguments)
        assert code in (0, 2), (code, errors)
        assert "Traceback" not in errors
        for text in (printed, errors):
            controls = {sign for sign in text if not sign.isprintable() and sign not in "\n "}
            assert not controls, (controls, text)
        if code == 2:
            assert errors.splitlines()[-1].startswith("lampe-eval: "), errors
        assert [path.name for path in self.outside.iterdir()] == ["secret"]
        assert (self.outside / "secret").read_text() == "unchanged"
        assert sorted(path.name for path in self.base.iterdir()) == ["given", "outside"]
        assert not list(Path.cwd().iterdir()), list(Path.cwd().iterdir())


def _run(arguments: list[str]) -> tuple[int, str, str]:
    """Return the exit code of a command, and what it printed to stdout and stderr."""
    out, errors = io.StringIO(), io.StringIO()
    sys.argv = ["lampe-eval", *arguments]
    # A command that reads without end is a fault, too.
    signal.alarm(SECONDS_PER_CASE)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            cli.main()
    except SystemExit as stopped:
        return int(stopped.code or 0), out.getvalue(), errors.getvalue()
    finally:
        signal.alarm(0)
    raise AssertionError("main() returned")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a tiny model with the tokenizer of the pocket model."""
    folder = tmp_path_factory.mktemp("model")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 745}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256}
    factors = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "original_max_position_embeddings": 64}
    config = LlamaConfig(**sizes, **heads, rope_parameters=rope | factors)
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(WEIGHTS / name, folder)
    return folder


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a suite of which every value can be damaged."""
    folder = tmp_path_factory.mktemp("suite")
    text = """\
model: pocket
method: [original, "lampe:head_tokens=16", yarn]
bench: [ppl/exact]
lengths: [256]
protocol: fair
limit: 1
seed: 0
dtype: float32
device: cpu
attention: auto
output: given/out
fail_on_error: 1%
"""
    (folder / "suite.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    answers = {"original": {256: [True, False, None]}, "lampe": {256: [True, True, False]}}
    stored_runs.run(folder, answers)
    return folder.parent


@pytest.fixture(autouse=True)
def command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the command line once: typer takes half of a case to build it from its functions."""
    monkeypatch.setattr(cli, "app", typer.main.get_command(cli.app))
    # Restored after a test.
    monkeypatch.setattr(sys, "argv", list(sys.argv))


def cases(share: float) -> settings:
    """Return settings for a share of all cases."""
    return settings(
        max_examples=round(share * CASES),
        deadline=None,
        derandomize="FUZZ_CASES" not in os.environ,
        database=None,
        # The first case that fails is small enough to read, and shrinking it takes minutes.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _damage_and_check(pristine: Path, data: st.DataObject, *arguments: str) -> None:
    """Damage a file of a copy of a folder, and run a command on the copy.

    Args:
        pristine: folder to copy.
        data: what hypothesis draws from.
        arguments: command; FOLDER in them stands for the copy.
    """
    area = Area(pristine)
    try:
        data.draw(damage(data.draw(st.sampled_from(area.files()))))
        area.check([part.replace("FOLDER", str(area.folder)) for part in arguments])
    finally:
        shutil.rmtree(area.base)


@cases(0.3)
@given(data=st.data())
def test_any_model_folder_is_described_or_refused(model: Path, data: st.DataObject) -> None:
    _damage_and_check(
        model, data, "suggest", "--model", "FOLDER", "--method", "pi", "--length", "9k"
    )


@cases(0.12)
@given(data=st.data())
def test_any_suite_is_planned_or_refused(suite: Path, data: st.DataObject) -> None:
    _damage_and_check(suite, data, "run", "--config", "FOLDER/suite.yaml", "--dry-run")


@cases(0.01)
@given(data=st.data())
def test_any_run_is_scored_or_refused(run_folder: Path, data: st.DataObject) -> None:
    _damage_and_check(run_folder, data, "score", "FOLDER/run")


@cases(0.07)
@given(data=st.data())
def test_any_run_stands_on_the_page_or_is_left_out(run_folder: Path, data: st.DataObject) -> None:
    _damage_and_check(run_folder, data, "leaderboard", "build", "FOLDER")


PREDICTIONS = {
    "ruler": {"pred": "7", "outputs": ["7"], "index": 0, "input": "x"},
    "longbench": {"pred": "a", "answers": ["a"], "all_classes": ["a"], "length": 3},
    "leval": {"m_pred": "A", "gt": "A", "evaluation": "exam"},
}
FILES = {"ruler": "vt.jsonl", "longbench": "trec.jsonl", "leval": "quality.pred.jsonl"}


@cases(0.5)
@given(bench=st.sampled_from(["ruler"] * 8 + ["longbench", "leval"]), data=st.data())
def test_any_predictions_are_scored_or_refused(
    bench: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("preds")
    lines = f"{json.dumps(PREDICTIONS[bench])}\n" * 2
    (folder / FILES[bench]).write_text(lines)
    _damage_and_check(folder, data, "score", "--preds", "FOLDER", "--bench", bench)
