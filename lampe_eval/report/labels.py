"""Wrapping of long labels, such as methods with many settings."""

import re
from textwrap import wrap

ROW_LABEL_WIDTH = 40
"""Characters of a table's row labels."""
COLUMN_LABEL_WIDTH = 24
"""Characters of a table's column titles."""


def wrap_label(label: str, width: int) -> list[str]:
    """Break a label into lines of at most `width` characters.

    Lines end after a colon, a comma or a dot between method and run; a name is broken only where it
    is longer than a line.
    """
    pieces: list[str] = []
    for part in re.split("(?<=[:,])|(?<=· )", label):
        pieces += wrap(part, width, drop_whitespace=False)
    lines = [""]
    for piece in pieces:
        if len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]
