"""Long labels over several lines, and how wide they are in a table."""

import re
from textwrap import wrap

ROW_LABEL_WIDTH, COLUMN_LABEL_WIDTH = 40, 24
"""Characters of a table's row labels, and of its columns' titles."""


def wrap_label(label: str, width: int) -> list[str]:
    """A label in lines of at most ``width`` characters, broken behind its signs, within a name only where it must."""
    pieces = [
        piece
        for part in re.split("(?<=[:,])|(?<=· )", label)
        for piece in wrap(part, width, drop_whitespace=False)
    ]
    lines = [""]
    for piece in pieces:
        if len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]
