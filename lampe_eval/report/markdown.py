"""A table in Markdown, best numbers bold."""

from lampe_eval.report.blocks import Block
from lampe_eval.report.labels import HEAD, SIDE, folded


def markdown(block: Block) -> str:
    """The table under its title, its notes below."""
    rows = [
        [_lines(label, SIDE), *(f"**{value}**" if value.place == 1 else str(value) for value in vs)]
        for label, vs in block.lines
    ]
    head = [_lines(title, HEAD) for title in block.columns]
    table = [_row(head), f"|---|{'---:|' * (len(block.columns) - 1)}", *map(_row, rows)]
    return "\n".join([f"### {block.title}", "", *table, *(f"\n{note}" for note in block.notes), ""])


def _lines(label: str, width: int) -> str:
    return "<br>".join(folded(label, width))


def _row(texts: list[str]) -> str:
    cells = [text.replace("|", "\\|") for text in texts]
    return f"| {' | '.join(cells)} |"
