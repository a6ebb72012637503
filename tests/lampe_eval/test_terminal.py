"""Tests of output to the terminal and of YAML that cannot be built."""

import io
from pathlib import Path

import pytest

from lampe_eval.cards import ModelCard, read_card
from lampe_eval.errors import UserError
from lampe_eval.terminal import LastingStream, TerminalConsole, VisibleStream, visible


@pytest.mark.parametrize("control", ["\x1b", "\r", "\x07", "\x7f", "\x9b", "\u202e", "\ud800"])
def test_control_characters_are_visible(control: str) -> None:
    assert control not in visible(f"a{control}b")


@pytest.mark.parametrize("text", ["line\n\tindented", "\u4f60\u3000\u597d", "a\u200db"])
def test_ordinary_text_stays(text: str) -> None:
    assert visible(text) == text


def test_console_passes_its_own_styles_alone(capsys: pytest.CaptureFixture[str]) -> None:
    TerminalConsole(force_terminal=True, color_system="standard").print("[bold]a\x1b[2Jb[/]")
    out = capsys.readouterr().out
    assert "\x1b[1m" in out
    assert "\x1b[2J" not in out


def test_streams_survive_a_closed_pipe() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    stream = VisibleStream(LastingStream(Closed()))  # type: ignore[arg-type]
    stream.write("text")
    assert stream.stream.failure is None


@pytest.mark.parametrize(
    "value", ["2020-13-45", "!!int x", "[" * 5000, "1" * 6000, "!!python/object:os.system {}"]
)
def test_yaml_that_cannot_be_built_is_one_error(tmp_path: Path, value: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(f"path: x\nwindow: {value}\n")
    with pytest.raises(UserError, match=r"card\.yaml"):
        read_card(path, ModelCard)
