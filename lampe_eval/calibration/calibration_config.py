"""Options of a calibration, checked without importing torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from lampe_eval.errors import UserError
from lampe_eval.method_specs import MethodSpec
from lampe_eval.running.resolve import ResolvedSuite
from lampe_eval.suite import Lengths, Names, Suite, as_tuple, split_names

SweptSetting = Literal["mapping_length", "group_sizes", "attention_factor"]
FITTED_SETTINGS: Mapping[SweptSetting, tuple[str, ...]] = {
    "mapping_length": ("mapping_length", "slope", "intercept", "ceiling"),
    "group_sizes": ("group_sizes",),
    "attention_factor": ("attention_factor", "attention_factor_rate"),
}
"""For each setting that can be swept, the settings of a method that its sweep or its fit sets."""

MAX_FACTOR = 100.0
"""Largest attention factor to try; softmax has long become an argmax."""


def _parse_numbers(value: Any) -> tuple[float, ...]:
    return tuple(_parse_number(item) for item in split_names(value))


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number such as 1.12") from None


class CalibrationConfig(Suite):
    """Options of ``lampe-eval calibrate``.

    Attributes:
        method: methods to calibrate.
        bench: the one task by whose scores settings are fitted.
        sweep: settings to fit: to the prompt's length mapping_length (of LaMPE) and
            attention_factor (of every index method), and at the longest group_sizes (of DPE).
        mapping_lengths: mapping lengths to try, in positions; by default eight up to the window
            minus the part that is left for an answer.
        group_sizes: group sizes to try, in tokens; by default powers of two up to eight times the
            longest length in windows.
        attention_factors: attention factors to try.
        held_out: lengths, in tokens, at which given and fitted settings are compared; by default
            one between each two of ``lengths``.
    """

    method: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ("lampe",)
    bench: Names = ("ppl/exact",)
    sweep: Annotated[tuple[SweptSetting, ...], BeforeValidator(split_names)] = (
        "mapping_length",
        "group_sizes",
        "attention_factor",
    )
    mapping_lengths: Lengths = ()
    group_sizes: Lengths = ()
    attention_factors: Annotated[
        tuple[Annotated[float, Field(gt=0, le=MAX_FACTOR)], ...], BeforeValidator(_parse_numbers)
    ] = (0.96, 1.0, 1.04, 1.08, 1.12, 1.16, 1.2, 1.24, 1.28)
    held_out: Lengths = ()

    @field_validator("mapping_lengths", "group_sizes", "attention_factors", "lengths", "held_out")
    @classmethod
    def _sort_and_deduplicate(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(sorted(set(values)))

    def is_fitted(self, spec: MethodSpec, setting: SweptSetting) -> bool:
        """Return whether this calibration fits a setting of a method."""
        if setting not in self.sweep:
            return False
        return setting in spec.build({}).calibrated_settings


def check_calibration(config: CalibrationConfig, resolved: ResolvedSuite) -> None:
    """Refuse models, tasks and methods that cannot be calibrated together.

    Raises:
        UserError: for the first of them.
    """
    if len(resolved.model_cards) != 1 or len(resolved.tasks) != 1:
        raise UserError(
            "cannot calibrate: give one --model, and one task as --bench, such as ppl/exact or "
            "niah/multikey"
        )
    # By default there are more.
    if config.lengths and len(config.lengths) < 3:
        raise UserError(
            f"--lengths: a curve needs three lengths or more, got {len(config.lengths)}"
        )
    for spec in resolved.specs:
        _check_method(config, spec)
        if sum(other.name == spec.name for other in resolved.specs) > 1:
            raise UserError(
                f"--method: {spec.label}: {spec.name} is given twice; a card holds one fit of each "
                "method"
            )


def _check_method(config: CalibrationConfig, spec: MethodSpec) -> None:
    """Refuse a method that has nothing to fit, or sets it already."""
    where = f"--method: {spec.label}"
    if not spec.build({}).calibrated_settings:
        raise UserError(
            f"{where}: only a method of positions, alone, has something to fit, such as lampe or "
            "dca"
        )
    settings = [setting for setting in FITTED_SETTINGS if config.is_fitted(spec, setting)]
    if not settings:
        raise UserError(f"{where} has no {' or '.join(config.sweep)} to fit; change --sweep")
    for setting in settings:
        for name in FITTED_SETTINGS[setting]:
            if name in spec.settings:
                raise UserError(
                    f"{where}: {name} is what is to be fitted; leave it out, or narrow --sweep"
                )
