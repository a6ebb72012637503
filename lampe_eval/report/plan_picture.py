"""Pictures of a plan: its relative position matrix, sampled, as shades in the terminal or as a PNG."""

import math
from pathlib import Path
from textwrap import fill

import torch
from rich.style import Style
from rich.text import Text
from torch import Tensor

from lampe import PositionPlan
from lampe_eval.errors import UserError

SHADES = "░▒▓█"
COLOURS = ("blue", "cyan", "green", "yellow")
BEYOND = "!"
TITLE = 60
"""Characters of a title's line that fit above the matrix."""


def sampled(plan: PositionPlan, length: int, rows: int, columns: int) -> Tensor:
    """Relative positions of an evenly spaced grid of pairs, ``[rows, columns]``, NaN above the diagonal."""
    query, key = (
        torch.linspace(0, length - 1, min(size, length)).round().long() for size in (rows, columns)
    )
    return plan.relative(query[:, None], key[None, :])


def terminal(plan: PositionPlan, length: int, window: int, rows: int = 24) -> Text:
    """The matrix in coloured shades, queries down and keys across, readable without colours too."""
    text = Text()
    for row in sampled(plan, length, rows, 2 * rows).tolist():
        for position in row:
            text.append(*_glyph(position, window))
        text.append("\n")
    marks = f"{SHADES} relative position 0 to {window - 1}, {BEYOND} beyond the window; queries down, keys across"
    return text.append(marks, Style(dim=True))


def save(plan: PositionPlan, length: int, window: int, title: str, path: Path) -> None:
    """The matrix as a PNG, lines of the title that are too long for it broken.

    Raises:
        UserError: where the file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 6), layout="constrained")
    colours = pyplot.get_cmap("viridis").with_extremes(over="tab:red", bad="white")
    grid = sampled(plan, length, 1024, 1024).numpy()
    image = axes.imshow(
        grid,
        cmap=colours,
        vmin=0,
        vmax=window - 1,
        extent=(0, length, length, 0),
        interpolation="nearest",
    )
    axes.set_title(
        "\n".join(fill(line, TITLE) for line in title.splitlines()),
        fontsize="medium",
        parse_math=False,
    )
    axes.set(xlabel="key", ylabel="query")
    figure.colorbar(image, label="relative position (red: beyond the window)", extend="max")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written: {error}") from None
    finally:
        pyplot.close(figure)


def _glyph(position: float, window: int) -> tuple[str, str]:
    """Character and style of a relative position; a space for a key after its query."""
    if math.isnan(position):
        return " ", ""
    if position >= window:
        return BEYOND, "red"
    shade = min(int(max(0.0, position) / window * len(SHADES)), len(SHADES) - 1)
    return SHADES[shade], COLOURS[shade]
