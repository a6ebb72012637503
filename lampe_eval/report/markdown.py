"""Tables in Markdown: best numbers bold, names as they are."""

import re
from collections.abc import Iterable

from lampe_eval.report.blocks import Block
from lampe_eval.report.labels import HEAD, SIDE, folded


def markdown(block: Block) -> str:
    """The table under its title, its notes below."""
    rows = [
        [
            _lines(label, SIDE),
            *(f"**{value}**" if value.place == 1 else str(value) for value in values),
        ]
        for label, values in block.lines
    ]
    head = [
        row(_lines(title, HEAD) for title in block.columns),
        f"|---|{'---:|' * (len(block.columns) - 1)}",
    ]
    legend = ["best number bold"] if 1 in block.places else []
    notes = [f"\n{escaped(note)}" for note in legend + block.notes]
    return "\n".join([f"### {escaped(block.title)}", "", *head, *map(row, rows), *notes, ""])


def _lines(label: str, width: int) -> str:
    return "<br>".join(map(escaped, folded(label, width)))


def row(cells: Iterable[str]) -> str:
    """A line of a table; its cells are Markdown."""
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """The text, so that Markdown shows every character of it as it is, on one line."""
    return re.sub(r"([\\`*\[<|])", r"\\\1", " ".join(text.splitlines()))
