"""Write the reference of the command line: `python -m tools.cli_reference FILE`."""

import argparse
import html
from pathlib import Path

import typer.main
from typer.cli import get_docs_for_click

from lampe_eval.cli import app

INTRODUCTION = """\
# Command line

Every command with its options, written from the program itself.
[Getting started](getting-started.md) shows them at work.
"""


def cli_reference() -> str:
    """Return the reference as Markdown: one section per command."""
    command = typer.main.get_command(app)
    context = typer.Context(command)
    text = get_docs_for_click(obj=command, ctx=context, name="lampe-eval")
    # typer escapes for HTML; Markdown shows the characters themselves.
    sections = html.unescape(text).split("\n## ", 1)[1]
    return f"{INTRODUCTION}\n## {sections.strip()}\n"


def write_cli_reference(path: Path) -> None:
    """Write the reference to a file, unless it says the same already.

    An unchanged file keeps its time stamp, so that Sphinx does not read it again.
    """
    text = cli_reference()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference of the command line.")
    parser.add_argument("file", type=Path, metavar="FILE", help="Markdown file to write")
    write_cli_reference(parser.parse_args().file)
