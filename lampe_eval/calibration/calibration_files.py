"""Files of a calibration: a model card with fitted settings, a table of the sweeps, and plots."""

from pathlib import Path

import pandas as pd

from lampe_eval.calibration.calibration_plot import draw_calibration
from lampe_eval.calibration.calibration_run import FittedSettings
from lampe_eval.calibration.resolved_calibration import ResolvedCalibration
from lampe_eval.cards import ModelCard, find_model_card
from lampe_eval.file_io import save_files, shorten_name
from lampe_eval.report.tables import to_csv
from lampe_eval.yaml_files import write_yaml


def write_calibration(calibration: ResolvedCalibration, fitted: FittedSettings) -> list[Path]:
    """Write the card, calibration.csv and the plots, and return their paths, the card's first.

    Raises:
        UserError: if the folder cannot be written.
    """
    folder, name = calibration.folder, calibration.prepared.sources[0].name
    card_name = f"{shorten_name(name.replace('/', '--'))}-calibrated.yaml"
    files: dict[str, str | bytes] = {
        card_name: _card_text(calibration, fitted),
        "calibration.csv": _table_text(fitted),
        **_plots(calibration, fitted),
    }
    save_files(folder, files, "choose another --output")
    return [folder / file for file in files]


def _card_text(calibration: ResolvedCalibration, fitted: FittedSettings) -> str:
    card = _card(calibration, fitted).model_dump(mode="json")
    return write_yaml(card)


def _card(calibration: ResolvedCalibration, fitted: FittedSettings) -> ModelCard:
    """Return the model's card with each method's best settings in place of its own."""
    config, source = calibration.config, calibration.prepared.sources[0]
    card, _ = find_model_card(config.model[0])
    settings = {name: dict(values) for name, values in card.settings.items()}
    for stages in fitted.stages:
        best = fitted.best_stage(stages)
        settings[best.name] = {**settings.get(best.name, {}), **best.settings}
        if "slope" in best.settings:
            # slope, intercept and ceiling are a curve of the model's own, so none by name is needed
            settings[best.name].pop("curve", None)
    task = calibration.prepared.resolved.tasks[0].full_name
    lengths = ", ".join(map(str, config.lengths))
    about = (
        f"{source.name} with settings that lampe-eval calibrate fitted by {task} at "
        f"{lengths} tokens"
    )
    # the card may be used from another folder, where a relative path would be wrong
    path = str(Path(card.path).resolve()) if Path(card.path).is_dir() else card.path
    changes = {"about": about, "path": path, "window": calibration.window, "settings": settings}
    return card.model_copy(update=changes)


def _table_text(fitted: FittedSettings) -> str:
    tables: list[pd.DataFrame] = []
    for result in fitted.sweeps:
        best = {each.length: each.value for each in result.best}
        tables.append(result.table.assign(best=result.table["length"].map(best)))
    return to_csv(pd.concat(tables, ignore_index=True), "%.6f")


def _plots(calibration: ResolvedCalibration, fitted: FittedSettings) -> dict[str, bytes]:
    """Return a plot of each sweep over several lengths as a PNG, by the name of its file."""
    plots: dict[str, bytes] = {}
    for result in fitted.sweeps:
        if result.sweep.setting == "group_sizes":
            continue
        (stages,) = (own for own in fitted.stages if result.sweep.spec in own)
        plots[f"{stages[0].name}-{result.sweep.setting}.png"] = draw_calibration(
            calibration, result, stages
        )
    return plots
