"""What a user asks of a calibration: the options of a run and the grids, checked before anything runs."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

import lampe
from lampe_eval.calibration.curve_fitting import log_extension
from lampe_eval.calibration.setting_sweep import FITTED_SETTINGS, SettingSweep, SweptSetting
from lampe_eval.errors import UserError
from lampe_eval.method_specs import MethodSpec
from lampe_eval.running.resolve import resolve_suite
from lampe_eval.running.run_plan import RunPlan, plan_run
from lampe_eval.suite import Lengths, Names, Suite, as_list, split_names

WINDOWS = (1, 2, 4, 8, 16)
"""Lengths by default, in windows of the model."""
GRID = 8
"""Mapping lengths by default."""
ROOM = 16
"""The share of the window, one in so many, that they leave for an answer, whose positions go on from theirs."""


def _numbers(value: Any) -> list[float]:
    return [_number(item) for item in split_names(value)]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number such as 1.12") from None


class CalibrationConfig(Suite):
    """Which settings to fit, to what.

    Attributes:
        sweep: settings to fit to the prompt's length: LaMPE's mapping_length, every method's attention_factor.
        mapping_lengths: positions to try; by default eight, up to the window less room for an answer.
        attention_factors: factors to try.
        held_out: lengths at which the fitted and the given are compared; by default those between ``lengths``.
    """

    method: Annotated[tuple[str, ...], BeforeValidator(as_list)] = ("lampe",)
    bench: Names = ("ppl/exact",)
    sweep: Annotated[tuple[SweptSetting, ...], BeforeValidator(split_names)] = (
        "mapping_length",
        "attention_factor",
    )
    mapping_lengths: Lengths = ()
    attention_factors: Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_numbers)] = (
        0.96, 1.0, 1.04, 1.08, 1.12, 1.16, 1.2, 1.24, 1.28,
    )  # fmt: skip
    held_out: Lengths = ()

    @field_validator("mapping_lengths", "attention_factors", "lengths", "held_out")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(sorted(set(values)))


@dataclass(frozen=True)
class ResolvedCalibration:
    """An order with every name looked up and its lengths filled in.

    Attributes:
        plan: of the methods as given.
        folder: of the calibration; each of its runs has a folder in it.
    """

    order: CalibrationConfig
    plan: RunPlan
    folder: Path

    @property
    def window(self) -> int:
        """Tokens of the model's pretraining."""
        return self.plan.sources[0].geometry.window

    @property
    def settings(self) -> list[SweptSetting]:
        """What is fitted, in order: attention_factors are swept at the mapping lengths found."""
        wanted = [setting for setting in FITTED_SETTINGS if setting in self.order.sweep]
        return [
            setting
            for setting in wanted
            if any(self.has(spec, setting) for spec in self.plan.specs)
        ]

    def has(self, spec: MethodSpec, setting: SweptSetting) -> bool:
        """Whether a method gets this setting fitted."""
        return setting in self.order.sweep and (
            setting == "attention_factor" or spec.name == "lampe"
        )

    def sweep(self, spec: MethodSpec, setting: SweptSetting) -> SettingSweep:
        """The rows that try values of a setting."""
        if setting == "attention_factor":
            return SettingSweep(spec, setting, self.order.attention_factors)
        return SettingSweep(spec, setting, self.order.mapping_lengths or self._grid(spec))

    def run(
        self, labels: Sequence[str], lengths: tuple[int, ...], name: str = "", seed: int = 0
    ) -> RunPlan:
        """One run of the calibration, in a folder of that name; ``seed`` other than 0 gives other samples."""
        changes = {"method": tuple(labels), "lengths": lengths, "output": self.folder / name}
        order = self.order.model_copy(update={**changes, "seed": self.order.seed + seed})
        return plan_run(resolve_suite(order))

    @property
    def rows(self) -> list[tuple[tuple[int, ...], int]]:
        """Lengths, and how many rows are run at them: those of the sweeps, those held out."""
        specs, order = self.plan.specs, self.order
        swept = [
            len(self.sweep(spec, s).values)
            for spec in specs
            for s in self.settings
            if self.has(spec, s)
        ]
        return [(order.lengths, sum(swept)), (order.held_out, len(specs) + len(swept))]

    def _grid(self, spec: MethodSpec) -> tuple[int, ...]:
        """Mapping lengths from what head and tail take up to the window, the same for every prompt."""
        source = self.plan.sources[0]
        resolved = (
            spec.build(source.settings).resolved(source.geometry, self.order.lengths[-1]).settings
        )
        least, most = (
            resolved["head_tokens"] + resolved["tail_tokens"],
            self.window - self.window // ROOM,
        )
        return tuple(sorted({most - (most - least) * step // GRID for step in range(GRID)}))


def resolve_calibration(order: CalibrationConfig) -> ResolvedCalibration:
    """Looks up every name of an order and fills in its lengths.

    Raises:
        UserError: for what cannot be calibrated.
    """
    plan = plan_run(resolve_suite(order))
    if len(plan.sources) != 1 or len(plan.tasks) != 1:
        raise UserError(
            "calibrate: one --model, and one task as --bench, such as ppl/exact or niah/multikey"
        )
    window = plan.sources[0].geometry.window
    lengths = order.lengths or tuple(windows * window for windows in WINDOWS)
    if len(lengths) < 3:
        raise UserError(f"--lengths: a curve needs three lengths or more, got {len(lengths)}")
    held_out = order.held_out or tuple(
        round(math.sqrt(near * far)) for near, far in pairwise(lengths)
    )
    order = order.model_copy(update={"lengths": lengths, "held_out": held_out})
    plan = plan_run(resolve_suite(order))
    found = ResolvedCalibration(order, plan, order.output or _folder(order, plan))
    for spec in plan.specs:
        _refuse_unfit(found, spec)
    for setting in found.settings:
        _refuse_grid(
            found,
            setting,
            [found.sweep(spec, setting) for spec in plan.specs if found.has(spec, setting)],
        )
    return found


def _folder(order: CalibrationConfig, plan: RunPlan) -> Path:
    """Named after the model and all that is asked of it, before any file is there that has to be fetched."""
    source = plan.sources[0]
    asked = repr((source.described, order.model_dump(mode="json")))
    digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
    return Path("results") / f"calibration-{source.name.replace('/', '--')}-{digest}"


def _refuse_grid(
    found: ResolvedCalibration, setting: SweptSetting, sweeps: Sequence[SettingSweep]
) -> None:
    """Refuses values and lengths from which nothing can be fitted."""
    lengths, option = found.order.lengths, f"--{setting.replace('_', '-')}s"
    values = sorted({value for sweep in sweeps for value in sweep.values})
    if len(values) < 2:
        raise UserError(f"{option}: one value is no sweep; give two or more")
    if setting == "mapping_length" and values[-1] >= min(found.window, lengths[0] + 1):
        raise UserError(
            f"{option}: {values[-1]} positions do not fit a window of {found.window} and {lengths[0]} tokens"
        )
    if (
        setting == "attention_factor"
        and len({log_extension(length, found.window) for length in lengths}) < 2
    ):
        raise UserError(
            f"--lengths: attention_factor grows beyond the window of {found.window}; give two lengths beyond it"
        )
    found.run(
        [label for sweep in sweeps for label in sweep.rows], lengths
    )  # refuses values that a method cannot take


def _refuse_unfit(found: ResolvedCalibration, spec: MethodSpec) -> None:
    """Refuses a method that has nothing to fit, or has it set already, or shares its place on the card."""
    where = f"--method: {spec.label}"
    if not isinstance(spec.build({}), lampe.IndexMethod):
        raise UserError(
            f"{where}: only a method of positions, alone, has something to fit, such as lampe or dca"
        )
    wanted = [setting for setting in found.settings if found.has(spec, setting)]
    if not wanted:
        raise UserError(f"{where} has no mapping length; only lampe has one")
    for setting in (
        own for swept in wanted for own in FITTED_SETTINGS[swept] if own in spec.settings
    ):
        raise UserError(
            f"{where}: {setting} is what is to be fitted; leave it out, or narrow --sweep"
        )
    if sum(other.name == spec.name for other in found.plan.specs) > 1:
        raise UserError(f"{where}: {spec.name} stands twice; a card holds one fit of each method")
