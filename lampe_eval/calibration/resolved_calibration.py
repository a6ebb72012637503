"""Calibration with every name looked up, its lengths filled in, and its grids checked."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from lampe_eval.calibration.calibration_config import (
    FITTED_SETTINGS,
    CalibrationConfig,
    SweptSetting,
)
from lampe_eval.calibration.curve_fitting import log_extension
from lampe_eval.calibration.setting_sweep import GroupSizeSweep, SettingSweep
from lampe_eval.errors import UserError
from lampe_eval.file_io import refuse_links, short_sha256_of_json, shorten_name
from lampe_eval.method_specs import MethodSpec
from lampe_eval.running.prepared_run import PreparedRun, prepare_run
from lampe_eval.running.resolve import ResolvedSuite

DEFAULT_WINDOWS = (1, 2, 4, 8, 16)
"""Default lengths, in windows of the model."""
DEFAULT_BANDS = 8
"""Bands of rotated pairs whose group sizes are fitted, as DPE's authors have them."""
DEFAULT_GRID_SIZE = 8
"""Number of mapping lengths by default."""
ANSWER_SHARE = 16
"""Share of the window, as one part of 16, that stays free for an answer.

Positions of an answer continue from those of its prompt, so a mapping length of the whole window
would leave none.
"""
HELD_OUT_SEED_OFFSET = 1
"""Difference between the seeds of held-out samples and of samples that settings are fitted to."""


@dataclass(frozen=True)
class ResolvedCalibration:
    """Calibration with every name looked up and its lengths filled in.

    Attributes:
        config: the options.
        prepared: the run of the methods as given.
        folder: folder of the calibration; each of its runs has a folder in it.
    """

    config: CalibrationConfig
    prepared: PreparedRun
    folder: Path

    @property
    def window(self) -> int:
        """Return the tokens of the model's pretraining."""
        return self.prepared.sources[0].geometry.window

    @property
    def settings(self) -> list[SweptSetting]:
        """Return the settings that are fitted, in this order.

        The mapping length comes first, as attention factors are swept at the fitted mapping length.
        """
        settings: list[SweptSetting] = []
        for setting in FITTED_SETTINGS:
            if any(self.config.is_fitted(spec, setting) for spec in self.prepared.resolved.specs):
                settings.append(setting)
        return settings

    def sweep_of(self, spec: MethodSpec, setting: SweptSetting) -> SettingSweep:
        """Return the sweep of a setting of a method."""
        if setting == "attention_factor":
            return SettingSweep(spec, setting, self.config.attention_factors)
        values = self.config.mapping_lengths or self._default_mapping_lengths(spec)
        return SettingSweep(spec, setting, values)

    def sweeps_of(self, spec: MethodSpec, setting: SweptSetting) -> Sequence[SettingSweep]:
        """Return the sweeps of a setting of a method: of group sizes, one for each band."""
        if setting != "group_sizes":
            return [self.sweep_of(spec, setting)]
        # DPE's authors begin with twice the extension for all bands, and try powers of two up to
        # 128 for 16 windows.
        extension = max(1.0, self.config.lengths[-1] / self.window)
        values = self.config.group_sizes or tuple(
            1 << power for power in range(1 + int(math.log2(8 * extension)))
        )
        bands = spec.build(self.prepared.sources[0].settings).settings["bands"]
        count = DEFAULT_BANDS if bands is None else len(str(bands).split("/"))
        sizes = (math.ceil(2 * extension),) * count
        return [GroupSizeSweep(spec, setting, values, sizes, band) for band in range(count)]

    def lengths_of(self, setting: SweptSetting) -> tuple[int, ...]:
        """Return the lengths at which a setting is swept."""
        lengths = self.config.lengths
        return lengths[-1:] if setting == "group_sizes" else lengths

    def run(
        self, specs: Sequence[MethodSpec], lengths: tuple[int, ...], name: str = "", seed: int = 0
    ) -> PreparedRun:
        """Prepare one run.

        Args:
            specs: methods with their settings.
            lengths: tokens.
            name: folder of the run within that of the calibration.
            seed: added to the calibration's seed; any other than 0 gives other samples.
        """
        refuse_links(self.folder, self.folder / name)
        changes = {
            "method": tuple(spec.label for spec in specs),
            "lengths": lengths,
            "output": self.folder / name,
            "seed": self.config.seed + seed,
        }
        config = self.config.model_copy(update=changes)
        resolved = replace(self.prepared.resolved, suite=config, specs=list(specs))
        return prepare_run(resolved, self.prepared.sources)

    @property
    def row_counts(self) -> list[tuple[tuple[int, ...], int]]:
        """Return the number of rows that are run at the lengths of sweeps and at those held out."""
        specs = self.prepared.resolved.specs
        counts: list[tuple[tuple[int, ...], int]] = []
        for spec in specs:
            for setting in self.settings:
                if self.config.is_fitted(spec, setting):
                    rows = distinct_rows(self.sweeps_of(spec, setting))
                    counts.append((self.lengths_of(setting), len(rows)))
        # held out are compared: each method as given, and after each of its fits
        return [*counts, (self.config.held_out, len(specs) + len(counts))]

    def _default_mapping_lengths(self, spec: MethodSpec) -> tuple[int, ...]:
        """Return mapping lengths above head and tail tokens and below the window."""
        source = self.prepared.sources[0]
        method = spec.build(source.settings).resolved(source.geometry, self.config.lengths[-1])
        lowest = method.settings["head_tokens"] + method.settings["tail_tokens"]
        highest = self.window - self.window // ANSWER_SHARE
        # counted down from the highest, as the lowest itself leaves no middle region
        steps = range(DEFAULT_GRID_SIZE)
        values = {highest - (highest - lowest) * step // DEFAULT_GRID_SIZE for step in steps}
        return tuple(sorted(values))


def distinct_rows(sweeps: Iterable[SettingSweep]) -> list[MethodSpec]:
    """Return the rows of sweeps, each once: the bands of a group size begin with the same row."""
    rows: dict[str, MethodSpec] = {}
    for sweep in sweeps:
        rows |= {spec.label: spec for spec in sweep.specs}
    return list(rows.values())


def resolve_calibration(config: CalibrationConfig, resolved: ResolvedSuite) -> ResolvedCalibration:
    """Fill in the lengths of a calibration and check its grids.

    Args:
        config: the options.
        resolved: what their names mean.

    Raises:
        UserError: if something cannot be calibrated.
    """
    # Prepared twice: default lengths depend on the window, which is known only then
    prepared = prepare_run(resolved)
    window = prepared.sources[0].geometry.window
    lengths = config.lengths or tuple(windows * window for windows in DEFAULT_WINDOWS)
    held_out = config.held_out or tuple(
        round(math.sqrt(shorter * longer)) for shorter, longer in pairwise(lengths)
    )
    config = config.model_copy(update={"lengths": lengths, "held_out": held_out})
    prepared = prepare_run(replace(resolved, suite=config), prepared.sources)
    folder = config.output or _default_folder(config, prepared)
    calibration = ResolvedCalibration(config, prepared, folder)
    for setting in calibration.settings:
        _check_grid(calibration, setting)
    return calibration


def _default_folder(config: CalibrationConfig, prepared: PreparedRun) -> Path:
    """Return a folder named after the model and a hash of the options.

    Files are not hashed, because those that have to be fetched are not there yet.
    """
    source = prepared.sources[0]
    digest = short_sha256_of_json(
        [source.described, config.model_dump(mode="json", exclude={"label"})]
    )
    return Path("results") / f"calibration-{shorten_name(source.name.replace('/', '--'))}-{digest}"


def _check_grid(calibration: ResolvedCalibration, setting: SweptSetting) -> None:
    """Refuse values and lengths to which nothing can be fitted."""
    lengths, window = calibration.config.lengths, calibration.window
    option = f"--{setting.removesuffix('s').replace('_', '-')}s"
    sweeps: list[SettingSweep] = []
    values: set[float] = set()
    for spec in calibration.prepared.resolved.specs:
        if calibration.config.is_fitted(spec, setting):
            sweeps += calibration.sweeps_of(spec, setting)
            values.update(sweeps[-1].values)
    if len(values) < 2:
        raise UserError(f"{option}: one value is no sweep; give two or more")
    if setting == "mapping_length" and max(values) >= min(window, lengths[0] + 1):
        raise UserError(
            f"{option}: {max(values)} positions do not fit a window of {window} and "
            f"{lengths[0]} tokens"
        )
    extensions = {log_extension(length, window) for length in lengths}
    if setting == "attention_factor" and len(extensions) < 2:
        raise UserError(
            f"--lengths: attention_factor grows beyond the window of {window}; "
            "give two lengths beyond it"
        )
    rows = distinct_rows(sweeps)
    # Refuses values that a method cannot take.
    calibration.run(rows, calibration.lengths_of(setting))
