"""Tables in Markdown: best numbers bold, names as they are."""

import re
from collections.abc import Iterable

from lampe_eval.report.labels import COLUMN_LABEL_WIDTH, ROW_LABEL_WIDTH, wrap_label
from lampe_eval.report.table_model import ResultTable


def to_markdown(block: ResultTable) -> str:
    """The table under its title, its notes below."""
    rows = [
        [
            _lines(label, ROW_LABEL_WIDTH),
            *(f"**{value}**" if value.place == 1 else str(value) for value in values),
        ]
        for label, values in block.lines
    ]
    head = [
        markdown_row(_lines(title, COLUMN_LABEL_WIDTH) for title in block.columns),
        f"|---|{'---:|' * (len(block.columns) - 1)}",
    ]
    legend = ["best number bold"] if 1 in block.places else []
    notes = [f"\n{escape_markdown(note)}" for note in legend + block.notes]
    return "\n".join(
        [f"### {escape_markdown(block.title)}", "", *head, *map(markdown_row, rows), *notes, ""]
    )


def _lines(label: str, width: int) -> str:
    return "<br>".join(map(escape_markdown, wrap_label(label, width)))


def markdown_row(cells: Iterable[str]) -> str:
    """A line of a table; its cells are Markdown."""
    return f"| {' | '.join(cells)} |"


def escape_markdown(text: str) -> str:
    """The text, so that Markdown shows every character of it as it is, on one line."""
    return re.sub(r"([\\`*\[<|])", r"\\\1", " ".join(text.splitlines()))
