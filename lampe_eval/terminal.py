"""Output to the terminal: text of others can neither control it nor fail to be encoded."""

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from lampe_eval.errors import UserError

PIPE_WIDTH = 200
"""Characters of a line where nothing limits the width."""

# C0 without tab and line feed, DEL, C1, marks and overrides of text direction, line separators, the
# byte order mark and lone surrogates. A no-break or ideographic space and joiners belong to
# ordinary text.
_CONTROLS = "\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
_CONTROL = re.compile(f"[\r{_CONTROLS}\ud800-\udfff]")
# Progress bars of libraries return to the start of their line.
_CONTROL_IN_STREAM = re.compile(f"[{_CONTROLS}\ud800-\udfff]")


def visible(text: str, controls: re.Pattern[str] = _CONTROL) -> str:
    """Return a text whose control characters are written as Python escapes them."""
    return controls.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class LastingStream:
    """Text stream that drops what its file no longer takes: a closed pipe, a full disk.

    Files that a command writes then do not depend on who reads its output.

    Attributes:
        stream: the stream that is written to.
        failure: the error that ended it; None for a closed pipe, whose reader has had enough.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text and return its length."""
        with self._ending():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write out what is buffered."""
        with self._ending():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Replace the stream by one that writes nothing, once it fails."""
        try:
            yield
        except OSError as error:
            self.failure = None if isinstance(error, BrokenPipeError) else error
            # The interpreter flushes the file at its end, where an error would be printed.
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.stream.fileno())
                os.close(null)


class VisibleStream(LastingStream):
    """Text stream that makes control characters visible before they reach a terminal."""

    stream: LastingStream  # type: ignore[assignment]

    def write(self, text: str) -> int:
        """Write a text and return its length."""
        return self.stream.write(visible(text, _CONTROL_IN_STREAM))


class TerminalConsole(Console):
    """Console that styles text, and makes control characters in it visible.

    Args:
        stderr: write to the error stream.
        options: further options of ``rich.console.Console``.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        stream = sys.stderr if stderr else sys.stdout
        # Its own escape sequences may pass.
        file = stream.stream if isinstance(stream, VisibleStream) else stream
        super().__init__(file=cast(TextIO, file), **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as text to print, at the width of its visible form."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return segments to print, also of renderables that do not use ``render_str``."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def console() -> TerminalConsole:
    """Return the terminal, or a wide console where output goes to a pipe or a file."""
    terminal = TerminalConsole()
    if terminal.is_terminal or "COLUMNS" in os.environ:
        return terminal
    return TerminalConsole(width=PIPE_WIDTH)


@contextmanager
def visible_streams() -> Iterator[None]:
    """Make control characters visible, and encode every text, on both streams of the process.

    Raises:
        UserError: at the end, if standard output could not be written.
    """
    streams = sys.stdout, sys.stderr
    for stream in streams:
        # A terminal or pipe that knows ASCII only gets escapes rather than an exception.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    output, errors = (LastingStream(stream) for stream in streams)
    sys.stdout = cast(TextIO, VisibleStream(cast(TextIO, output)))
    sys.stderr = cast(TextIO, VisibleStream(cast(TextIO, errors)))
    try:
        yield
        output.flush()
    finally:
        sys.stdout, sys.stderr = streams
    if output.failure:
        raise UserError(f"standard output: cannot be written ({output.failure.strerror})")
