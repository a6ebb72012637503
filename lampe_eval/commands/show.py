"""Command `lampe-eval show`: one position plan in detail."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
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
    console.print(_region_table(encoding.plan, tokens))
    factor = factor_text(built, encoding)
    console.print(f"{_largest_position(encoding, tokens, geometry)}; {factor}", highlight=False)
    if visible := encoding.plan.visible:
        console.print(f"sees {visible.describe(tokens)}; {FORGOTTEN}", highlight=False)
    scaled_window = _scaled_window(encoding, tokens, geometry)
    note = "the picture shows the slowest pairs" if encoding.plan.pair_stops else ""
    if note:
        console.print(note)
    console.print(plan_picture.terminal_picture(encoding.plan, tokens, scaled_window))
    if png:
        title = "\n".join(filter(None, (spec.label, f"{tokens} tokens, window {window}", note)))
        file_format = png.suffix.removeprefix(".") or "png"
        picture = plan_picture.draw_plan(encoding.plan, tokens, scaled_window, title, file_format)
        save_file(png, picture)
        console.print(f"written to {png}")
    largest = encoding.largest_position(tokens, geometry.rope(tokens))
    if largest >= window:
        console.print(f"{spec.label}: {largest:g} at {tokens} tokens leaves the window of {window}")


def _scaled_window(encoding: lampe.Encoding, length: int, geometry: lampe.Geometry) -> int:
    """Return the plan's position at which the encoding leaves the window."""
    scale = encoding.position_scale(geometry.rope(length))
    # A rope that is slower than the model's own reaches the angles of the window's end only there.
    return round(geometry.window / scale) if scale else geometry.window  # nothing is rotated


def _region_table(plan: lampe.PositionPlan, length: int) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("region", "block distance", "query position", "key position"):
        table.add_column(title)
    regions: list[tuple[str, lampe.Region]] = []
    runs = list(plan.runs(0, length))
    for start, stop, own_plan in runs:
        queries = "" if len(runs) == 1 else f", queries {start} to {stop - 1}"
        regions += [(f"{region.name}{queries}", region) for region in own_plan]
    shown = regions
    if len(regions) > MAX_SHOWN_REGIONS:
        half = MAX_SHOWN_REGIONS // 2
        shown = [*regions[:half], *regions[-half:]]
    for name, region in shown:
        unit = "" if region.block == 1 else f" (blocks of {region.block})"
        distance = f"{region.near} to {'end' if region.far is None else region.far - 1}{unit}"
        if region.until is not None:
            distance += f", keys 0 to {region.until - 1}"
        for pairs, part in _pair_bands(region):
            table.add_row(f"{name}{pairs}", distance, str(part.query), str(part.key))
    if len(shown) < len(regions):
        table.add_row(f"... {len(regions)} regions in all")
    return table


def _pair_bands(region: lampe.Region) -> Iterator[tuple[str, lampe.Region]]:
    """Yield which pairs have maps of their own, in words, and the region with these maps."""
    stops = lampe.PositionPlan((region,)).pair_stops
    if not stops:
        yield "", region
    for begin, stop in pairwise((0, *stops)):
        yield f", pairs {begin} to {stop - 1}", region.of_pair(begin)


def _largest_position(encoding: lampe.Encoding, length: int, geometry: lampe.Geometry) -> str:
    """Return in words the largest relative position, and whether it lies inside the window."""
    largest = encoding.plan.largest(length)
    scaled = encoding.largest_position(length, geometry.rope(length))
    slower_rope = "" if scaled == largest else f", which the slower rope makes {scaled:.6g}"
    if encoding.plan.pair_stops:
        slower_rope = f" in the slowest pairs, {scaled:.6g} in those that do not turn before"
    place = "inside" if scaled < geometry.window else "BEYOND"
    return (
        f"largest relative position {largest:g}{slower_rope}, {place} the window of "
        f"{geometry.window}"
    )


def factor_text(method: lampe.Method, encoding: lampe.Encoding) -> str:
    """Return the attention factor in words, and of a composed method which part's holds."""
    note = method.attention_factor_note
    return f"attention_factor {encoding.effective_attention_factor}{note and f' ({note})'}"
