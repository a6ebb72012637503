"""What a calibration leaves: a model card with the constants, the table of its sweeps, and a picture of each fit."""

from pathlib import Path

import pandas as pd
import yaml

from lampe_eval.calibration import calibration_plot
from lampe_eval.calibration.calibration_config import ResolvedCalibration
from lampe_eval.calibration.calibration_run import FittedSettings
from lampe_eval.cards import ModelCard, find_model_card
from lampe_eval.report.tables import save_file


def write_calibration(wanted: ResolvedCalibration, fitted: FittedSettings) -> list[Path]:
    """Writes the card first, then calibration.csv and the pictures; their paths.

    Raises:
        UserError: where the folder cannot be written.
    """
    source = wanted.plan.sources[0]
    card = wanted.folder / f"{source.name.replace('/', '--')}-calibrated.yaml"
    text = yaml.safe_dump(
        _card(wanted, fitted).model_dump(mode="json"),
        sort_keys=False,
        allow_unicode=True,
        width=120,
    )
    save_file(card, text.encode())
    tables = [
        swept.table.assign(
            best=swept.table["length"].map({best.length: best.value for best in swept.found})
        )
        for swept in fitted.swept
    ]
    table = wanted.folder / "calibration.csv"
    save_file(table, pd.concat(tables).to_csv(index=False, float_format="%.6f").encode())
    return [card, table, *_pictures(wanted, fitted)]


def _card(wanted: ResolvedCalibration, fitted: FittedSettings) -> ModelCard:
    """The model's card with what was kept in place of what it said; a curve of its own replaces a published one."""
    order, source = wanted.order, wanted.plan.sources[0]
    card, _ = find_model_card(order.model[0])
    settings = {name: dict(own) for name, own in card.settings.items()}
    for stages in fitted.stages:
        kept = fitted.kept(stages)
        settings[kept.name] = {**settings.get(kept.name, {}), **kept.settings}
        if "slope" in kept.settings:
            settings[kept.name].pop("curve", None)
    task = wanted.plan.tasks[0].full_name
    lengths = ", ".join(map(str, order.lengths))
    about = f"{source.name} with settings that lampe-eval calibrate fitted by {task} at {lengths} tokens"
    path = str(Path(card.path).resolve()) if Path(card.path).is_dir() else card.path
    return card.model_copy(
        update={"about": about, "path": path, "window": wanted.window, "settings": settings}
    )


def _pictures(wanted: ResolvedCalibration, fitted: FittedSettings) -> list[Path]:
    paths = []
    for swept in fitted.swept:
        (stages,) = (own for own in fitted.stages if swept.sweep.spec in own)
        paths.append(wanted.folder / f"{stages[0].name}-{swept.sweep.setting}.png")
        save_file(paths[-1], calibration_plot.draw_calibration(wanted, swept, stages))
    return paths
