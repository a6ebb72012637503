"""Tables in Markdown."""

import re
from collections.abc import Iterable

from lampe_eval.report.labels import COLUMN_LABEL_WIDTH, ROW_LABEL_WIDTH, wrap_label
from lampe_eval.report.table_model import ResultTable


def to_markdown(table: ResultTable) -> str:
    """Return the table with its title above and its notes below."""
    lines = [f"### {escape_markdown(table.title)}", ""]
    lines.append(markdown_row(_wrapped(title, COLUMN_LABEL_WIDTH) for title in table.columns))
    lines.append(f"|---|{'---:|' * (len(table.columns) - 1)}")
    for label, values in table.lines:
        cells = [f"**{value}**" if value.best else str(value) for value in values]
        lines.append(markdown_row([_wrapped(label, ROW_LABEL_WIDTH), *cells]))
    lines += [f"\n{escape_markdown(note)}" for note in table.caption]
    return "\n".join([*lines, ""])


def _wrapped(label: str, width: int) -> str:
    return "<br>".join(map(escape_markdown, wrap_label(label, width)))


def markdown_row(cells: Iterable[str]) -> str:
    """Return a row of a table; its cells are Markdown already."""
    return f"| {' | '.join(cells)} |"


def escape_markdown(text: str) -> str:
    """Return the text on one line, escaped so that Markdown shows every character as it is."""
    # A line break would end the row of a table.
    return re.sub(r"([\\`*\[<|])", r"\\\1", " ".join(text.splitlines()))
