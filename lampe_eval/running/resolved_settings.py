"""Settings that methods derive: what each has for as many tokens as a cell is long."""

import lampe
from lampe_eval.errors import report_warning
from lampe_eval.models import ModelSource
from lampe_eval.records import ResolvedSettings
from lampe_eval.running.prepared_run import PreparedRun
from lampe_eval.store import Cell


def resolved_settings(
    method: lampe.Method, geometry: lampe.Geometry, length: int
) -> ResolvedSettings:
    """Return the settings of a method for `length` tokens.

    Raises:
        lampe.LampeError: for a method that has no encoding of this length.
    """
    encoding = method.encode(geometry, length)
    settings: dict[str, int | float | str | bool] = {}
    for name, value in method.resolved(geometry, length).settings.items():
        # The effective factor below is what the settings of the attention factor come to.
        is_factor = name.rpartition(".")[2].startswith("attention_factor")
        if value is not None and not is_factor:
            settings[name] = value
    resolved: ResolvedSettings = {
        "settings": settings,
        "attention_factor": str(encoding.effective_attention_factor),
        "largest_position": round(encoding.largest_position(length, geometry.rope(length)), 6),
    }
    if visible := encoding.plan.visible:
        resolved["visible_tokens"] = visible.describe(length)
    return resolved


def settings_of_cells(prepared: PreparedRun, source: ModelSource) -> dict[Cell, ResolvedSettings]:
    """Return the settings of every cell of a model, at the cell's length."""
    by_length: dict[tuple[str, int], ResolvedSettings] = {}
    by_cell: dict[Cell, ResolvedSettings] = {}
    for _, cell in prepared.cells(source):
        key = cell.method, cell.length
        if key not in by_length:
            method = prepared.methods[cell.model, cell.method]
            by_length[key] = resolved_settings(method, source.geometry, cell.length)
        by_cell[cell] = by_length[key]
    return by_cell


def positions_beyond_window(prepared: PreparedRun, source: ModelSource) -> str:
    """Return in one line which methods leave the window at which lengths; empty where none does."""
    window = source.geometry.window
    beyond: dict[str, dict[int, float]] = {}
    for cell, resolved in settings_of_cells(prepared, source).items():
        if resolved["largest_position"] >= window:
            beyond.setdefault(cell.method, {})[cell.length] = resolved["largest_position"]
    if not beyond:
        return ""
    methods: list[str] = []
    for method, positions in beyond.items():
        reached = [f"{position:g} at {length}" for length, position in sorted(positions.items())]
        methods.append(f"{method} ({', '.join(reached)})")
    return f"{source.name}: positions leave the window of {window}: {', '.join(methods)}"


def warn_beyond_window(
    label: str, method: lampe.Method, geometry: lampe.Geometry, length: int
) -> None:
    """Report a warning where the positions of a prompt of ``length`` tokens leave the window."""
    largest = resolved_settings(method, geometry, length)["largest_position"]
    if largest >= geometry.window:
        report_warning(
            f"{label}: positions leave the window of {geometry.window}: {largest:g} at {length}"
        )
