"""Options of ``lampe-eval speed``, checked before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from lampe_eval.cards import Dtype, ModelCard, shipped_names
from lampe_eval.errors import unknown_name
from lampe_eval.method_specs import MethodSpec
from lampe_eval.suite import (
    MAX_LENGTH,
    Attention,
    Device,
    Length,
    Lengths,
    Options,
    as_tuple,
    split_names,
    validate_options,
)

MAX_PAIRS = 1000
"""Pairs of a measurement; the interval of its ratio has long stopped to shrink."""


class SpeedConfig(Options):
    """Options of a speed measurement.

    Attributes:
        model: card, folder or hub id of a checkpoint; "pocket" by default.
        shape: name in ``configs/shapes``. The model then has this shape and random weights, whose
            values do not change what a step costs.
        layers: number of layers to keep of the shape.
        method: methods, each with settings after a colon.
        lengths: lengths of prompts, in tokens.
        attention: attention backends; every method is measured with each.
        pairs: pairs of a run with plain attention and a run with the method; each pair gives one
            ratio.
        chunk: tokens of a prompt that are processed at a time; all by default.
        window: tokens of pretraining, where the model's configuration is wrong.
        dtype: data type of the weights. By default that of the checkpoint; for a shape bfloat16 on
            a GPU and float32 elsewhere.
        device: device as torch names it; "auto" takes a GPU where there is one.
        output: folder of the results.
        plugin: Python files that define further methods.
    """

    model: str | None = None
    shape: str | None = None
    layers: int | None = Field(default=None, ge=1)
    method: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = (
        "original",
        "selfextend",
        "dca",
        "lampe",
    )
    lengths: Annotated[Lengths, Field(min_length=1)] = (4096, 16_384)
    attention: Annotated[
        tuple[Attention, ...], BeforeValidator(split_names), Field(min_length=1)
    ] = ("auto",)
    pairs: int = Field(default=3, ge=1, le=MAX_PAIRS)
    chunk: int | None = Field(default=None, ge=1, le=MAX_LENGTH)
    window: Length | None = Field(default=None, ge=1)
    dtype: Dtype | None = None
    device: Device = "auto"
    output: Path | None = None
    plugin: Annotated[tuple[Path, ...], BeforeValidator(as_tuple)] = ()

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.layers and not self.shape:
            raise ValueError("--layers goes with --shape; a checkpoint is measured with all layers")
        if self.shape and self.model:
            raise ValueError("--shape replaces --model; give one of them")
        return self

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Return the configuration of options by name; options that are None keep their defaults.

        Raises:
            UserError: if an option has an invalid value, or names something that does not exist.
        """
        config = validate_options(cls, options)
        shapes = shipped_names("shapes")
        if config.shape and config.shape not in shapes:
            raise unknown_name("shape", config.shape, shapes, "the files in configs/shapes")
        return config

    @property
    def checkpoint(self) -> str:
        """Return the card, folder or hub id of the model, where no shape replaces it."""
        return self.model or "pocket"

    @property
    def name(self) -> str:
        """Return the name of the model in tables."""
        layers = f", {self.layers} of its layers" if self.layers else ""
        return f"shape {self.shape}{layers}" if self.shape else self.checkpoint

    @property
    def folder(self) -> Path:
        """Return the folder of the results."""
        return self.output or Path("results/speed") / (self.shape or Path(self.checkpoint).stem)


@dataclass(frozen=True)
class ResolvedSpeed:
    """Speed measurement with what its names mean.

    Attributes:
        config: the options.
        specs: methods to measure.
        model: card and name of the checkpoint; None where a shape replaces it.
    """

    config: SpeedConfig
    specs: Sequence[MethodSpec]
    model: tuple[ModelCard, str] | None
