"""Command `lampe-eval show`: one position plan in detail."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

import lampe
from lampe.patching.layer_encodings import require_coverage
from lampe_eval.cards import ModelCard
from lampe_eval.errors import UserError
from lampe_eval.file_io import save_file
from lampe_eval.method_specs import FORGOTTEN, MethodSpec
from lampe_eval.report import plan_picture
from lampe_eval.terminal import TerminalConsole

DEFAULT_WINDOW = 8192
"""Tokens of pretraining where neither a model nor a window is given."""
MAX_SHOWN_REGIONS = 8
"""Regions that are listed in full; of more, the first and the last are listed."""


def plans(
    specs: Sequence[MethodSpec],
    model: tuple[ModelCard, str] | None,
    window: int | None,
    tokens: int,
    png: Path | None,
) -> None:
    """Print regions, largest relative position and picture of the plans of methods.

    Args:
        specs: the methods.
        model: card and name of the model whose window, rope and settings hold.
        window: tokens of pretraining; the model's by default, or `DEFAULT_WINDOW` without one.
        tokens: tokens of the prompt.
        png: also draw the picture into this file.

    Raises:
        UserError: if the model cannot be used, a method has no plan for this prompt, or the file
            cannot be written.
    """
    geometry = lampe.Geometry(window=window or DEFAULT_WINDOW)
    settings: Mapping[str, Mapping[str, Any]] = {}
    if model is not None:
        # Imported here, because it imports the hub's library.
        from lampe_eval.models import describe_model

        source = describe_model(*model, window=window)
        geometry, settings = source.geometry, source.settings
    for spec in specs:
        _print_plan(spec, geometry, settings, tokens, png)


def _print_plan(
    spec: MethodSpec,
    geometry: lampe.Geometry,
    settings_of_model: Mapping[str, Mapping[str, Any]],
    tokens: int,
    png: Path | None,
) -> None:
    """Print the plan of a method."""
    window = geometry.window
    try:
        built = spec.build(settings_of_model)
        resolved = built.resolved(geometry, tokens)
        encoding = resolved.encode(geometry, tokens)
        require_coverage(built, encoding.plan)
    except ValueError as error:
        raise UserError(f"show plan: {error}") from None
    console = TerminalConsole()
    settings = ", ".join(
        f"{key}={'auto' if value is None else value}" for key, value in resolved.settings.items()
    )
    label = escape(spec.label)
    heading = f"[bold]{label}[/] for a prompt of {tokens} tokens, window {window}: {settings}"
    console.print(heading, highlight=False)
    console.print(_region_table(encoding.plan))
    factor = factor_text(built, encoding)
    console.print(f"{_largest_position(encoding, tokens, geometry)}; {factor}", highlight=False)
    if visible := encoding.plan.visible:
        console.print(f"sees {visible.describe(tokens)}; {FORGOTTEN}", highlight=False)
    scaled_window = _scaled_window(encoding, tokens, geometry)
    console.print(plan_picture.terminal_picture(encoding.plan, tokens, scaled_window))
    if png:
        title = f"{spec.label}\n{tokens} tokens, window {window}"
        file_format = png.suffix.removeprefix(".") or "png"
        picture = plan_picture.draw_plan(encoding.plan, tokens, scaled_window, title, file_format)
        save_file(png, picture)
        console.print(f"written to {png}")
    largest = encoding.largest_position(tokens, geometry.rope(tokens))
    if largest >= window:
        console.print(f"{spec.label}: {largest:g} at {tokens} tokens leaves the window of {window}")


def _scaled_window(encoding: lampe.Encoding, length: int, geometry: lampe.Geometry) -> int:
    """Return the plan's position at which the encoding leaves the window."""
    largest = encoding.plan.largest(length)
    scaled = encoding.largest_position(length, geometry.rope(length))
    if not scaled:  # nothing is rotated, or the prompt is a single token
        return geometry.window
    # A rope that is slower than the model's own reaches the angles of the window's end only there.
    return round(geometry.window * largest / scaled)


def _region_table(plan: lampe.PositionPlan) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("region", "block distance", "query position", "key position"):
        table.add_column(title)
    regions = plan.regions
    if len(regions) > MAX_SHOWN_REGIONS:
        half = MAX_SHOWN_REGIONS // 2
        regions = (*regions[:half], *regions[-half:])
    for region in regions:
        unit = "" if region.block == 1 else f" (blocks of {region.block})"
        distance = f"{region.near} to {'end' if region.far is None else region.far - 1}{unit}"
        if region.until is not None:
            distance += f", keys 0 to {region.until - 1}"
        table.add_row(region.name, distance, str(region.query), str(region.key))
    if len(regions) < len(plan.regions):
        table.add_row(f"... {len(plan.regions)} regions in all")
    return table


def _largest_position(encoding: lampe.Encoding, length: int, geometry: lampe.Geometry) -> str:
    """Return in words the largest relative position, and whether it lies inside the window."""
    largest = encoding.plan.largest(length)
    scaled = encoding.largest_position(length, geometry.rope(length))
    slower_rope = "" if scaled == largest else f", which the slower rope makes {scaled:.6g}"
    place = "inside" if scaled < geometry.window else "BEYOND"
    return (
        f"largest relative position {largest:g}{slower_rope}, {place} the window of "
        f"{geometry.window}"
    )


def factor_text(method: lampe.Method, encoding: lampe.Encoding) -> str:
    """Return the attention factor in words, and of a composed method which part's holds."""
    note = method.attention_factor_note
    return f"attention_factor {encoding.effective_attention_factor}{note and f' ({note})'}"
