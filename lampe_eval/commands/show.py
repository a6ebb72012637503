"""``lampe-eval show``."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

import lampe
from lampe_eval.errors import UserError
from lampe_eval.method_specs import parse_methods
from lampe_eval.report import plan_picture


def plan(method: str, window: int, tokens: int, png: Path | None) -> None:
    """Regions, largest relative position and picture of a method's plan."""
    specs = parse_methods([method])
    if len(specs) != 1:
        raise UserError(f"--method: one method at a time, got {method!r}")
    try:
        geometry = lampe.Geometry(window=window)
        resolved = specs[0].build({}).resolved(geometry, tokens)
        encoding = resolved.encode(geometry, tokens)
    except ValueError as error:
        raise UserError(f"show plan: {error}") from None
    console = Console()
    settings = ", ".join(
        f"{key}={'auto' if value is None else value}" for key, value in resolved.settings.items()
    )
    console.print(
        f"[bold]{method}[/] for a prompt of {tokens} tokens, window {window}: {settings}",
        highlight=False,
    )
    console.print(_regions(encoding.plan))
    console.print(_verdict(encoding, tokens, geometry), highlight=False)
    scale = encoding.position_scale(geometry.rope(tokens))
    # In positions of the plan, the window is longer where the rope is slower; without end where no
    # pair rotates.
    slowed = round(window / scale) if scale else max(window, tokens)
    console.print(plan_picture.terminal(encoding.plan, tokens, slowed))
    if png:
        plan_picture.save(
            encoding.plan, tokens, slowed, f"{method}\n{tokens} tokens, window {window}", png
        )
        console.print(f"written to {png}")


def _regions(found: lampe.PositionPlan) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("region", "block distance", "query position", "key position"):
        table.add_column(title)
    shown = found.regions if len(found.regions) <= 8 else (*found.regions[:4], *found.regions[-4:])
    for region in shown:
        unit = "" if region.block == 1 else f" (blocks of {region.block})"
        distance = f"{region.near} to {'end' if region.far is None else region.far - 1}{unit}"
        table.add_row(region.name, distance, str(region.query), str(region.key))
    if len(shown) < len(found.regions):
        table.add_row(f"... {len(found.regions)} regions in all")
    return table


def _verdict(encoding: lampe.Encoding, length: int, geometry: lampe.Geometry) -> str:
    largest, reach = (
        encoding.plan.largest(length),
        encoding.largest_position(length, geometry.rope(length)),
    )
    slowed = "" if reach == largest else f", which the slower rope makes {reach:.6g}"
    place = "inside" if reach < geometry.window else "BEYOND"
    return (
        f"largest relative position {largest:g}{slowed}, {place} the window of {geometry.window}; "
        f"attention_factor {encoding.effective_attention_factor}"
    )
