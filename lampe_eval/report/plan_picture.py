"""Pictures of a position plan: its relative position matrix in the terminal, or as a PNG."""

import io
import math
from textwrap import fill
from typing import Any

import torch
from rich.style import Style
from rich.text import Text
from torch import Tensor

from lampe import PositionPlan
from lampe_eval.errors import UserError

SHADES = "░▒▓█"
COLOURS = ("blue", "cyan", "green", "yellow")
BEYOND = "!"
UNSEEN = "·"
TITLE_WIDTH = 60
"""Characters of a title's line that fit above the matrix."""
TERMINAL_ROWS = 24
PNG_SIZE = 1024
"""Rows and columns of the matrix that the PNG shows."""


def sample_matrix(
    plan: PositionPlan, length: int, rows: int, columns: int
) -> tuple[Tensor, Tensor]:
    """Return relative positions of evenly spaced pairs of query and key, and which are not seen.

    Args:
        plan: the plan.
        length: tokens of the prompt.
        rows: number of queries.
        columns: number of keys.

    Returns:
        Positions [rows, columns], NaN for keys that are not seen or come after their query, and
        whether a query does not see a key before it, of the same shape.
    """
    queries = _evenly_spaced(length, rows)[:, None]
    keys = _evenly_spaced(length, columns)
    positions = plan.relative(queries, keys)
    return positions, positions.isnan() & (keys <= queries)


def _evenly_spaced(length: int, count: int) -> Tensor:
    return torch.linspace(0, length - 1, min(count, length)).round().long()


def terminal_picture(plan: PositionPlan, length: int, window: int) -> Text:
    """Return the matrix in shades that read without colours too, queries down and keys across."""
    text = Text()
    # Twice as many columns as rows, since a character is about twice as high as it is wide.
    positions, unseen = sample_matrix(plan, length, TERMINAL_ROWS, 2 * TERMINAL_ROWS)
    for row, unseen_row in zip(positions.tolist(), unseen.tolist(), strict=True):
        for position, is_unseen in zip(row, unseen_row, strict=True):
            text.append(*((UNSEEN, "dim") if is_unseen else _glyph(position, window)))
        text.append("\n")
    not_seen = f"{UNSEEN} not seen; " if plan.sparse else ""
    legend = (
        f"{SHADES} relative position 0 to {window - 1}, {BEYOND} beyond the window; {not_seen}"
        "queries down, keys across"
    )
    return text.append(legend, Style(dim=True))


def draw_plan(
    plan: PositionPlan, length: int, window: int, title: str, file_format: str = "png"
) -> bytes:
    """Return a picture of the matrix; lines of the title that are too long for it are broken.

    Args:
        plan: the plan.
        length: tokens of the prompt.
        window: position at which the encoding leaves the window.
        title: text above the matrix.
        file_format: format as matplotlib names it.

    Raises:
        UserError: for a format that matplotlib does not know.
    """
    import matplotlib

    # Draws into a file, and needs no display.
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.colors import ListedColormap

    figure, axes = pyplot.subplots(figsize=(7, 6), layout="constrained")
    colours = pyplot.get_cmap("viridis").with_extremes(over="tab:red", bad="white")
    place: dict[str, Any] = {"extent": (0, length, length, 0), "interpolation": "nearest"}
    positions, unseen = (part.numpy() for part in sample_matrix(plan, length, PNG_SIZE, PNG_SIZE))
    image = axes.imshow(positions, cmap=colours, vmin=0, vmax=window - 1, **place)
    label = "red: beyond the window"
    if plan.sparse:
        axes.imshow(unseen, cmap=ListedColormap(["lightgrey"]), alpha=unseen.astype(float), **place)
        label += ", grey: not seen"
    wrapped_title = "\n".join(fill(line, TITLE_WIDTH) for line in title.splitlines())
    axes.set_title(wrapped_title, fontsize="medium", parse_math=False)
    axes.set(xlabel="key", ylabel="query")
    figure.colorbar(image, label=f"relative position ({label})", extend="max")
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, dpi=150, format=file_format)
    except ValueError as error:
        raise UserError(f"--png: {error}") from None
    finally:
        pyplot.close(figure)
    return buffer.getvalue()


def _glyph(position: float, window: int) -> tuple[str, str]:
    """Return character and style of a relative position; a space for a key after its query."""
    if math.isnan(position):
        return " ", ""
    if position >= window:
        return BEYOND, "red"
    shade = min(int(max(0.0, position) / window * len(SHADES)), len(SHADES) - 1)
    return SHADES[shade], COLOURS[shade]
