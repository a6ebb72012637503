"""Every command and snippet that README and the documentation show is run, or at least checked.

A block of commands that cannot run here says what it needs in a comment before it
(`<!-- needs: hub -->`). Its options and names are checked all the same.
"""

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from lampe_eval.cli import app
from tests.fixtures import restored_registries

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "lampe_eval" / "pocket" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]
    if path.name != "cli.md"
]
BLOCK = re.compile(r"(?:<!-- needs: (?P<needs>\w+) -->\n)?```sh\n(?P<text>.*?)```", re.DOTALL)
INLINE = re.compile(r"(?<!`)`(lampe-eval [^`\n]+)`(?!`)")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
README_WORDS = 700

WORK = {
    "run": "lampe_eval.commands.run.run_suite",
    "calibrate": "lampe_eval.commands.calibrate.calibrate_model",
    "speed": "lampe_eval.commands.speed.measure_speed",
    "serve": "lampe_eval.commands.serve.serve",
    "score": "lampe_eval.commands.score.score",
    "data": "lampe_eval.commands.data.fetch_files",
    "compare": "lampe_eval.commands.compare.compare",
    "leaderboard": "lampe_eval.commands.leaderboard.compare",
    "lm-eval": "lampe_eval.commands.lm_eval.run_lm_eval",
}
"""What does the work of a command; replaced, the command only checks its options and names."""

INSTALLATION = (
    ".venv-vllm/bin/pip install",
    "python3 -m venv",
    ".venv/bin/pip install",
    "source ",
    "pip install",
)


def commands(page: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the commands of a page, each with what its block says it needs."""
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        for line in block["text"].replace("\\\n", " ").splitlines():
            if line.strip():
                yield line.strip(), block["needs"]


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Restore what plug-ins of a page register."""
    with restored_registries():
        yield


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_commands_work(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    # Files that the commands read or write beside the checkout's own.
    (tmp_path / "docs" / "pictures").mkdir(parents=True)
    (tmp_path / "predictions" / "llama2-7b-chat-4k").mkdir(parents=True)
    (tmp_path / "path" / "to" / "checkpoint").mkdir(parents=True)
    (tmp_path / "path" / "to" / "checkpoint" / "config.json").write_text("{}")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "docs" / "calibration").symlink_to(ROOT / "docs" / "calibration")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "calibration").symlink_to(ROOT / "docs" / "calibration")
    for command, needs in commands(page):
        words = shlex.split(command)
        if needs == "lm_eval" and not find_spec("lm_eval"):
            continue
        if words[0] == "make":
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), command
        elif words[:2] == ["python", "-m"]:
            assert needs == "vllm" or find_spec(words[2]), command
        elif words[0] == "lampe-eval":
            with monkeypatch.context() as replaced:
                if needs:
                    replaced.setattr(WORK[words[1]], lambda *_, **__: 0)
                result = app(words[1:], standalone_mode=False)
            assert result in (None, 0), command
        else:
            assert command.startswith(INSTALLATION), command


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_commands_in_sentences_exist(page: Path) -> None:
    """Commands in sentences name a command, and options that it has."""
    for text in INLINE.findall(page.read_text(encoding="utf-8")):
        words = text.split()[1:]
        command: Any = get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not words or words[0].startswith(("-", "FOLDER", "results/", "RUN")), text
        options = ["--help"]
        for parameter in command.params:
            options += parameter.opts
        for word in words:
            assert not word.startswith("--") or word.partition("=")[0] in options, text


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_commands_stand_in_blocks_that_are_run(page: Path) -> None:
    indented = re.findall(
        r"^(?: {4}|\t)(?:lampe-eval|python -m) .*", page.read_text(), re.MULTILINE
    )
    assert indented == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= README_WORDS


def test_the_snippet_of_the_readme_runs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(snippet, "README.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    # The reference of the command line is written when the site is built.
    assert not [link for link in missing if link != "cli.md"]
