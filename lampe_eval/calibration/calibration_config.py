"""Options of a calibration, checked without importing torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from lampe_eval.suite import Lengths, Names, Suite, as_tuple, split_names

SweptSetting = Literal["mapping_length", "attention_factor"]
FITTED_SETTINGS: Mapping[SweptSetting, tuple[str, ...]] = {
    "mapping_length": ("mapping_length", "slope", "intercept", "ceiling"),
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
        sweep: settings to fit to the prompt's length: mapping_length (of LaMPE) and
            attention_factor (of every index method).
        mapping_lengths: mapping lengths to try, in positions; by default eight up to the window
            minus the part that is left for an answer.
        attention_factors: attention factors to try.
        held_out: lengths, in tokens, at which given and fitted settings are compared; by default
            one between each two of ``lengths``.
    """

    method: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ("lampe",)
    bench: Names = ("ppl/exact",)
    sweep: Annotated[tuple[SweptSetting, ...], BeforeValidator(split_names)] = (
        "mapping_length",
        "attention_factor",
    )
    mapping_lengths: Lengths = ()
    attention_factors: Annotated[
        tuple[Annotated[float, Field(gt=0, le=MAX_FACTOR)], ...], BeforeValidator(_parse_numbers)
    ] = (0.96, 1.0, 1.04, 1.08, 1.12, 1.16, 1.2, 1.24, 1.28)
    held_out: Lengths = ()

    @field_validator("mapping_lengths", "attention_factors", "lengths", "held_out")
    @classmethod
    def _sort_and_deduplicate(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(sorted(set(values)))
